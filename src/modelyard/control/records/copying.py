"""Copy records from PostgreSQL into a SQLite file, and from such a file into an empty PostgreSQL database.

Row by row and unchanged: documents stay the text they are, and the counters behind numbers that are never used twice go
along. Both sides have this version's schema. A copy is one snapshot; what is put back is there wholly or not at all.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import JSON, Boolean, Table, inspect

from modelyard.control.records.database import Database
from modelyard.control.records.engines import writing
from modelyard.control.records.failures import translated
from modelyard.control.records.metadata import METADATA
from modelyard.control.records.schema import migrate
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.foundation.durable import sync

_BATCH: Final = 500
_NOT_COPIED: Final = frozenset({"about", "leadership"})
"""What belongs to the place and not to the platform: what wrote it last, and who leads there."""


def copy_out(database: Database, target: Path) -> None:
    """Write the records of a PostgreSQL database to the new SQLite file `target` (0600), whole or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    with suppress(FileNotFoundError):
        partial.unlink()
    partial.touch(mode=0o600)
    try:
        made = Database.at(partial, clock=database.clock)
        migrate(made, backups=target.parent)
        made.close()
        with closing(sqlite3.connect(partial, isolation_level=None)) as file:
            file.execute("BEGIN")
            with translated(), database.engine.connect() as connection:  # one snapshot
                cursor: Any = connection.connection.driver_connection
                for table in _tables(database):
                    _empty(file, table)
                    _write_file(file, table, _rows_of_server(cursor, table))
                for table, column in _counted(database):
                    said = cursor.execute(_COUNTER, (table.name, column)).fetchone()
                    _set_file_counter(file, table, int(said[0] or 0))
            file.execute("COMMIT")
            file.execute("PRAGMA journal_mode=DELETE")
        sync(partial)
        partial.rename(target)
        sync(target.parent)
    finally:
        for name in (partial.name, f"{partial.name}-wal", f"{partial.name}-shm"):
            with suppress(FileNotFoundError):
                partial.with_name(name).unlink()


def copy_in(source: Path, database: Database) -> None:
    """Put the records of the SQLite file `source` into a PostgreSQL database that was just made.

    Raises:
        InvalidRequest: there are records in it.
    """
    with (
        translated(),
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as file,
        writing(database.engine).begin() as connection,
    ):
        server: Any = connection.connection.driver_connection
        if server.execute("SELECT 1 FROM history LIMIT 1").fetchone():
            raise InvalidRequest(
                "there are records in that database, and a restore never overwrites", hint="make a new, empty one"
            )
        for table in reversed(_tables(database)):
            server.execute(f'DELETE FROM "{table.name}"')  # noqa: S608  (what the migrations put there)
        for table in _tables(database):
            _write_server(server, table, _rows_of_file(file, table))
        counters = dict(file.execute("SELECT name, seq FROM sqlite_sequence"))
        for table, column in _counted(database):
            if counters.get(table.name):
                server.execute(_SET_COUNTER, (table.name, column, counters[table.name]))


_COUNTER: Final = "SELECT pg_sequence_last_value(pg_get_serial_sequence(%s, %s)::regclass)"
_SET_COUNTER: Final = "SELECT setval(pg_get_serial_sequence(%s, %s), %s)"


def _tables(database: Database) -> list[Table]:
    """Every table, those first that others refer to.

    The copy would lack a table of a capability that was not imported: that is a mistake of the program.
    """
    declared = [table for table in METADATA.sorted_tables if table.name not in _NOT_COPIED]
    there = set(inspect(database.engine).get_table_names()) - _NOT_COPIED - {"alembic_version"}
    if there != {table.name for table in declared}:
        raise RuntimeError(f"tables that cannot be copied: {there ^ {table.name for table in declared}}")
    return declared


def _counted(database: Database) -> Iterator[tuple[Table, str]]:
    """Tables whose numbers are never used twice, each with the column of the number."""
    for table in _tables(database):
        if table.dialect_options["sqlite"]["autoincrement"]:
            yield table, next(iter(table.primary_key.columns)).name


def _rows_of_server(server: Any, table: Table) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401  (the driver's own object)
    names = ", ".join(
        f'"{column.name}"::text' if isinstance(column.type, JSON) else f'"{column.name}"' for column in table.columns
    )
    with server.cursor(name="copy") as cursor:
        cursor.execute(f'SELECT {names} FROM "{table.name}"')  # noqa: S608  (names of ours)
        yield from cursor


def _rows_of_file(file: sqlite3.Connection, table: Table) -> Iterator[tuple[Any, ...]]:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    truths = [isinstance(column.type, Boolean) for column in table.columns]
    for row in file.execute(f'SELECT {names} FROM "{table.name}"'):  # noqa: S608  (names of ours)
        yield tuple(
            bool(value) if is_truth and value is not None else value
            for value, is_truth in zip(row, truths, strict=True)
        )


def _empty(file: sqlite3.Connection, table: Table) -> None:
    file.execute(f'DELETE FROM "{table.name}"')  # noqa: S608  (names of ours)


def _write_file(file: sqlite3.Connection, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
    file.executemany(_insertion(table, "?"), rows)


def _write_server(server: Any, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:  # noqa: ANN401
    with server.cursor() as cursor:
        cursor.executemany(_insertion(table, "%s"), rows)


def _insertion(table: Table, mark: str) -> str:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    return f'INSERT INTO "{table.name}" ({names}) VALUES ({", ".join([mark] * len(table.columns))})'  # noqa: S608


def _set_file_counter(file: sqlite3.Connection, table: Table, number: int) -> None:
    file.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table.name,))
    if number:
        file.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table.name, number))
