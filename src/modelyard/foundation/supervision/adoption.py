"""Take over what an earlier supervisor left running: processes that still answer, and the sockets they hold.

A supervisor writes down what it started. When it was killed, the next one on the same data directory finds the list,
keeps only entries whose process is truly the one that was started (same id and start time), and gets its own copies of
their listening sockets from the kernel (`pidfd_getfd`, Linux 5.6), so that it can start a replacement later.
"""

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

_PIDFD_GETFD: Final = 438
_START_TOLERANCE_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A process as its supervisor wrote it down. `fingerprint` is of everything that it was started with."""

    name: str
    pid: int
    started_at: float
    fingerprint: str

    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_at) < _START_TOLERANCE_S
            return same and process.status() != psutil.STATUS_ZOMBIE
        return False


def write_left(path: Path, entries: Iterable[Left]) -> None:
    """Write the list, whole or not at all."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps([asdict(entry) for entry in entries]), encoding="utf-8")
    draft.replace(path)


def read_left(path: Path) -> list[Left]:
    """What an earlier supervisor started and what is still alive; a damaged list counts as empty."""
    with suppress(OSError, ValueError, TypeError):
        return [entry for entry in (Left(**row) for row in json.loads(path.read_text("utf-8"))) if entry.is_alive()]
    return []


def left_of(name: str, pid: int, *, fingerprint: str) -> Left | None:
    """The entry for a running process; None when it has just ended."""
    with suppress(psutil.Error):
        return Left(name=name, pid=pid, started_at=psutil.Process(pid).create_time(), fingerprint=fingerprint)
    return None


def borrow_descriptor(pid: int, descriptor: int) -> int:
    """Our own copy of another process's descriptor.

    Raises:
        OSError: the kernel does not allow it or does not know how.
    """
    if sys.platform != "linux":
        raise OSError("descriptors cannot be taken over on this system")
    handle = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        copy = int(libc.syscall(_PIDFD_GETFD, handle, descriptor, 0))
        if copy < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return copy
    finally:
        os.close(handle)


class AdoptedProcess:
    """A process that is not our child, behind the part of `asyncio.subprocess.Process` that supervision needs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._handle = os.pidfd_open(pid)

    def send_signal(self, number: int) -> None:
        """Send a signal to exactly this process."""
        signal.pidfd_send_signal(self._handle, number)

    async def wait(self) -> int:
        """Return when it has ended. Its exit code is its parent's to know: 0 stands for it."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._handle, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._handle)
        self.returncode = 0
        os.close(self._handle)
        return 0
