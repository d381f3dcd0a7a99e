"""Events that leave the platform's own transactions: written with the change, delivered after it.

Readers keep the number of the last event they saw and ask for those after it; the stream at `/api/v1/events` and
everything that reacts to changes live from this table. Delivery is at least once, in order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import JSON, Column, Integer, String, Table, delete, func, insert, select

from modelyard.control.records.database import Transaction
from modelyard.control.records.metadata import METADATA, Moment

TOPIC: Final = "events"

outbox = Table(
    "outbox",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", Moment, nullable=False, index=True),
    Column("kind", String(64), nullable=False),
    Column("project", String(63)),
    Column("subject", String(255), nullable=False),
    Column("payload", JSON, nullable=False),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. `project` None concerns the whole platform; `subject` is `model/digits`, `service/x`."""

    number: int
    at: datetime
    kind: str
    project: str | None
    subject: str
    payload: Mapping[str, Any] = field(default_factory=dict)


def emit(
    tx: Transaction, kind: str, *, subject: str, project: str | None, payload: Mapping[str, Any] | None = None
) -> None:
    """Add an event to this unit of work and wake the readers when it is committed. No secret belongs in it."""
    tx.execute(
        insert(outbox).values(at=tx.now, kind=kind, project=project, subject=subject, payload=dict(payload or {}))
    )
    tx.wake(TOPIC)


def events_after(tx: Transaction, number: int, *, limit: int = 200) -> list[Event]:
    """Events with a higher number, oldest first."""
    rows = tx.execute(select(outbox).where(outbox.c.number > number).order_by(outbox.c.number).limit(limit))
    return [Event(**row) for row in rows.mappings()]


def last_event(tx: Transaction) -> int:
    """The number of the newest event, 0 when there is none."""
    return tx.scalar(select(func.max(outbox.c.number))) or 0


def forget_events(tx: Transaction, *, older_than: timedelta) -> None:
    """Drop events that nobody will ask for any more; history keeps what matters."""
    tx.execute(delete(outbox).where(outbox.c.at < tx.now - older_than))
