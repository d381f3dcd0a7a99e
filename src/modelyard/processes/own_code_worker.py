"""Raise the walls around own code, then become the program that runs it.

    python -m modelyard.processes.own_code_worker --config FILE [--ready-fd N] [--tied-to PID]

The arguments are those of the model worker, which hands over to this program for a runtime that has a program of its
own. It binds the worker's socket, takes leave of network, rights and files, sets the limits, and replaces itself: the
process keeps its number, so the supervisor notices nothing. What stands is written to the log; without a wall between
the code and the network it refuses to start, unless the policy allows the network.
"""

import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import StartRefused
from modelyard.foundation.containment import landlock, seccomp
from modelyard.foundation.documents import read_package
from modelyard.foundation.environments import CodePolicy, Environments
from modelyard.foundation.sealing import SealingKey
from modelyard.foundation.supervision import EXIT_REFUSED
from modelyard.foundation.supervision.inside import begin_child
from modelyard.inference.hosting import RUNTIMES, require_whole
from modelyard.ports.runtime import Program, ProgramRuntime
from modelyard.processes.model_worker import WorkerConfig, bind, read_config

_NEW_USER, _NEW_NET, _NEW_IPC = 0x10000000, 0x40000000, 0x08000000
_PR_SET_NO_NEW_PRIVS: Final = 38
_SPARE_BYTES: Final = 2 << 30
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_NETLINK", 16))
_SYSTEM_READS: Final = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/null",
    "/dev/urandom",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
)
_NETWORK_READS: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/services")
_OPEN_FILES: Final = 512
_THREADS: Final = 512


def main(argv: Sequence[str] | None = None) -> int:
    """Become the worker's program; returns only when that fails."""
    try:
        config, ready_fd, tied_to = read_config(sys.argv[1:] if argv is None else argv)
        begin_child(config.title, tied_to=tied_to)
        _become(config, ready_fd)
    except ModelyardError as error:
        print(f"the code cannot be started: {error.detail}", file=sys.stderr)  # noqa: T201  (last words)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        print(f"the code cannot be started: {error}", file=sys.stderr)  # noqa: T201
    return EXIT_REFUSED


def _become(config: WorkerConfig, ready_fd: int | None) -> None:
    directory = Path(config.package)
    package = read_package(directory)
    runtime = RUNTIMES.get(package.runtime)()
    if config.environments is None or not isinstance(runtime, ProgramRuntime):
        raise StartRefused(f"{package.name} has no program of its own, or no place for its environment is given")
    program = runtime.program(directory, package, Path(config.environments))
    if config.device not in {"auto", "cpu"}:
        raise StartRefused(f"{package.name} runs on the processor, not on {config.device}")
    require_whole(directory, package)
    if not (directory / package.entry).is_file():
        raise StartRefused("the package lacks the file it names as its entry", hint="upload the model again")
    variables = _open_variables(config)  # before the files are closed: the code never sees the key
    policy = Environments(Path(config.environments)).policy()
    listener = bind(Path(config.socket))  # it listens when the model is loaded
    place = _private_place(Path(f"{config.socket}.d"))
    walls = _take_leave(policy)
    code = seccomp.worker_filter(os.getpid(), families=_FAMILIES if policy.network else ())
    settings = {
        **program.settings,
        "title": config.title,
        "diary": str(place / "now"),
        "listener_fd": listener.fileno(),
        "ready_fd": ready_fd,
        "run_limit_s": policy.run_limit_s,
        "filter": (code or b"").hex(),
        "wall_needed": not policy.network and walls["namespaces"] != "stands",
    }
    if settings["wall_needed"] and not code:
        raise StartRefused("no wall of this system stands between the code and the network")
    path = place / "settings.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    walls["landlock"] = _close_files(program, directory, place, network=policy.network)
    print(f"walls: {json.dumps(walls)}", file=sys.stderr, flush=True)  # noqa: T201  (the worker's log)
    _limit(policy, config, alone=walls["namespaces"] == "stands")
    for descriptor in (listener.fileno(), ready_fd):
        if descriptor is not None:
            os.set_inheritable(descriptor, True)  # noqa: FBT003  (its only signature)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execve(program.command[0], [*program.command, str(path)], {**variables, **_surroundings(place, config.threads)})  # noqa: S606


def _open_variables(config: WorkerConfig) -> dict[str, str]:
    """The variables of the code, opened; they exist in its environment and nowhere on disk."""
    if not config.env:
        return {}
    if config.sealing_key is None:
        raise StartRefused("the code has secrets in its environment, and no key is named that opens them")
    key = SealingKey.open(Path(config.sealing_key))
    return {name: key.unseal(one.sealed, about=f"{one.project}/{one.name}") for name, one in config.env.items()}


def _private_place(place: Path) -> Path:
    """An empty directory for what the code writes."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    return place.resolve()


def _take_leave(policy: CodePolicy) -> dict[str, str]:
    """A user namespace without rights, and a network namespace without interfaces; no rights come back (prctl(2))."""
    if sys.platform != "linux":
        return {"namespaces": "this system has none", "no_new_privileges": "this system has none"}
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _NEW_USER | _NEW_IPC | (0 if policy.network else _NEW_NET)
    entered = "stands" if libc.unshare(flags) == 0 else os.strerror(ctypes.get_errno())
    private = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return {"namespaces": entered, "no_new_privileges": "stands" if private == 0 else os.strerror(ctypes.get_errno())}


def _close_files(program: Program, directory: Path, place: Path, *, network: bool) -> str:
    """Leave package, environment, interpreter and system libraries to be read, `place` to be written."""
    if sys.platform != "linux":
        return "this system has none"
    prefix = Path(program.command[0]).parent.parent
    roots = [Path(item) for item in (*_SYSTEM_READS, *(_NETWORK_READS if network else ()))]
    interpreter = [prefix / "lib", prefix / "bin"]
    read = [path for path in (*roots, *interpreter, directory, *program.read) if path.exists()]
    return landlock.confine(read=read, write=[place, Path("/dev/null")], network=network)


def _limit(policy: CodePolicy, config: WorkerConfig, *, alone: bool) -> None:
    """Threads are counted only in a namespace of our own: outside, the count is that of the whole user.

    What the service allows of memory is bounded already (`model_worker`); addresses that hold nothing cost little.
    """
    memory = policy.memory_bytes if config.memory is None else max(policy.memory_bytes, config.memory + _SPARE_BYTES)
    for which, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, policy.file_bytes),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        *(((resource.RLIMIT_NPROC, _THREADS),) if alone and sys.platform == "linux" else ()),
    ):
        _, hard = resource.getrlimit(which)
        wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (wanted, wanted))


def _surroundings(place: Path, threads: int) -> dict[str, str]:
    """The whole environment of the program: nothing of ours, `threads` threads a library."""
    libraries: dict[str, Any] = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), str(threads)
    )
    return {**libraries, "PATH": os.defpath, "LC_ALL": "C.UTF-8", "HOME": str(place), "TMPDIR": str(place)}


if __name__ == "__main__":
    sys.exit(main())
