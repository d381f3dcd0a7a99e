"""Make, list, revoke and publish keys. A key is shown once; what is kept is its id, its hash and what it may do."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast

from sqlalchemy import RowMapping, Select, insert, or_, select, update

from modelyard.control.identity.journal import Journal
from modelyard.control.identity.principal import Actor, Principal
from modelyard.control.identity.projects import find_project
from modelyard.control.identity.tables import keys
from modelyard.control.identity.visibility import lacks, missing
from modelyard.control.records import Page, Transaction, cut, from_microseconds, read_cursor, to_microseconds
from modelyard.domain.access import NO_LIMITS, KeyLimits, KeyRecord, Scope, Verb, key_id, key_mac, make_key, parse_scope
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict, InvalidRequest
from modelyard.foundation.documents import from_plain, to_plain

TOPIC: Final = "keys"
MAX_NAME: Final = 255
MAX_SCOPES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What a key is to be. `project` None takes the one that all scopes name, else the default."""

    name: str
    scopes: tuple[Scope, ...]
    lifetime: timedelta | None
    project: str | None = None
    limits: KeyLimits = NO_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A key as its administrators see it."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    project: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    limits: KeyLimits

    def state(self, now: datetime) -> str:
        """active, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


def create_key(
    tx: Transaction, principal: Principal, new: NewKey, *, pepper: bytes, journal: Journal
) -> tuple[StoredKey, str]:
    """A new key and its text, which is not kept anywhere. Nobody can give away more than they have.

    Raises:
        Forbidden: the caller is not an administrator of what a scope names.
        InvalidRequest: no name, no scope, or a lifetime that is none.
    """
    _check(new)
    for scope in new.scopes:
        if not principal.may(Verb.ADMIN, project=scope.project, name=scope.name):
            raise lacks(Verb.ADMIN, project=scope.project, name=scope.name)
    project = new.project or _only_project(new.scopes) or principal.project
    find_project(tx, project)
    if not principal.may(Verb.ADMIN, project=project) and not all(scope.project == project for scope in new.scopes):
        raise lacks(Verb.ADMIN, project=project, name=None)
    return issue_key(tx, new, project=project, actor=principal.actor, pepper=pepper, journal=journal)


def issue_key(
    tx: Transaction, new: NewKey, *, project: str, actor: Actor, pepper: bytes, journal: Journal
) -> tuple[StoredKey, str]:
    """Make the key without asking who wants it; the bootstrap does this too."""
    text = make_key()
    number = key_id(text)
    if number is None:  # a key we made has the shape of one
        raise RuntimeError("a new key does not pass its own check")
    tx.execute(
        insert(keys).values(
            id=number,
            mac=key_mac(text, pepper=pepper),
            name=new.name,
            scopes=[str(scope) for scope in new.scopes],
            project=project,
            created_at=tx.now,
            created_by=actor.name,
            expires_at=None if new.lifetime is None else tx.now + new.lifetime,
            limits=None if new.limits == NO_LIMITS else to_plain(new.limits),
        )
    )
    stored = find_key(tx, number)
    journal(
        tx,
        actor=actor,
        action="key.created",
        subject=f"key/{number}",
        project=project,
        payload={
            "name": new.name,
            "scopes": [str(scope) for scope in new.scopes],
            "expires_at": stored.expires_at.isoformat() if stored.expires_at else None,
            **({"limits": to_plain(new.limits)} if new.limits != NO_LIMITS else {}),
        },
    )
    tx.wake(TOPIC)
    return stored, text


def list_keys(tx: Transaction, principal: Principal, *, limit: int, cursor: str | None = None) -> Page[StoredKey]:
    """Keys that the caller administers, newest first."""
    query = select(keys).order_by(keys.c.created_at.desc(), keys.c.id.desc())
    if not principal.may(Verb.ADMIN):
        own = [scope.project for scope in principal.scopes if scope.verb is Verb.ADMIN and scope.name is None]
        query = query.where(keys.c.project.in_([project for project in own if project]))
    if cursor is not None:
        moment, last = read_cursor(cursor, kinds=(int, str))
        at = from_microseconds(cast("int", moment))
        query = query.where(or_(keys.c.created_at < at, (keys.c.created_at == at) & (keys.c.id < last)))
    rows = tx.execute(query.limit(limit + 1)).mappings()
    return cut(
        [_read(row) for row in rows],
        limit=limit,
        position=lambda key: (to_microseconds(key.created_at), key.id),
    )


def find_key(tx: Transaction, number: str) -> StoredKey:
    """The key with this id, or `NotFound`."""
    row = tx.execute(select(keys).where(keys.c.id == number)).mappings().first()
    if row is None:
        raise missing(f"key {quote(number)}")
    return _read(row)


def revoke_key(tx: Transaction, principal: Principal, number: str, *, journal: Journal) -> StoredKey:
    """End a key at once here, and at the model servers with the table they get next (within 5 s). Idempotent.

    The last administrator's key is not revoked: nobody could make another.
    """
    key = find_key(tx, number)
    if not principal.may(Verb.ADMIN, project=key.project) and not principal.may(Verb.ADMIN):
        raise missing(f"key {quote(number)}")
    if key.revoked_at is not None:
        return key
    if Scope(Verb.ADMIN) in key.scopes and principal.key_id is not None and not _other_admins(tx, number):
        raise Conflict(
            "this is the last key that administers the platform", hint="make another with --scope admin, then revoke it"
        )
    tx.execute(update(keys).where(keys.c.id == number).values(revoked_at=tx.now))
    journal(
        tx,
        actor=principal.actor,
        action="key.revoked",
        subject=f"key/{number}",
        project=key.project,
        payload={"name": key.name},
    )
    tx.wake(TOPIC)
    return find_key(tx, number)


def published_keys(tx: Transaction) -> tuple[KeyRecord, ...]:
    """Every key that works now, as the model servers check it. Changes wake the topic "keys"."""
    rows = tx.execute(_working(tx).order_by(keys.c.id)).mappings()
    return tuple(key_record(row) for row in rows)


def has_administrator(tx: Transaction) -> bool:
    """Whether a key works that administers the whole platform."""
    return _other_admins(tx, "")


def key_record(row: RowMapping) -> KeyRecord:
    """A row as the shared checking code wants it."""
    expires = row["expires_at"]
    return KeyRecord(
        id=row["id"],
        mac=row["mac"],
        name=row["name"],
        scopes=_scopes(row["scopes"]),
        project=row["project"],
        expires_at=None if expires is None else expires.timestamp(),
        limits=_limits(row["limits"]),
    )


def _check(new: NewKey) -> None:
    if not new.name.strip() or len(new.name) > MAX_NAME or not new.name.isprintable():
        raise InvalidRequest(f"a key needs a name of 1 to {MAX_NAME} printable characters", hint="say what will use it")
    if not new.scopes or len(new.scopes) > MAX_SCOPES:
        raise InvalidRequest(f"a key needs 1 to {MAX_SCOPES} scopes", hint="infer, read, deploy:PROJECT, …")
    if new.lifetime is not None and new.lifetime <= timedelta():
        raise InvalidRequest("a key cannot expire before it is made")


def _only_project(scopes: Sequence[Scope]) -> str | None:
    named = {scope.project for scope in scopes}
    return named.pop() if len(named) == 1 else None


def _working(tx: Transaction) -> Select[Any]:
    return select(keys).where(keys.c.revoked_at.is_(None), or_(keys.c.expires_at.is_(None), keys.c.expires_at > tx.now))


def _other_admins(tx: Transaction, number: str) -> bool:
    rows = tx.execute(_working(tx).where(keys.c.id != number)).mappings()
    return any(Scope(Verb.ADMIN) in _scopes(row["scopes"]) for row in rows)


def _scopes(texts: Sequence[str]) -> tuple[Scope, ...]:
    return tuple(parse_scope(text) for text in texts)


def _read(row: RowMapping) -> StoredKey:
    plain = {name: row[name] for name in row if name not in ("mac", "scopes", "limits")}
    return StoredKey(**plain, scopes=_scopes(row["scopes"]), limits=_limits(row["limits"]))


def _limits(document: object) -> KeyLimits:
    return NO_LIMITS if document is None else from_plain(document, KeyLimits)
