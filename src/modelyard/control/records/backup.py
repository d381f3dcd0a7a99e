"""Copy the records while they are in use, through SQLite's own backup: the file alone lacks what is in the WAL."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, create_engine

from modelyard.domain.errors.platform import InvalidRequest
from modelyard.foundation.durable import sync


def back_up(source: Path, target: Path) -> None:
    """Write a consistent copy of the records to `target`, which appears whole (mode 0600) or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    with suppress(FileNotFoundError):
        partial.unlink()
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with closing(sqlite3.connect(source)) as origin, closing(sqlite3.connect(partial)) as copy:
            origin.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        check(partial)
        sync(partial)
        partial.rename(target)
        sync(target.parent)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def restore(copy: Path, target: Path) -> None:
    """Put a copy in the place of records that no process has open; what was there is gone afterwards."""
    check(copy)
    back_up(copy, target.with_name(f".{target.name}.restored"))
    for companion in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            target.with_name(target.name + companion).unlink()
    target.with_name(f".{target.name}.restored").rename(target)
    sync(target.parent)


@contextmanager
def read_copy(copy: Path) -> Iterator[Connection]:
    """Look into a copy that nobody writes, without changing a byte of it."""
    engine = create_engine(f"sqlite:///file:{copy}?mode=ro&immutable=1&uri=true")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def check(file: Path) -> None:
    """`InvalidRequest` unless this is a whole SQLite database."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            answers = connection.execute("PRAGMA integrity_check(1)").fetchall()
            connection.execute("SELECT count(*) FROM about").fetchone()
    except sqlite3.DatabaseError as error:
        raise InvalidRequest(f"{file.name} is not a copy of the records: {error}") from error
    if answers != [("ok",)]:
        raise InvalidRequest(f"{file.name} is damaged", hint="use another copy")
