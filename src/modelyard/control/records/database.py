"""The records database: one engine and units of work.

A unit of work that writes never fails half-way for want of a lock, and never meets the change of another one between
its reading and its writing: writers come one after the other (`engines.py` says how on each database). Within the
process they queue on a lock of ours, because SQLite's own waiting is by polling and unfair.

Where several control planes share the records, one leads (`leadership.py`). What its loops write is fenced: each of
their units of work proves in its own transaction that nobody else was made the leader since.
"""

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import URL, Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from modelyard.control.records.engines import WRITER_WAIT_S, open_engine, writing
from modelyard.control.records.failures import is_lost, translated
from modelyard.control.records.notices import EVERYTHING, Notices, announce
from modelyard.domain.errors.platform import Unavailable
from modelyard.foundation.clock import Clock, SystemClock

_TRIES: Final = 3
"""How often a unit of work tries to begin: a server that was started again has cut every connection once."""
_PAUSE_S: Final = 0.3


class Transaction(Session):
    """One unit of work. `now` is its moment: everything it writes carries the same time.

    It is a SQLAlchemy `Session`: `tx.execute(select(...))`, `tx.scalar(...)`, `tx.execute(insert(...))`.
    """

    now: datetime
    touched: set[str]

    def wake(self, topic: str) -> None:
        """After the commit, call those who subscribed to `topic` (and to "*")."""
        self.touched.add(topic)


class Lead(Protocol):
    """Who says whether this control plane leads (`leadership.Leadership`)."""

    @property
    def token(self) -> int | None:
        """The fencing token while this one leads, None while another does."""

    def require(self, tx: Transaction, token: int) -> None:
        """Raise `LeadershipLost` unless `token` is the newest, and keep it so until `tx` ends."""


class LeadershipLost(Unavailable):
    """Another control plane leads by now; nothing of the unit of work was kept."""


class Database:
    """All records of one platform. Threads may use it at the same time; a `Transaction` belongs to one thread.

    `lead` is None where no other control plane can be: this one leads then.
    """

    def __init__(self, url: str | URL, *, clock: Clock | None = None) -> None:
        self.url = make_url(url)
        self.clock: Clock = clock or SystemClock()
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.lead: Lead | None = None
        self._engine = open_engine(self.url)
        self._writing_engine = writing(self._engine)
        self._writer = threading.Lock()
        self._inside = threading.local()
        self._subscribers: dict[int, tuple[str, Callable[[], None]]] = {}
        self._next_subscriber = 0
        self._name = secrets.token_hex(8)
        self._notices: Notices | None = None
        self._is_closed = False
        event.listen(self._engine, "checkin", self._come_back)

    @classmethod
    def at(cls, path: Path, *, clock: Clock | None = None) -> "Database":
        """The SQLite database in this file."""
        return cls(f"sqlite:///{path}", clock=clock)

    @property
    def path(self) -> Path | None:
        """The SQLite file, None on other engines and in memory."""
        name = self.url.database
        return Path(name) if self.is_sqlite and name and name != ":memory:" else None

    @property
    def engine(self) -> Engine:
        """For migrations and backups; everything else goes through units of work."""
        return self._engine

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A unit of work that may write: committed at the end, rolled back when the block raises.

        Raises:
            Unavailable: the write lock was not free in time, or the database does not answer. Where the answer to the
                commit was lost, it may have happened: ask again with the same idempotency key.
            LeadershipLost: in a block of `leading`, another control plane leads by now.
            StorageFull: the disk is full; nothing was written.
            InvalidRequest: a value that the database cannot keep.
        """
        if getattr(self._inside, "writing", False):
            raise RuntimeError("a unit of work is already open in this thread; hand it on instead")
        if not self._writer.acquire(timeout=WRITER_WAIT_S):
            raise Unavailable("the records are busy", hint="try again in a moment")
        self._inside.writing = True
        try:
            with translated(), self._opened() as tx:
                fence: int | None = getattr(self._inside, "fence", None)
                if fence is not None and self.lead is not None:
                    self.lead.require(tx, fence)
                yield tx
                if tx.touched and not self.is_sqlite:
                    announce(tx, self._name, tx.touched)
                tx.commit()
        finally:
            self._inside.writing = False
            self._writer.release()
        self._notify(tx.touched)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent view of the records; what it changes is rolled back."""
        with translated(), Transaction(self._engine, expire_on_commit=False) as tx:
            self._stamp(tx)
            try:
                yield tx
            finally:
                tx.rollback()

    @contextmanager
    def leading(self) -> Iterator[bool]:
        """For the loops that only one control plane may run: whether this one leads; if not, leave things alone.

        Units of work that this thread begins inside are fenced. When leadership is lost meanwhile, the block ends there
        and nothing is raised.
        """
        fence = None if self.lead is None else self.lead.token
        self._inside.fence = fence
        try:
            yield self.lead is None or fence is not None
        except LeadershipLost:
            return
        finally:
            self._inside.fence = None

    @property
    def leads(self) -> bool:
        """Whether this control plane leads, as far as it knows."""
        return self.lead is None or self.lead.token is not None

    def listen(self) -> None:
        """Hear what other processes commit from now on, so that their changes wake subscribers here. Once."""
        if not self.is_sqlite:
            self._notices = Notices(self._engine, heard=self._notify, name=self._name)
            self._notices.start()

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
        """Close every connection; those of units of work that are not over, when they are. Idempotent."""
        self._is_closed = True
        if self._notices is not None:
            self._notices.stop()
        self._engine.dispose()

    def _come_back(self, connection: object, record: ConnectionPoolEntry) -> None:
        """A connection is given back; nobody takes one any more after the end."""
        if self._is_closed and connection is not None:
            record.invalidate()

    def _opened(self) -> Transaction:
        """A transaction that writes, begun, with the lock of the writers."""
        for tries_left in reversed(range(_TRIES)):
            tx = Transaction(self._writing_engine, expire_on_commit=False)
            self._stamp(tx)
            try:
                tx.connection()
            except DBAPIError as error:
                tx.close()
                if not tries_left or not is_lost(error):
                    raise
                threading.Event().wait(_PAUSE_S)
            except BaseException:
                tx.close()
                raise
            else:
                return tx
        raise AssertionError("the last try returns or raises")

    def _stamp(self, tx: Transaction) -> None:
        tx.now = self.clock.now()
        tx.touched = set()

    def _notify(self, touched: set[str]) -> None:
        if touched:
            for topic, call in list(self._subscribers.values()):
                if topic == "*" or topic in touched or EVERYTHING in touched:
                    call()
