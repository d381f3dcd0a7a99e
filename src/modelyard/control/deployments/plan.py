"""Decide how a service gets from what runs to what is wanted.

Pure: no clock, no database, no orchestrator. A plan is the status as it shall be, the replicas to start and to stop,
and what history has to say of it. Planning the same state twice gives the same plan; a plan that was only half carried
out is made again from what is then seen.

A new revision is first a *candidate*: its workers are started, it stands in the routing table with weight 0, every live
server loads it and checks it with its golden request. Only when all of them report it ready does it take the traffic;
the switch is over when the last server has acknowledged that table. A candidate that fails, or is not ready within the
patience, goes; the revision that was live before has answered all the time and stays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from modelyard.control.deployments.state import (
    NEXT_TABLE,
    Preparation,
    PreparationState,
    Revision,
    RevisionState,
    Service,
    Status,
    package_directory,
)
from modelyard.domain.contract import Isolation
from modelyard.domain.routing import BackendStatus, ServerReport
from modelyard.domain.service import MOVES, Phase, ServiceSpec, Trigger
from modelyard.ports.orchestrator import Replica, ReplicaSpec, ReplicaState

PATIENCE_S: Final = 120.0
GRACE_S: Final = 30.0
CRASHES: Final = 3
"""A candidate whose worker crashed this often is given up before its patience ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is seen now. `servers` are those that reported lately, without a gap since `alive_since` (Unix seconds).

    `packages` is the directory of all packages. `preparations` are those of revisions of this service whose package
    needs something built on this machine first.
    """

    servers: Sequence[ServerReport] = ()
    alive_since: float = 0.0
    replicas: Mapping[str, Replica] = field(default_factory=dict)
    packages: str = ""
    preparations: Mapping[int, Preparation] = field(default_factory=dict)

    def is_prepared(self, revision: int) -> bool:
        """Whether nothing has to be built before workers of `revision` can start."""
        preparation = self.preparations.get(revision)
        return preparation is None or preparation.state is PreparationState.READY


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that history keeps."""

    action: str
    revision: int
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The next status, and what to do for it. `outcomes` are revisions that came to an end, with the reason."""

    status: Status
    start: tuple[ReplicaSpec, ...] = ()
    stop: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    outcomes: Mapping[int, tuple[RevisionState, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What can be said of a candidate now: ready, failed for good, or neither, and why."""

    ready: bool = False
    failed: bool = False
    reason: str = ""
    workers: tuple[str, ...] = ()


def plan(service: Service, observed: Observed, *, now: float, patience_s: float = PATIENCE_S) -> Plan:
    """The next step of `service` towards its goal."""
    if service.status.phase is Phase.DELETED:
        return Plan(status=service.status, stop=_strangers(service, observed, keep=()))
    if service.status.phase is Phase.DELETING:
        return _delete(service, observed, now=now, patience_s=patience_s)
    service, superseded = choose_candidate(service, now=now)
    plan_ = _advance(service, observed, now=now, patience_s=patience_s)
    plan_ = _acknowledge(service, plan_, observed, now=now)
    status = plan_.status
    keep = [n for n in (status.live, status.candidate, *status.draining) if n is not None]
    return replace(
        plan_,
        start=_missing(service, observed, [n for n in (status.live, status.candidate) if n is not None]),
        stop=_strangers(service, observed, keep=keep),
        outcomes={**superseded, **plan_.outcomes},
    )


def replica_id(project: str, service: str, revision: int, index: int) -> str:
    """`project.service.revision.index`; dots inside names become `~`, so that two ids never meet."""
    return f"{owner_prefix(project, service)}{revision}.{index}"


def judge(service: Service, revision: int, observed: Observed) -> Readiness:
    """How ready `revision` is, by what orchestrator and servers say."""
    spec = service.spec(revision)
    if not observed.is_prepared(revision):
        preparation = observed.preparations[revision]
        return Readiness(failed=preparation.state is PreparationState.FAILED, reason=preparation.reason)
    workers: tuple[str, ...] = ()
    if spec.isolation is Isolation.PROCESS:
        of_workers = _judge_workers(service, revision, observed)
        if not of_workers.ready:
            return of_workers
        workers = of_workers.workers
    return replace(_judge_servers(spec, revision, observed), workers=workers)


