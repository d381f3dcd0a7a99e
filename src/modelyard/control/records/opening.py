"""Open the records: up to date, or not at all. In a data directory, for one control plane at a time."""

import hashlib
import hmac
import os
from pathlib import Path
from typing import Final

from sqlalchemy import URL, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from modelyard.control.records.database import Database
from modelyard.control.records.failures import translated
from modelyard.control.records.schema import Migrated, about, migrate
from modelyard.domain.errors.platform import InvalidRequest, StartRefused
from modelyard.foundation.clock import Clock
from modelyard.foundation.settings import RecordSettings
from modelyard.foundation.supervision import DirectoryLock

_SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg")
_OLDEST: Final = 14
_FILES: Final = "files"


class OpenedRecords:
    """The records while this process holds them; `close` lets another one in."""

    def __init__(self, database: Database, *, migrated: Migrated, lock: DirectoryLock | None = None) -> None:
        self.database = database
        self.migrated = migrated
        self._lock = lock

    def close(self) -> None:
        """Close every connection and give the lock back. Idempotent."""
        self.database.close()
        if self._lock is not None:
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
        hint="stop that one first; control planes share records on PostgreSQL only (records.url)",
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


def open_served_records(
    url: URL, *, backups: Path, pepper: bytes | None = None, clock: Clock | None = None
) -> OpenedRecords:
    """The records on a PostgreSQL server, migrated if they are older; other control planes may have them open.

    With `pepper`, they have to belong to the files that it came from; new records belong to them from now on.

    Raises:
        StartRefused: they are of a newer version or belong to other files, or the database cannot keep every text.
        Unavailable: the server does not answer, or lets nobody in with this name and password.
        MissingExtra: the driver is not installed.
    """
    database = Database(url, clock=clock)
    try:
        _require_fit(database)
        migrated = migrate(database, backups=backups)
        if pepper is not None:
            _require_files(database, pepper)
    except BaseException:
        database.close()
        raise
    return OpenedRecords(database, migrated=migrated)


def records_url(settings: RecordSettings) -> URL | None:
    """Where the settings say that the records are, with the password; None for SQLite in the data directory.

    Raises:
        InvalidRequest: no address of a PostgreSQL database, or the password's file cannot be read.
        StartRefused: others than its owner may read that file.
    """
    if not settings.url:
        return None
    hint = "postgresql://USER@HOST:5432/DATABASE, or empty for SQLite in the data directory"
    try:
        url = make_url(settings.url)
    except (ArgumentError, ValueError) as error:
        raise InvalidRequest("records.url is no address of a database", hint=hint) from error
    if url.drivername not in _SCHEMES:
        raise InvalidRequest(f"records.url cannot begin with {url.drivername[:40]!r}", hint=hint)
    if not url.database:
        raise InvalidRequest("records.url names no database", hint=hint)
    url = url.set(drivername="postgresql+psycopg")
    if not settings.password_file:
        return url
    if url.password is not None:
        raise InvalidRequest("records.url holds a password and records.password_file another", hint="give one of them")
    return url.set(password=_password(Path(settings.password_file)))


def shared_files(settings: RecordSettings) -> Path | None:
    """The folder that control planes have in common; None for the data directory.

    Raises:
        InvalidRequest: it is named by no absolute path, or without a database that can be shared.
    """
    if not settings.files:
        return None
    if not settings.url:
        raise InvalidRequest(
            "records.files is for control planes that share their records", hint="set records.url to PostgreSQL"
        )
    if not Path(settings.files).is_absolute():
        raise InvalidRequest("records.files has to be an absolute path", hint="every control plane names the same one")
    return Path(settings.files)


def _require_files(database: Database, pepper: bytes) -> None:
    """Keys and seals are of one pepper: records beside other files would let nobody in and prove nothing."""
    mark = hmac.new(pepper, b"records", hashlib.sha256).hexdigest()
    with database.begin() as tx:
        known = tx.scalar(select(about.c.value).where(about.c.name == _FILES))
        if known is None:
            tx.execute(about.insert().values(name=_FILES, value=mark))
        elif known != mark:
            raise StartRefused(
                "the records in this database belong to files elsewhere",
                hint="start with their data directory, or set records.files to the folder that is shared",
            )


def _password(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as stream:
            if os.fstat(stream.fileno()).st_mode & 0o077:
                raise StartRefused("others can read records.password_file", hint=f"chmod 600 {file.name}")
            return stream.read(4096).strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InvalidRequest("records.password_file cannot be read", hint=reason) from error


def _require_fit(database: Database) -> None:
    with translated(), database.engine.connect() as connection:
        version = int(connection.scalar(text("SHOW server_version_num"))) // 10_000
        encoding = connection.scalar(text("SHOW server_encoding"))
    if version < _OLDEST:
        raise StartRefused(f"PostgreSQL {version} is too old", hint=f"version {_OLDEST} or newer")
    if encoding != "UTF8":
        raise StartRefused(
            f"the database keeps its texts as {encoding}",
            hint="CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'",
        )
