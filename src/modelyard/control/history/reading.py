"""Ask history: a page of entries, and what answered for a service at a moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import RowMapping, Select, or_, select, update

from modelyard.control.history.entries import (
    PAYLOAD_ERASED,
    SERVICE_GONE,
    SERVICE_REVISION_LIVE,
    SERVICE_SPLIT,
    Entry,
    append,
)
from modelyard.control.history.tables import history
from modelyard.control.identity import Actor, Principal, missing, reach_of, require_everywhere, visible
from modelyard.control.records import DEFAULT_LIMIT, Page, Transaction, cut, read_cursor
from modelyard.domain.access import Verb
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict

_ANSWERING: Final = (SERVICE_REVISION_LIVE, SERVICE_SPLIT, SERVICE_GONE)
_KEPT: Final = frozenset({*_ANSWERING, PAYLOAD_ERASED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries; None asks for all. `actor` is a name or an id; `action` may end in `*`."""

    project: str | None = None
    subject: str | None = None
    action: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = DEFAULT_LIMIT
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAt:
    """What answered for a service at a moment: one payload a backend, since when, and who brought it about."""

    service: str
    project: str
    at: datetime
    backends: tuple[Mapping[str, Any], ...]
    since: datetime | None
    actor: Actor | None


def list_entries(tx: Transaction, principal: Principal, wanted: Wanted) -> Page[Entry]:
    """Entries that the caller may read, newest first."""
    reach = reach_of(principal, Verb.READ)
    query = _filtered(select(history).where(visible(reach, project=history.c.project)), wanted)
    if wanted.cursor is not None:
        (last,) = read_cursor(wanted.cursor, kinds=(int,))
        query = query.where(history.c.number < cast("int", last))
    rows = tx.execute(query.order_by(history.c.number.desc()).limit(wanted.limit + 1)).mappings().all()
    numbers = {row["id"]: row["number"] for row in rows}
    return cut([_read(row) for row in rows], limit=wanted.limit, position=lambda entry: (numbers[entry.id],))


def live_at(tx: Transaction, *, project: str, service: str, at: datetime) -> LiveAt:
    """What answered for `service` at `at`; no backends when nothing did, or there was no such service."""
    query = (
        select(history)
        .where(
            history.c.project == project,
            history.c.subject == f"service/{service}",
            history.c.action.in_(_ANSWERING),
            history.c.at <= at,
        )
        .order_by(history.c.at.desc(), history.c.number.desc())
    )
    last = tx.execute(query.limit(1)).mappings().first()
    if last is None:
        return LiveAt(service=service, project=project, at=at, backends=(), since=None, actor=None)
    backends: tuple[Mapping[str, Any], ...] = ()
    if last["action"] == SERVICE_SPLIT:
        payload = last["payload"] or {}
        common = {name: payload.get(name) for name in ("service", "project", "table", "servers", "at")}
        backends = tuple({**common, **each} for each in payload.get("split", ()))
    elif last["action"] == SERVICE_REVISION_LIVE:
        backends = (last["payload"] or {},)
    return LiveAt(
        service=service,
        project=project,
        at=at,
        backends=backends,
        since=last["at"],
        actor=_actor(last),
    )


def erase_payload(tx: Transaction, principal: Principal, entry: str, *, reason: str) -> None:
    """Take the content of an entry away, for good; that it was there, and its digest, stay. Needs `admin`.

    Raises:
        Conflict: the entry says what was live, from which state is rebuilt, or its content is gone already.
    """
    require_everywhere(principal, Verb.ADMIN)
    row = tx.execute(select(history).where(history.c.id == entry)).mappings().first()
    if row is None:
        raise missing(f"history entry {quote(entry)}")
    if row["action"] in _KEPT or row["payload"] is None:
        raise Conflict("the content of this entry cannot be erased", hint="it is what routing is rebuilt from")
    tx.execute(update(history).where(history.c.id == entry).values(payload=None))
    append(
        tx,
        actor=principal.actor,
        action=PAYLOAD_ERASED,
        subject=f"history/{entry}",
        project=row["project"],
        payload={"entry": entry, "reason": reason},
    )


def _filtered(query: Select[Any], wanted: Wanted) -> Select[Any]:
    if wanted.project is not None:
        query = query.where(history.c.project == wanted.project)
    if wanted.subject is not None:
        query = query.where(history.c.subject == wanted.subject)
    if wanted.action is not None:
        starts = wanted.action.removesuffix("*")
        same = history.c.action == wanted.action
        query = query.where(same if starts == wanted.action else history.c.action.startswith(starts, autoescape=True))
    if wanted.actor is not None:
        query = query.where(or_(history.c.actor_id == wanted.actor, history.c.actor_name == wanted.actor))
    if wanted.since is not None:
        query = query.where(history.c.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(history.c.at <= wanted.until)
    return query


def _actor(row: RowMapping) -> Actor:
    return Actor(kind=row["actor_kind"], id=row["actor_id"], name=row["actor_name"])


def _read(row: RowMapping) -> Entry:
    names = ("id", "at", "action", "project", "subject", "payload", "payload_digest", "sequence")
    return Entry(**{name: row[name] for name in names}, actor=_actor(row))