def choose_candidate(service: Service, *, now: float) -> tuple[Service, dict[int, tuple[RevisionState, str]]]:
    """The service with its goal as candidate, and the candidate that this ends; nothing when that is so already."""
    status = service.status
    if status.goal in (status.live, status.candidate) or status.goal in status.failed:
        return service, {}
    superseded: dict[int, tuple[RevisionState, str]] = {}
    draining = status.draining
    if status.candidate is not None:
        superseded[status.candidate] = (RevisionState.SUPERSEDED, f"revision {status.goal} was asked for")
        draining = (*draining, status.candidate)
    trigger = Trigger.PLANNED if status.phase is Phase.PENDING else Trigger.SPEC_CHANGED
    fresh = replace(
        status,
        phase=MOVES[status.phase, trigger],
        candidate=status.goal,
        since=now,
        draining=draining,
        awaiting=NEXT_TABLE if draining != status.draining else status.awaiting,
        reason=f"revision {status.goal} is being made ready",
    )
    return replace(service, status=fresh), superseded


def _advance(service: Service, observed: Observed, *, now: float, patience_s: float) -> Plan:
    status = service.status
    if status.candidate is None:
        return Plan(status=_follow_workers(service, observed))
    readiness = judge(service, status.candidate, observed)
    if readiness.ready:
        return _switch(service, status.candidate)
    preparation = observed.preparations.get(status.candidate)
    began = max(status.since, observed.alive_since, 0.0 if preparation is None else preparation.at)
    building = preparation is not None and preparation.state is PreparationState.BUILDING
    late_now = bool(observed.servers) and not building and now >= began + patience_s
    if readiness.failed or late_now:
        late = "" if readiness.failed else f"not ready after {patience_s:g} s: "
        return _give_up(service, status.candidate, late + readiness.reason)
    workers = {**status.workers, str(status.candidate): readiness.workers} if readiness.workers else status.workers
    return Plan(status=replace(status, workers=workers, reason=readiness.reason))


def _follow_workers(service: Service, observed: Observed) -> Status:
    """The live revision's workers may have moved: a restored data directory has other sockets."""
    status = service.status
    if status.live is None or service.spec(status.live).isolation is not Isolation.PROCESS:
        return status
    found = _judge_workers(service, status.live, observed)
    if not found.ready or found.workers == status.workers_of(status.live):
        return status
    return replace(status, workers={**status.workers, str(status.live): found.workers})


def _switch(service: Service, revision: int) -> Plan:
    status = service.status
    old = (status.live,) if status.live is not None else ()
    return Plan(
        status=replace(
            status,
            live=revision,
            candidate=None,
            draining=(*status.draining, *old),
            awaiting=NEXT_TABLE,
            taking_over=revision,
            reason=f"revision {revision} is ready; the servers are taking it over",
        )
    )


def _give_up(service: Service, revision: int, why: str) -> Plan:
    status = service.status
    digest = service.spec(revision).digest
    back = f"; revision {status.live} goes on answering" if status.live is not None else ""
    reason = f"revision {revision} did not become ready: {why}{back}"
    return Plan(
        status=replace(
            status,
            phase=MOVES[status.phase, Trigger.LOAD_FAILED],
            candidate=None,
            draining=(*status.draining, revision),
            awaiting=NEXT_TABLE,
            failed=(*status.failed, revision),
            rejected=tuple(dict.fromkeys((*status.rejected, digest))),
            reason=reason,
        ),
        events=(
            Event(
                action="service.revision_failed",
                revision=revision,
                payload={"reason": why, "live": status.live, "digest": digest},
            ),
        ),
        outcomes={revision: (RevisionState.FAILED, why)},
    )


def _acknowledge(service: Service, plan_: Plan, observed: Observed, *, now: float) -> Plan:
    """When every live server has the awaited table, what drained is over, and a switch is done."""
    status = plan_.status
    if not _acknowledged(status.awaiting, observed):
        return plan_
    table, new, drained = status.awaiting, status.taking_over, status.draining
    gone = {str(number) for number in drained}
    workers = {number: addresses for number, addresses in status.workers.items() if number not in gone}
    status = replace(status, awaiting=None, taking_over=None, draining=(), workers=workers)
    if new is None:
        return replace(plan_, status=status)
    if status.candidate is None:
        status = replace(status, phase=MOVES[status.phase, Trigger.READY], reason="")
    outcomes = {n: (RevisionState.SUPERSEDED, f"revision {new} took over") for n in drained if n not in status.failed}
    spec = service.spec(new)
    payload = {
        "model": spec.model,
        "version": spec.version,
        "digest": spec.digest,
        "table": table,
        "servers": [report.server for report in observed.servers],
        "at": now,
    }
    return replace(
        plan_,
        status=status,
        events=(*plan_.events, Event(action="service.revision_live", revision=new, payload=payload)),
        outcomes={**outcomes, **plan_.outcomes, new: (RevisionState.LIVE, "")},
    )


