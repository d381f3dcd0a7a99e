"""Sealed secrets: keys that services need elsewhere. Set, named and used, but never shown.

What the records keep is sealed (`foundation.sealing`); the text exists in a request that sets it, and in the memory of
the process that uses it. A secret belongs to one project, and whoever may deploy there may use, set and delete it.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import ColumnElement, insert, select, update

from modelyard.control.identity.journal import Journal
from modelyard.control.identity.principal import Principal
from modelyard.control.identity.projects import find_project
from modelyard.control.identity.tables import secrets
from modelyard.control.identity.visibility import missing, require
from modelyard.control.records import Transaction
from modelyard.domain.access import Verb
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict, InvalidRequest
from modelyard.domain.names import require_name
from modelyard.domain.routing import SealedSecret
from modelyard.foundation.sealing import SealingKey

TOPIC: Final = "secrets"
MOST_CHARS: Final = 16_384
Place = tuple[str, str]
Users = Callable[[Transaction, str, str], list[str]]
"""Names what uses a secret, by project and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """A secret as people see it: everything but its text."""

    project: str
    name: str
    created_at: datetime
    updated_at: datetime
    set_by: str
    edition: int


@dataclass(slots=True)
class SecretStore:
    """Seals with the key in `key_file`, which is made when the first secret is set. `users` know what needs one."""

    key_file: Path
    users: list[Users] = field(default_factory=list)

    def set(
        self, tx: Transaction, who: Principal, *, project: str, name: str, value: str, journal: Journal
    ) -> StoredSecret:
        """Set a secret, or give it another text: what uses it takes the new one within seconds.

        Raises:
            NotFound, Forbidden: no such project, or the key may not deploy there.
            InvalidRequest: a name or text that cannot be.
            MissingExtra: cryptography is not installed.
        """
        require(who, Verb.DEPLOY, project=project)
        find_project(tx, project)
        require_name(name, what="secret name")
        if not value or len(value) > MOST_CHARS or not value.isprintable():
            raise InvalidRequest(f"a secret is 1 to {MOST_CHARS} printable characters", hint="leave line breaks out")
        sealed = SealingKey.open(self.key_file, make=True).seal(value, about=f"{project}/{name}")
        present = tx.scalar(select(secrets.c.edition).where(*_named(project, name)))
        written = {"sealed": sealed, "updated_at": tx.now, "set_by": who.name[:255], "edition": (present or 0) + 1}
        if present is None:
            tx.execute(insert(secrets).values(project=project, name=name, created_at=tx.now, **written))
        else:
            tx.execute(update(secrets).where(*_named(project, name)).values(**written))
        self._record(tx, who, project, name, action="secret.set", journal=journal)
        return find_secret(tx, project, name)

    def delete(self, tx: Transaction, who: Principal, *, project: str, name: str, journal: Journal) -> None:
        """Forget a secret.

        Raises:
            NotFound, Forbidden: it is not there, or the key may not deploy there.
            Conflict: something uses it; names what.
        """
        require(who, Verb.DEPLOY, project=project)
        find_secret(tx, project, name)
        users = [user for ask in self.users for user in ask(tx, project, name)]
        if users:
            raise Conflict(
                f"the secret {quote(name)} is used by {', '.join(users[:5])}", hint="change or undeploy that first"
            )
        tx.execute(secrets.delete().where(*_named(project, name)))
        self._record(tx, who, project, name, action="secret.deleted", journal=journal)

    def open(self, tx: Transaction, project: str, name: str) -> str:
        """The text, for the process that has to use it.

        Raises:
            NotFound: there is none of this name.
            StartRefused, ArtifactDamaged: it cannot be opened here.
        """
        sealed = tx.scalar(select(secrets.c.sealed).where(*_named(project, name)))
        if sealed is None:
            raise missing(f"secret {quote(name)} in project {quote(project)}")
        return SealingKey.open(self.key_file).unseal(sealed, about=f"{project}/{name}")

    @staticmethod
    def _record(tx: Transaction, who: Principal, project: str, name: str, *, action: str, journal: Journal) -> None:
        subject = f"secret/{name}"
        journal(tx, actor=who.actor, action=action, subject=subject, project=project, payload={"name": name})
        tx.wake(TOPIC)


def find_secret(tx: Transaction, project: str, name: str) -> StoredSecret:
    """One secret without its text, or `NotFound`."""
    for secret in list_secrets(tx, project):
        if secret.name == name:
            return secret
    raise missing(f"secret {quote(name)} in project {quote(project)}")


def list_secrets(tx: Transaction, project: str) -> list[StoredSecret]:
    """All secrets of a project, without their texts."""
    seen = (column for column in secrets.c if column.name != "sealed")
    rows = tx.execute(select(*seen).where(secrets.c.project == project).order_by(secrets.c.name)).mappings()
    return [StoredSecret(**row) for row in rows]


def published_secrets(tx: Transaction, wanted: Collection[Place]) -> tuple[SealedSecret, ...]:
    """Those of `wanted` that there are, sealed, as the model servers get them."""
    if not wanted:
        return ()
    rows = tx.execute(select(secrets.c.project, secrets.c.name, secrets.c.sealed).order_by(secrets.c.project))
    found = (SealedSecret(project=row.project, name=row.name, sealed=row.sealed) for row in rows)
    return tuple(sorted((one for one in found if (one.project, one.name) in wanted), key=_place))


def require_secrets(tx: Transaction, project: str, names: Iterable[str]) -> None:
    """Refuse what names a secret that is not set.

    Raises:
        NotFound: one is not there.
    """
    known = {secret.name for secret in list_secrets(tx, project)}
    for name in names:
        if name not in known:
            error = missing(f"secret {quote(name)} in project {quote(project)}")
            error.hint = f"modelyard secrets set {name} --from-file FILE"
            raise error


def _place(secret: SealedSecret) -> Place:
    return secret.project, secret.name


def _named(project: str, name: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return secrets.c.project == project, secrets.c.name == name
