"""`Idempotency-Key`: a creation that is sent twice happens once, and both senders get the same answer.

The answer is kept in the unit of work that does the creation, so there is no moment in which one exists without the
other. A key that comes back with another request is a mistake of the sender and is told so.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import JSON, Column, Integer, String, Table, delete, insert, select

from modelyard.control.records.database import Transaction
from modelyard.control.records.metadata import METADATA, Moment
from modelyard.domain.errors.platform import Conflict, InvalidRequest

KEPT_FOR: Final = timedelta(hours=24)
_MAX_KEY: Final = 128

idempotency = Table(
    "idempotency",
    METADATA,
    Column("owner", String(128), primary_key=True),
    Column("key", String(_MAX_KEY), primary_key=True),
    Column("request", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("document", JSON, nullable=False),
    Column("at", Moment, nullable=False, index=True),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered the first time."""

    status: int
    document: Mapping[str, Any]


def recall(tx: Transaction, *, owner: str, key: str | None, request: bytes) -> Answer | None:
    """The answer that this key got before; None when it is new or not given.

    `owner` is the caller (keys of two callers never meet); `request` is what was asked: method, path and body.

    Raises:
        Conflict: the key was used for another request.
    """
    if key is None:
        return None
    if not key or len(key) > _MAX_KEY or not key.isprintable():
        raise InvalidRequest("an Idempotency-Key is 1 to 128 printable characters", hint="a UUID is a good choice")
    found = tx.execute(select(idempotency).where(idempotency.c.owner == owner, idempotency.c.key == key)).first()
    if found is None or found.at < tx.now - KEPT_FOR:
        return None
    if found.request != _digest(request):
        raise Conflict("this Idempotency-Key was used for another request", hint="use a new key for a new request")
    return Answer(found.status, found.document)


def keep(tx: Transaction, *, owner: str, key: str | None, request: bytes, answer: Answer) -> None:
    """Remember the answer for a day. It must hold no secret: what is shown once is not kept."""
    if key is None:
        return
    tx.execute(delete(idempotency).where(idempotency.c.at < tx.now - KEPT_FOR))
    tx.execute(
        insert(idempotency).values(
            owner=owner,
            key=key,
            request=_digest(request),
            status=answer.status,
            document=dict(answer.document),
            at=tx.now,
        )
    )


def _digest(request: bytes) -> str:
    return hashlib.sha256(request).hexdigest()
