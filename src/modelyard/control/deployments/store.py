"""Read and write services and revisions. Every write of a status goes with the routing table that follows from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Protocol

from sqlalchemy import RowMapping, func, insert, select, update

from modelyard.control.catalog import VersionRecord
from modelyard.control.deployments.answerers import secrets_of
from modelyard.control.deployments.routing import route_of
from modelyard.control.deployments.state import NEXT_TABLE, Revision, RevisionState, Service, Status
from modelyard.control.deployments.steps import Plan
from modelyard.control.deployments.tables import revisions, services
from modelyard.control.history import append
from modelyard.control.identity import Actor, Reach, missing, visible
from modelyard.control.records import Transaction
from modelyard.domain.errors.base import quote
from modelyard.domain.routing import ServiceRoute
from modelyard.domain.service import Phase, ServiceSpec
from modelyard.foundation.documents import from_plain, to_plain

TOPIC: Final = "services"


class Publish(Protocol):
    """Publishes the routing table that follows from the records, if it is another one; gives its revision."""

    def __call__(self, tx: Transaction) -> int:
        """In the unit of work that changed what it is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A service with what the records say beside its status."""

    service: Service
    created_at: datetime
    updated_at: datetime
    edition: int

    @property
    def etag(self) -> str:
        """Changes with every change of the service."""
        return f'"{self.service.project}.{self.service.name}-{self.edition}"'


def find(tx: Transaction, project: str, name: str) -> Stored:
    """The service, or `NotFound`; one that was deleted is not there."""
    found = find_any(tx, project, name)
    if found is None or found.service.status.phase is Phase.DELETED:
        raise missing(f"service {quote(name)} in project {quote(project)}")
    return found


def find_any(tx: Transaction, project: str, name: str) -> Stored | None:
    """The service also when it was deleted, None when the name was never used."""
    row = tx.execute(select(services).where(services.c.project == project, services.c.name == name)).mappings().first()
    return None if row is None else _stored(tx, row)


def find_services(tx: Transaction, *, reach: Reach | None = None, project: str | None = None) -> list[Stored]:
    """All services that are not deleted, by project and name; those that `reach` covers, if it is given."""
    query = select(services).where(services.c.phase != Phase.DELETED).order_by(services.c.project, services.c.name)
    if reach is not None:
        query = query.where(visible(reach, project=services.c.project, name=services.c.name))
    if project is not None:
        query = query.where(services.c.project == project)
    return [_stored(tx, row) for row in tx.execute(query).mappings().all()]


def list_revisions(tx: Transaction, project: str, name: str, *, before: int | None, limit: int) -> list[Revision]:
    """Revisions with a lower number than `before`, newest first."""
    query = select(revisions).where(revisions.c.project == project, revisions.c.service == name)
    if before is not None:
        query = query.where(revisions.c.number < before)
    return [_revision(row) for row in tx.execute(query.order_by(revisions.c.number.desc()).limit(limit)).mappings()]


def find_revision(tx: Transaction, project: str, name: str, number: int) -> Revision:
    """One revision, or `NotFound`."""
    row = (
        tx.execute(
            select(revisions).where(
                revisions.c.project == project, revisions.c.service == name, revisions.c.number == number
            )
        )
        .mappings()
        .first()
    )
    if row is None:
        raise missing(f"revision {number} of service {quote(name)}")
    return _revision(row)


def add_revision(tx: Transaction, spec: ServiceSpec, *, actor: str, why: str) -> Revision:
    """The next revision of a service; numbers are never used twice, not even after a deletion."""
    query = select(func.max(revisions.c.number)).where(
        revisions.c.project == spec.project, revisions.c.service == spec.name
    )
    number = (tx.scalar(query) or 0) + 1
    tx.execute(
        insert(revisions).values(
            project=spec.project,
            service=spec.name,
            number=number,
            spec=to_plain(spec),
            actor=actor[:255],
            why=why[:500],
            created_at=tx.now,
            state=RevisionState.PENDING.value,
            reason="",
        )
    )
    return find_revision(tx, spec.project, spec.name, number)


def end_revisions(tx: Transaction, service: Service, outcomes: Mapping[int, tuple[RevisionState, str]]) -> None:
    """Write down how revisions ended."""
    for number, (state, reason) in outcomes.items():
        live_at = {"live_at": tx.now} if state is RevisionState.LIVE else {}
        tx.execute(
            update(revisions)
            .where(
                revisions.c.project == service.project,
                revisions.c.service == service.name,
                revisions.c.number == number,
            )
            .values(state=state.value, reason=reason[:500], **live_at)
        )


def create(tx: Transaction, project: str, name: str, status: Status, *, publish: Publish) -> None:
    """A new service, or a deleted name in use again."""
    key = (services.c.project == project, services.c.name == name)
    edition = tx.scalar(select(services.c.edition).where(*key))
    if edition is not None:
        tx.execute(services.delete().where(*key))
    tx.execute(
        insert(services).values(
            project=project,
            name=name,
            phase=status.phase.value,
            status=to_plain(status),
            created_at=tx.now,
            updated_at=tx.now,
            edition=(edition or 0) + 1,
        )
    )
    save(tx, project, name, status, publish=publish)


def save(tx: Transaction, project: str, name: str, status: Status, *, publish: Publish) -> Status:
    """Write a status and the routing table that follows from it, and wake the reconciler.

    `NEXT_TABLE` in `awaiting` becomes the revision of that table.
    """
    _write(tx, project, name, status)
    table = publish(tx)
    if status.awaiting == NEXT_TABLE:
        status = replace(status, awaiting=table)
        _write(tx, project, name, status)
    tx.wake(TOPIC)
    return status


def carry_out(tx: Transaction, service: Service, made: Plan, *, actor: Actor, publish: Publish) -> Status:
    """Write a plan's status, how revisions ended, and its history, with the routing table that follows."""
    end_revisions(tx, service, made.outcomes)
    status = save(tx, service.project, service.name, made.status, publish=publish)
    for event in made.events:
        append(
            tx,
            actor=actor,
            action=event.action,
            subject=f"service/{service.name}",
            project=service.project,
            payload={
                "service": service.name,
                "project": service.project,
                "revision": event.revision,
                **event.payload,
            },
        )
    return status


