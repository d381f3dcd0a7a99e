"""The process of one attempt of a job: walls first, then the code of its kind.

    python -I -m modelyard.processes.job_program FD

The order comes as one line of JSON on standard input; lines of JSON go out on the descriptor FD; a further line on
standard input says that the job is to end. The process has no key but the one for the service that the job asks, no way
to the records, and reads and writes only its own directories, its inputs and the libraries.
"""

import ctypes
import errno
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import setproctitle

from modelyard.domain.errors.base import ModelyardError, quote
from modelyard.domain.errors.platform import (
    InvalidRequest,
    JobFailed,
    MissingExtra,
    NotFound,
    NotSupported,
)
from modelyard.foundation.containment import landlock
from modelyard.foundation.containment.roots import library_roots
from modelyard.foundation.memory import bound_memory, is_out_of_memory
from modelyard.ports.job_runner import ServiceAddress
from modelyard.processes.jobs.limits import too_much_disk, too_much_memory
from modelyard.processes.jobs.orders import Kept, Offered, Order, Said
from modelyard.processes.jobs.runners import JOB_RUNNERS

_PR_SET_PDEATHSIG: Final = 1
_OPEN_FILES: Final = 1024
_REPORT_EVERY_S: Final = 0.25
_REFUSALS: Final = (InvalidRequest, NotSupported, MissingExtra)
_ALSO_READ: Final = (
    "/proc",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/etc",
    "/usr/share",
    "/dev/urandom",
    "/dev/zero",
    "/bin",
    "/usr/bin",
)
_ALSO_WRITTEN: Final = ("/dev/null", "/dev/shm")  # noqa: S108  (shared memory of the libraries' own workers)
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_LONGEST_NAME: Final = 128


class Channel:
    """Lines to the worker."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_inheritable(descriptor, False)  # noqa: FBT003  (its only signature)

    def say(self, said: Said) -> None:
        """One line, written whole."""
        line = msgspec.json.encode(said) + b"\n"
        while line:
            line = line[os.write(self._descriptor, line) :]


class Context:
    """What the code of a kind is handed: see `ports/job_runner.py`."""

    def __init__(self, order: Order, channel: Channel) -> None:
        self._order = order
        self._channel = channel
        self._names: set[str] = set()
        self._reported_at = float("-inf")
        self._unsaid: Said | None = None
        self._cancelled = False
        self.id = order.job
        self.kind = order.kind
        self.parameters: Mapping[str, Any] = order.parameters
        self.directory = Path(order.directory)
        self.seed = order.seed
        self.attempt = order.attempt

    def input(self, name: str) -> Path:
        """A file or directory that was given."""
        path = self._order.inputs.get(name)
        if path is None:
            raise NotFound(f"the job has no input {quote(name)}")
        return Path(path)

    def service(self) -> ServiceAddress:
        """Where the service of this job is asked."""
        if not self._order.service_url:
            raise NotFound("the job asks no service")
        return ServiceAddress(url=self._order.service_url, key=self._order.service_key)

    def report(self, *, done: float | None, text: str = "", metrics: Mapping[str, float] | None = None) -> None:
        """Progress; what comes too fast is said with the next or at the end."""
        share = None if done is None else round(min(max(float(done), 0.0), 1.0), 4)
        said = {
            "done": share,
            "text": str(text)[:300],
            "metrics": {str(k): float(v) for k, v in (metrics or {}).items()},
        }
        self._unsaid = Said(progress=said)
        if time.monotonic() - self._reported_at >= _REPORT_EVERY_S:
            self.say_rest()

    def say_rest(self) -> None:
        """Say the latest progress, if it was not said."""
        if self._unsaid is not None:
            self._channel.say(self._unsaid)
            self._unsaid, self._reported_at = None, time.monotonic()

    def keep(self, name: str, path: Path) -> None:
        """A file of the outcome."""
        if not name or len(name) > _LONGEST_NAME or not _PLAIN.issuperset(name) or name.startswith("."):
            raise InvalidRequest(f"{quote(name)} is not a plain file name")
        if name in self._names:
            raise InvalidRequest(f"{quote(name)} is kept already")
        self._names.add(name)
        self._channel.say(Said(keep=Kept(name=name, path=str(path))))

    def checkpoint(self) -> Path:
        """A directory that survives attempts."""
        return Path(self._order.checkpoint)

    def candidate(
        self,
        path: Path,
        *,
        name: str,
        labels: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        parent: str | None,
    ) -> None:
        """A model that becomes a version."""
        offered = Offered(
            path=str(path),
            name=name,
            labels=None if labels is None else dict(labels),
            config=None if config is None else dict(config),
            parent=parent,
        )
        self._channel.say(Said(candidate=offered))

    def is_cancelled(self) -> bool:
        """Whether a further line came on standard input, or its other end is gone."""
        if not self._cancelled and select.select([0], [], [], 0)[0]:
            self._cancelled = True
        return self._cancelled


def main(arguments: list[str]) -> int:
    """Do one attempt; the exit code."""
    channel = Channel(int(arguments[0]))
    order = msgspec.json.decode(_first_line(), type=Order)
    setproctitle.setproctitle(f"modelyard: job {order.kind} {order.job}")
    _tie_to(order.parent)
    context = Context(order, channel)
    try:
        _raise_walls(order)
        runner = JOB_RUNNERS.get(order.kind)()
        runner.check(order.parameters)
        result = runner.run(context)
        context.say_rest()
        channel.say(Said(done=dict(result)))
    except BaseException as error:  # noqa: BLE001  (the plugin edge: whatever a kind raises becomes the job's error)
        traceback.print_exc()
        context.say_rest()
        channel.say(Said(failed=_failure(error, order)))
        return 1
    return 0


def _first_line() -> bytes:
    """One line, byte by byte: what follows is left for `is_cancelled`."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return bytes(line)


def _tie_to(parent: int) -> None:
    """Die with the worker, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _raise_walls(order: Order) -> None:
    """Bounds, then what may be opened. The worker watches the sums over all processes."""
    bound_memory(order.memory_bytes)
    for which, most in (
        (resource.RLIMIT_FSIZE, order.disk_bytes),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(which)
        wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (wanted, wanted))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the bound is an error that says so
    read = [*library_roots(), *(Path(place) for place in (*_ALSO_READ, *order.read))]
    write = [Path(place) for place in (*_ALSO_WRITTEN, order.directory, order.checkpoint)]
    if sys.platform == "linux":
        landlock.confine(read=read, write=write, network=order.network)


def _failure(error: BaseException, order: Order) -> dict[str, Any]:
    if is_out_of_memory(error):
        known: ModelyardError = too_much_memory(order.memory_bytes)
    elif isinstance(error, OSError) and error.errno == errno.EFBIG:  # one file reached what all of them may have
        known = too_much_disk(order.disk_bytes)
    elif isinstance(error, ModelyardError):
        known = error
    else:
        text = str(error) or "without a word"
        known = JobFailed(f"{type(error).__name__}: {quote(text, limit=300)}", hint="its log has the rest")
    told = {"code": known.code, "title": known.title, "detail": known.detail, "hint": known.hint}
    if known.details:
        told["details"] = [dict(each) for each in known.details]  # type: ignore[assignment]  # a list among texts
    return {"failure": "refused" if isinstance(known, _REFUSALS) else "error", "error": told}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