def _acknowledged(awaiting: int | None, observed: Observed) -> bool:
    if awaiting is None or awaiting == NEXT_TABLE or not observed.servers:
        return False
    return all(report.table_revision >= awaiting for report in observed.servers)


def _delete(service: Service, observed: Observed, *, now: float, patience_s: float) -> Plan:
    status = service.status
    unheard = not observed.servers and now >= status.since + patience_s
    if not (_acknowledged(status.awaiting, observed) or unheard):
        return Plan(status=status)
    stop = _strangers(service, observed, keep=())
    if stop or any(name.startswith(owner_prefix(service.project, service.name)) for name in observed.replicas):
        return Plan(status=status, stop=stop)
    over = replace(
        status,
        phase=MOVES[Phase.DELETING, Trigger.DRAINED],
        live=None,
        candidate=None,
        draining=(),
        awaiting=None,
        workers={},
        reason="",
    )
    return Plan(status=over, events=(Event(action="service.gone", revision=status.goal),))


def _judge_workers(service: Service, revision: int, observed: Observed) -> Readiness:
    wanted = [replica.id for replica in _replicas(service, revision, observed)]
    seen = [observed.replicas[name] for name in wanted if name in observed.replicas]
    for replica in seen:
        if replica.state is ReplicaState.FAILED or replica.restarts >= CRASHES:
            return Readiness(
                failed=True, reason=f"its worker {replica.id} crashed: {replica.reason or 'no reason given'}"
            )
    ready = [replica for replica in seen if replica.state is ReplicaState.READY]
    if len(ready) < len(wanted):
        return Readiness(reason=f"{len(ready)} of {len(wanted)} workers of revision {revision} are ready")
    return Readiness(ready=True, workers=tuple(replica.address for replica in ready))


def _judge_servers(spec: ServiceSpec, revision: int, observed: Observed) -> Readiness:
    if not observed.servers:
        return Readiness(reason="no model server has reported yet")
    said = [(report.server, status_of(report, spec, revision)) for report in observed.servers]
    if all(status is not None and status.state == "ready" for _, status in said):
        return Readiness(ready=True)
    decided = all(status is not None and status.state in ("ready", "failed") for _, status in said)
    for server, status in said:
        if decided and status is not None and status.state == "failed":
            return Readiness(failed=True, reason=f"{server} cannot serve it: {status.reason or 'no reason given'}")
    ready = sum(status is not None and status.state == "ready" for _, status in said)
    return Readiness(reason=f"{ready} of {len(said)} model servers have revision {revision} ready")


def status_of(report: ServerReport, spec: ServiceSpec, revision: int) -> BackendStatus | None:
    """What one server says of one revision of a service, if anything."""
    for status in report.backends:
        if (status.project, status.service, status.revision) == (spec.project, spec.name, revision):
            return status if status.digest == spec.digest else None
    return None


def owner_prefix(project: str, service: str) -> str:
    """How the ids of all replicas of a service begin."""
    return f"{project.replace('.', '~')}.{service.replace('.', '~')}."


def _replicas(service: Service, revision: int, observed: Observed) -> list[ReplicaSpec]:
    spec = service.spec(revision)
    if spec.isolation is not Isolation.PROCESS:
        return []
    return [
        ReplicaSpec(
            id=replica_id(service.project, service.name, revision, index),
            project=service.project,
            service=service.name,
            revision=revision,
            package=package_directory(observed.packages, spec.digest),
        )
        for index in range(spec.replicas.min)
    ]


def _missing(service: Service, observed: Observed, revisions: Sequence[int]) -> tuple[ReplicaSpec, ...]:
    prepared = [number for number in revisions if observed.is_prepared(number)]
    wanted = [replica for number in prepared for replica in _replicas(service, number, observed)]
    return tuple(replica for replica in wanted if replica.id not in observed.replicas)


def _strangers(service: Service, observed: Observed, *, keep: Sequence[int]) -> tuple[str, ...]:
    """Replicas of this service that no kept revision wants."""
    wanted = {replica.id for number in keep for replica in _replicas(service, number, observed)}
    prefix = owner_prefix(service.project, service.name)
    return tuple(
        name
        for name, replica in observed.replicas.items()
        if name.startswith(prefix) and name not in wanted and replica.state is not ReplicaState.STOPPING
    )


def named(revisions: Sequence[Revision]) -> dict[int, Revision]:
    """Revisions by number."""
    return {revision.number: revision for revision in revisions}
