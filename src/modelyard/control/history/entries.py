"""Write and read entries. Writing is one call inside the unit of work that makes the change."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import insert

from modelyard.control.history.tables import history
from modelyard.control.identity import Actor
from modelyard.control.records import Transaction, emit, make_id

TOPIC: Final = "history"
SERVICE_REVISION_LIVE: Final = "service.revision_live"
SERVICE_SPLIT: Final = "service.split"
SERVICE_GONE: Final = "service.gone"
PAYLOAD_ERASED: Final = "history.payload_erased"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that was done. `payload` is None once it was erased; its digest, and so the chain, stays."""

    id: str
    at: datetime
    actor: Actor
    action: str
    project: str | None
    subject: str
    payload: Mapping[str, Any] | None
    payload_digest: str
    sequence: int | None = None


def append(
    tx: Transaction,
    *,
    actor: Actor,
    action: str,
    subject: str,
    project: str | None,
    payload: Mapping[str, Any] | None = None,
) -> str:
    """Add an entry to this unit of work, with an event of the same kind and content; returns its id.

    `action` reads `<thing>.<past participle>` (`model.version_added`), `subject` `<thing>/<name>` (`service/digits`),
    `project` is None for what concerns the platform. `payload` is plain JSON without secrets.
    """
    content = dict(payload or {})
    entry = make_id("his", now=tx.now)
    tx.execute(
        insert(history).values(
            id=entry,
            at=tx.now,
            actor_kind=actor.kind,
            actor_id=actor.id,
            actor_name=actor.name,
            action=action,
            project=project,
            subject=subject,
            payload=content,
            payload_digest=digest_of(content),
        )
    )
    emit(tx, action, subject=subject, project=project, payload=content)
    tx.wake(TOPIC)
    return entry


def digest_of(payload: Mapping[str, Any]) -> str:
    """Hex SHA-256 of the payload as JSON with sorted keys and no spaces."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
