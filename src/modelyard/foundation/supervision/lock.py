"""One holder at a time, enforced by the kernel: the lock is gone when its holder is, however it ended."""

import fcntl
import os
from pathlib import Path

from modelyard.domain.errors.platform import StartRefused


class DirectoryLock:
    """An exclusive lock file that names its holder. `held` says what a second taker is told, before the process id."""

    def __init__(
        self,
        path: Path,
        *,
        held: str = "the data directory {place} is already in use by the platform",
        hint: str = "stop that one with Ctrl-C, or start this one with --data DIR on another directory",
    ) -> None:
        self._path = path
        self._held = held
        self._hint = hint
        self._fd = -1

    def take(self) -> None:
        """Hold the lock until `release` or the end of this process.

        Raises:
            StartRefused: another process holds it; the text names that process and the directory.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise StartRefused(
                f"{self._held.format(place=self._path.parent)} with process id {holder}", hint=self._hint
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Let go. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
