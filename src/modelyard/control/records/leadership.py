"""One leader among the control planes that share the records, and the token that fences what it writes.

The lease is a row. Who holds it prolongs it every second; who does not looks every second whether it ran out, by the
clock of the database, and takes it then with the next higher token. A control plane that was stopped and goes on may
still take itself for the leader: so every unit of work of a leader's loop reads the row in its own transaction and is
refused when its token is not the newest (`Database.leading`). It locks the row's key as it reads, which the prolonging
does not touch and the taking does: nobody becomes the leader in the middle of a unit of work of the one before.
"""

import logging
import threading
from typing import Final

from sqlalchemy import BigInteger, Column, ColumnElement, String, Table, UniqueConstraint, cast, func, select, update

from modelyard.control.records.database import Database, LeadershipLost, Transaction
from modelyard.control.records.failures import translated
from modelyard.control.records.metadata import METADATA, Moment
from modelyard.domain.errors.base import ModelyardError
from modelyard.foundation.clock import SystemClock

ROLE: Final = "control"
LEASE_S: Final = 5.0
EVERY_S: Final = 1.0
_LOG: Final = logging.getLogger(__name__)

leadership = Table(
    "leadership",
    METADATA,
    Column("role", String(63), primary_key=True),
    Column("token", BigInteger, nullable=False),
    Column("holder", String(255), nullable=False),
    Column("until", Moment, nullable=False),
    UniqueConstraint("token"),  # part of a key, so that taking the lease conflicts with reading it and prolonging not
)
_MINE: Final = leadership.c.role == ROLE


class Leadership:
    """Whether the control plane `holder` leads. `start` once; `stop` gives the lease up, so that the next one leads."""

    def __init__(self, database: Database, *, holder: str, lease_s: float = LEASE_S, every_s: float = EVERY_S) -> None:
        self._clock = SystemClock()
        self._engine = database.engine.execution_options(isolation_level="READ COMMITTED")
        self._holder = holder[:255]
        self._lease_s = lease_s
        self._every_s = every_s
        self._held: tuple[int, float] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leadership", daemon=True)

    @property
    def token(self) -> int | None:
        """The fencing token while this one leads, as far as it knows; None otherwise."""
        held = self._held
        return None if held is None or self._clock.monotonic() >= held[1] else held[0]

    def require(self, tx: Transaction, token: int) -> None:
        """Raise `LeadershipLost` unless `token` is the newest; nobody takes the lease before `tx` has ended."""
        newest = tx.scalar(select(leadership.c.token).where(_MINE).with_for_update(read=True, key_share=True))
        if newest != token:
            raise LeadershipLost("another control plane leads by now", hint="nothing is to be done")

    def start(self) -> None:
        """Take the lease if it is free, and go on trying or holding it."""
        self._turn()
        self._thread.start()

    def stop(self) -> None:
        """Give the lease up. Idempotent."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        held, self._held = self._held, None
        if held is not None:
            try:
                self._set(leadership.c.token == held[0], until=_now() - 1)
            except ModelyardError:
                _LOG.warning("the lease of the leader could not be given up; it runs out by itself")

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._turn()

    def _turn(self) -> None:
        began = self._clock.monotonic()
        try:
            token = self._hold()
        except ModelyardError as error:
            _LOG.warning("whether this control plane leads is not known: %s", error)
            return
        except Exception:  # noqa: BLE001  (the loop: it goes on holding or trying whatever one turn met)
            _LOG.exception("the lease of the leader could not be looked at")
            return
        before = None if self._held is None else self._held[0]
        self._held = None if token is None else (token, began + self._lease_s)
        if before is not None and token != before:
            _LOG.warning("this control plane no longer leads", extra={"holder": self._holder, "token": before})
        if token is not None and token != before:
            _LOG.info("this control plane leads", extra={"holder": self._holder, "token": token})

    def _hold(self) -> int | None:
        """The token after this turn: prolonged, taken, or None."""
        until = _now() + int(self._lease_s * 1e6)
        if self._held is not None:
            token = self._set(leadership.c.token == self._held[0], until=until)
            if token is not None:
                return token
        return self._set(_until() < _now(), until=until, holder=self._holder, token=leadership.c.token + 1)

    def _set(self, condition: ColumnElement[bool], **values: object) -> int | None:
        """The token of the row after it was changed; None when the condition does not hold."""
        if "until" in values:
            values["until"] = cast(values["until"], Moment)
        with translated(), self._engine.begin() as connection:
            changed = update(leadership).where(_MINE, condition).values(**values).returning(leadership.c.token)
            token: int | None = connection.scalar(changed)
            return token


def _until() -> ColumnElement[int]:
    return cast(leadership.c.until, BigInteger)


def _now() -> ColumnElement[int]:
    """Microseconds since 1970 by the database's clock, which is one for all control planes."""
    return cast(func.extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)
