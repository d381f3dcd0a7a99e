"""Open the records of a data directory: one control plane at a time, up to date, or not at all."""

import fcntl
import os
from pathlib import Path

from modelyard.control.records.database import Database
from modelyard.control.records.schema import Migrated, migrate
from modelyard.domain.errors.platform import StartRefused
from modelyard.foundation.clock import Clock


class OpenedRecords:
    """The records while this process holds them; `close` lets another one in."""

    def __init__(self, database: Database, *, lock: int, migrated: Migrated) -> None:
        self.database = database
        self.migrated = migrated
        self._lock = lock

    def close(self) -> None:
        """Close every connection and give the lock back. Idempotent."""
        self.database.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def open_records(path: Path, *, backups: Path, kept: int = 5, clock: Clock | None = None) -> OpenedRecords:
    """The SQLite records in `path`, migrated if they are older.

    The lock file beside them is held as long as the records are open; the kernel frees it when the process dies.

    Raises:
        StartRefused: another process has them open, or they are of a newer version.
    """
    lock = _lock(path.with_name(path.name + ".lock"))
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        database = Database.at(path, clock=clock)
        migrated = migrate(database, backups=backups, kept=kept)
    except BaseException:
        os.close(lock)
        raise
    return OpenedRecords(database, lock=lock, migrated=migrated)


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise StartRefused(
            f"the records of {path.parent} are open in the control plane with process id {holder}",
            hint="stop that one first; two control planes never share a data directory",
        ) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
