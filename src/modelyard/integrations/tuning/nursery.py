"""The process that trials are forked from: it has loaded what most of them import, and has one thread.

    python -I -B -m modelyard.integrations.tuning.nursery

Lines of JSON in: `{"start": ERRAND}` and `{"end": NUMBER}`. Lines out: `{"started": NUMBER, "pid": PID}`, and
`{"ended": NUMBER, "status": STATUS}` as `subprocess` counts it. At the end of its input it ends its trials and itself;
a trial dies with it.
"""

import ctypes
import json
import os
import select
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

from modelyard.integrations.tuning.errands import Errand, run

_PRELOADED: Final = ("numpy", "pandas", "skops.io", "sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline")
_PR_SET_PDEATHSIG: Final = 1


def main() -> int:
    """Serve until the input ends."""
    for name in _PRELOADED:
        with suppress(ImportError):
            import_module(name)
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pids: dict[int, int] = {}
    rest = b""
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            with suppress(BlockingIOError):
                os.read(wake, 4096)
            _reap(pids)
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                _do(json.loads(line), pids)
    for pid in pids.values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return 0


def _do(order: dict[str, Any], pids: dict[int, int]) -> None:
    if "end" in order:
        pid = pids.get(order["end"])
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        return
    errand = Errand(**order["start"])
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        _begin(errand, parent)
    pids[errand.number] = pid
    _say({"started": errand.number, "pid": pid})


def _begin(errand: Errand, parent: int) -> None:
    """In the child: die with the nursery, and forget its handlers."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    run(errand)


def _reap(pids: dict[int, int]) -> None:
    for number, pid in list(pids.items()):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            del pids[number]
            _say({"ended": number, "status": os.waitstatus_to_exitcode(status)})


def _say(word: dict[str, Any]) -> None:
    os.write(1, json.dumps(word).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