def services_using(tx: Transaction, version: VersionRecord) -> list[str]:
    """Services that a version is needed by: live, being made ready, or wanted. For whoever wants to delete it."""
    users: list[str] = []
    for stored in find_services(tx, project=version.project):
        status = stored.service.status
        needed = {number for number in (status.goal, status.live, status.candidate) if number is not None}
        specs = [stored.service.spec(number) for number in needed]
        library = [(spec.model, spec.version) for spec in specs if spec.upstream is None and spec.graph is None]
        library += [(part.model, part.version) for spec in specs for part in spec.parts]
        library += [(spec.shadow.model, spec.shadow.version) for spec in specs if spec.shadow is not None]
        if (version.model, version.version) in library:
            users.append(f"service {stored.service.name}")
    return users


def services_with_secret(tx: Transaction, project: str, name: str) -> list[str]:
    """Services that need a secret: live, being made ready, wanted, or kept warm. For whoever wants to delete it."""
    found = find_services(tx, project=project)
    return [
        f"service {stored.service.name}"
        for stored in found
        if any(name in secrets_of(revision.spec) for revision in stored.service.revisions.values())
    ]


def service_routes(tx: Transaction, *, packages: str) -> tuple[ServiceRoute, ...]:
    """What the routing table says of all services."""
    found = (route_of(stored.service, packages=packages) for stored in find_services(tx))
    return tuple(route for route in found if route is not None)


def _write(tx: Transaction, project: str, name: str, status: Status) -> None:
    tx.execute(
        update(services)
        .where(services.c.project == project, services.c.name == name)
        .values(
            phase=status.phase.value,
            status=to_plain(status),
            updated_at=tx.now,
            edition=services.c.edition + 1,
        )
    )


def _stored(tx: Transaction, row: RowMapping) -> Stored:
    status = from_plain(row["status"], Status)
    named = {status.goal, status.taking_over, status.replaced, *status.kept, *status.homes.values()} - {None}
    query = select(revisions).where(
        revisions.c.project == row["project"],
        revisions.c.service == row["name"],
        revisions.c.number.in_(named),
    )
    found: Sequence[Revision] = [_revision(each) for each in tx.execute(query).mappings()]
    service = Service(
        project=row["project"],
        name=row["name"],
        status=status,
        revisions={revision.number: revision for revision in found},
    )
    return Stored(service=service, created_at=row["created_at"], updated_at=row["updated_at"], edition=row["edition"])


def _revision(row: RowMapping) -> Revision:
    return Revision(
        number=row["number"],
        spec=from_plain(row["spec"], ServiceSpec),
        actor=row["actor"],
        why=row["why"],
        created_at=row["created_at"].timestamp(),
        state=RevisionState(row["state"]),
        reason=row["reason"],
        live_at=None if row["live_at"] is None else row["live_at"].timestamp(),
    )


def moment(seconds: float) -> str:
    """Unix seconds as the API writes times."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
