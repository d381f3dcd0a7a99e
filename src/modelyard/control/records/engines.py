"""Engines: what has to be true of every connection, on SQLite and on PostgreSQL.

One rule holds on both: units of work that write come one after the other. SQLite has one writer by nature. On
PostgreSQL a unit of work that writes first takes one advisory lock, which its transaction holds to its end, whichever
control plane it belongs to; so what it read cannot have been changed when it writes, events are numbered in the order
of their commits, and there is nothing to deadlock on or to run again. Readers take no lock: they see one snapshot.
"""

from typing import Any, Final

from sqlalchemy import URL, Engine, create_engine, event

from modelyard.domain.errors.platform import MissingExtra

WRITE: Final = "modelyard_write"
WRITER_WAIT_S: Final = 30.0
BUSY_MS: Final = 10_000
LOCK_MS: Final = 30_000
IDLE_S: Final = 10.0
"""A unit of work that does nothing for so long is ended by the server, so that a stopped process holds nobody up."""
WRITERS: Final = 0x6D6F_6479_6172_64
"""The key of the advisory lock of those who write ("modyard")."""
_ALIVE: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


def open_engine(url: URL) -> Engine:
    """The engine for `url`, whose connections are prepared as this module says.

    Raises:
        MissingExtra: the driver of PostgreSQL is not installed.
    """
    return _sqlite(url) if url.get_backend_name() == "sqlite" else _postgresql(url)


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"check_same_thread": False}, pool_size=16, max_overflow=32)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:  # noqa: ANN401  (the driver's own object)
        del record
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={BUSY_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "trusted_schema=OFF",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:  # noqa: ANN401
        connection.exec_driver_sql("BEGIN IMMEDIATE" if _writes(connection) else "BEGIN")

    return engine


def _postgresql(url: URL) -> Engine:
    try:
        import psycopg  # noqa: F401  (asked for here, so that its absence is told before anything is opened)
    except ImportError as error:
        raise MissingExtra("PostgreSQL needs psycopg", hint="pip install 'modelyard[postgres]'") from error
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={
            "application_name": "modelyard",
            **{name: _ALIVE[name] for name in _ALIVE if name not in url.query},
        },
        pool_size=8,
        max_overflow=24,
        pool_timeout=WRITER_WAIT_S,
        pool_pre_ping=True,
        isolation_level="REPEATABLE READ",  # of readers: one snapshot; writers hold the lock and see what is committed
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:  # noqa: ANN401
        del record
        before, connection.autocommit = connection.autocommit, True
        connection.execute(f"SET lock_timeout = {LOCK_MS}")
        connection.execute(f"SET idle_in_transaction_session_timeout = {int(IDLE_S * 1000)}")
        connection.execute("SET timezone = 'UTC'")
        connection.autocommit = before

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:  # noqa: ANN401
        if _writes(connection):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS})")

    return engine


def writing(engine: Engine) -> Engine:
    """The same engine, for units of work that write."""
    options: dict[str, Any] = {WRITE: True}
    if engine.dialect.name == "postgresql":
        options["isolation_level"] = "READ COMMITTED"  # a snapshot from before the lock would be an old one
    return engine.execution_options(**options)


def _writes(connection: Any) -> bool:  # noqa: ANN401
    return bool(connection.get_execution_options().get(WRITE, False))
