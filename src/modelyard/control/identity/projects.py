"""Projects: the walls between teams. Names of models and services are unique within one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from modelyard.control.identity.journal import Journal
from modelyard.control.identity.principal import Principal
from modelyard.control.identity.tables import projects
from modelyard.control.identity.visibility import missing, reach_of, require, require_everywhere
from modelyard.control.records import Transaction
from modelyard.domain.access import ProjectQuota, Verb, quotas_of
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict
from modelyard.domain.names import require_name

TOPIC: Final = "keys"
QUOTAS: Final = frozenset({"requests_per_day", "requests_per_month"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project. With `two_person_review`, whoever uploaded a version may not approve it."""

    name: str
    description: str
    two_person_review: bool
    created_at: datetime
    edition: int
    requests_per_day: int | None = None
    requests_per_month: int | None = None


def find_project(tx: Transaction, name: str) -> Project:
    """The project of this name, or `NotFound`."""
    row = tx.execute(select(projects).where(projects.c.name == name)).mappings().first()
    if row is None:
        raise missing(f"project {quote(name)}")
    return Project(**row)


def list_projects(tx: Transaction, principal: Principal) -> list[Project]:
    """Those that exist for the caller, by name."""
    reach = reach_of(principal)
    rows = tx.execute(select(projects).order_by(projects.c.name)).mappings()
    return [Project(**row) for row in rows if reach.covers(row["name"], None)]


def published_quotas(tx: Transaction) -> tuple[ProjectQuota, ...]:
    """Of every project that has one, as the model servers keep them. Changes wake the topic "keys"."""
    wished = [
        ProjectQuota(
            project=row["name"], quotas=quotas_of(per_day=row["requests_per_day"], per_month=row["requests_per_month"])
        )
        for row in tx.execute(select(projects).order_by(projects.c.name)).mappings()
    ]
    return tuple(each for each in wished if each.quotas)


def create_project(
    tx: Transaction,
    principal: Principal,
    *,
    name: str,
    description: str,
    two_person_review: bool,
    journal: Journal,
) -> Project:
    """A new project; `Conflict` when the name is taken. Needs `admin` everywhere."""
    require_everywhere(principal, Verb.ADMIN)
    require_name(name, what="project name")
    try:
        tx.execute(
            insert(projects).values(
                name=name,
                description=description,
                two_person_review=two_person_review,
                created_at=tx.now,
                edition=1,
            )
        )
    except IntegrityError as error:
        raise Conflict(f"the project {quote(name)} exists already", hint="choose another name") from error
    journal(
        tx,
        actor=principal.actor,
        action="project.created",
        subject=f"project/{name}",
        project=name,
        payload={"description": description, "two_person_review": two_person_review},
    )
    return find_project(tx, name)


def change_project(
    tx: Transaction, principal: Principal, *, name: str, changes: dict[str, str | bool | int | None], journal: Journal
) -> Project:
    """Set what `changes` names. Needs `admin` on the project; its quotas are set by those who administer everything."""
    require(principal, Verb.ADMIN, project=name)
    if not QUOTAS.isdisjoint(changes):
        require_everywhere(principal, Verb.ADMIN)
    before = find_project(tx, name)
    if changes:
        tx.execute(update(projects).where(projects.c.name == name).values(**changes, edition=before.edition + 1))
        journal(
            tx,
            actor=principal.actor,
            action="project.changed",
            subject=f"project/{name}",
            project=name,
            payload=dict(changes),
        )
        tx.wake(TOPIC)
    return find_project(tx, name)
