"""Open the records of a data directory: one control plane at a time, up to date, or not at all."""

import os
from pathlib import Path

from modelyard.control.records.database import Database
from modelyard.control.records.schema import Migrated, migrate
from modelyard.foundation.clock import Clock
from modelyard.foundation.supervision import DirectoryLock


class OpenedRecords:
    """The records while this process holds them; `close` lets another one in."""

    def __init__(self, database: Database, *, lock: DirectoryLock, migrated: Migrated) -> None:
        self.database = database
        self.migrated = migrated
        self._lock = lock

    def close(self) -> None:
        """Close every connection and give the lock back. Idempotent."""
        self.database.close()
        self._lock.release()


def open_records(path: Path, *, backups: Path, kept: int = 5, clock: Clock | None = None) -> OpenedRecords:
    """The SQLite records in `path`, migrated if they are older.

    The lock file beside them is held as long as the records are open; the kernel frees it when the process dies.

    Raises:
        StartRefused: another process has them open, or they are of a newer version.
    """
    lock = DirectoryLock(
        path.with_name(path.name + ".lock"),
        held="the records of {place} are open in the control plane",
        hint="stop that one first; two control planes never share a data directory",
    )
    lock.take()
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        database = Database.at(path, clock=clock)
        migrated = migrate(database, backups=backups, kept=kept)
    except BaseException:
        lock.release()
        raise
    return OpenedRecords(database, lock=lock, migrated=migrated)
