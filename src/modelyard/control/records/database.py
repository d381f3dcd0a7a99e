"""The records database: one engine, units of work, and what has to be true of every connection.

SQLite runs in WAL mode with `synchronous=FULL`, so what was acknowledged survives a power cut; foreign keys are
enforced; a unit of work that writes takes the write lock when it begins, so it never fails half-way for want of it.
Within the process writers queue on a lock of ours, because SQLite's own waiting is by polling and unfair.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from modelyard.domain.errors.platform import StorageFull, Unavailable
from modelyard.foundation.clock import Clock, SystemClock

_WRITE: Final = "modelyard_write"
WRITER_WAIT_S: Final = 30.0
BUSY_MS: Final = 10_000


class Transaction(Session):
    """One unit of work. `now` is its moment: everything it writes carries the same time.

    It is a SQLAlchemy `Session`: `tx.execute(select(...))`, `tx.scalar(...)`, `tx.execute(insert(...))`.
    """

    now: datetime
    touched: set[str]

    def wake(self, topic: str) -> None:
        """After the commit, call those who subscribed to `topic` (and to "*")."""
        self.touched.add(topic)


class Database:
    """All records of one platform. Threads may use it at the same time; a `Transaction` belongs to one thread."""

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self.url = url
        self.clock: Clock = clock or SystemClock()
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(url) if self.is_sqlite else create_engine(url, pool_pre_ping=True)
        self._writing_engine = self._engine.execution_options(**{_WRITE: True})
        self._writer = threading.Lock()
        self._inside = threading.local()
        self._subscribers: dict[int, tuple[str, Callable[[], None]]] = {}
        self._next_subscriber = 0

    @classmethod
    def at(cls, path: Path, *, clock: Clock | None = None) -> "Database":
        """The SQLite database in this file."""
        return cls(f"sqlite:///{path}", clock=clock)

    @property
    def path(self) -> Path | None:
        """The SQLite file, None on other engines and in memory."""
        name = make_url(self.url).database
        return Path(name) if self.is_sqlite and name and name != ":memory:" else None

    @property
    def engine(self) -> Engine:
        """For migrations and backups; everything else goes through units of work."""
        return self._engine

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A unit of work that may write: committed at the end, rolled back when the block raises.

        Raises:
            Unavailable: the write lock was not free in time.
            StorageFull: the disk is full; nothing was written.
        """
        if getattr(self._inside, "writing", False):
            raise RuntimeError("a unit of work is already open in this thread; hand it on instead")
        if self.is_sqlite and not self._writer.acquire(timeout=WRITER_WAIT_S):
            raise Unavailable("the records are busy", hint="try again in a moment")
        self._inside.writing = True
        try:
            with _translated(), Transaction(self._writing_engine, expire_on_commit=False) as tx:
                self._stamp(tx)
                tx.connection()
                yield tx
                tx.commit()
        finally:
            self._inside.writing = False
            if self.is_sqlite:
                self._writer.release()
        self._notify(tx.touched)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent view of the records; what it changes is rolled back."""
        with _translated(), Transaction(self._engine, expire_on_commit=False) as tx:
            self._stamp(tx)
            try:
                yield tx
            finally:
                tx.rollback()

    def subscribe(self, topic: str, call: Callable[[], None]) -> Callable[[], None]:
        """Call `call` (quick, from the committing thread) after each commit that woke `topic`; "*" is all of them.

        Returns what ends it. A wake-up may be lost with the process: subscribers also sweep.
        """
        self._next_subscriber += 1
        number = self._next_subscriber
        self._subscribers[number] = (topic, call)

        def leave() -> None:
            self._subscribers.pop(number, None)

        return leave

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _stamp(self, tx: Transaction) -> None:
        tx.now = self.clock.now()
        tx.touched = set()

    def _notify(self, touched: set[str]) -> None:
        if touched:
            for topic, call in list(self._subscribers.values()):
                if topic == "*" or topic in touched:
                    call()


@contextmanager
def _translated() -> Iterator[None]:
    """Say what the operator can do about a full disk or a database that another process holds."""
    try:
        yield
    except OperationalError as error:
        text = str(error.orig)
        if "disk is full" in text or "disk I/O" in text:
            raise StorageFull("the records cannot be written", hint="free space in the data directory") from error
        if "locked" in text or "busy" in text:
            raise Unavailable("the records are held by another process", hint="try again in a moment") from error
        raise


def _sqlite_engine(url: str) -> Engine:
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
        writes = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
