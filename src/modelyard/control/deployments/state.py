"""Where a service stands: the values that are stored, and the routes that follow from them. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from modelyard.domain.contract import Isolation
from modelyard.domain.digests import PREFIX
from modelyard.domain.routing import Backend, ServiceRoute
from modelyard.domain.service import Phase, ServiceSpec

NEXT_TABLE: Final = 0
"""In `Status.awaiting`: the table that is about to be published; saving the status puts its revision here."""


class RevisionState(StrEnum):
    """How far a revision came."""

    PENDING = "pending"
    LIVE = "live"
    FAILED = "failed"
    SUPERSEDED = "superseded"


class PreparationState(StrEnum):
    """How far a preparation is."""

    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """Where the building of what workers need stands, since `at` (Unix seconds); `reason` is what a person is told."""

    state: PreparationState
    reason: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One numbered wish: the whole spec, who had it, when (Unix seconds) and why."""

    number: int
    spec: ServiceSpec
    actor: str
    why: str
    created_at: float
    state: RevisionState = RevisionState.PENDING
    reason: str = ""
    live_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the platform does about a service; ours, never the user's.

    `goal` is the revision that is wanted, `live` the one with the traffic, `candidate` the one being made ready beside
    it since `since`. `awaiting` is the table whose acknowledgement by all servers ends the present step; `taking_over`
    is the revision that is live from then on. `draining` revisions have no traffic any more and wait for the same.
    `workers` are the addresses of isolated workers by revision; a revision that needs some is not routed before they
    are known. `failed` revisions are not tried again, `rejected` digests are those that did not become ready.
    """

    phase: Phase = Phase.PENDING
    reason: str = ""
    goal: int
    live: int | None = None
    candidate: int | None = None
    since: float = 0.0
    awaiting: int | None = None
    taking_over: int | None = None
    draining: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    rejected: tuple[str, ...] = ()
    workers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def workers_of(self, revision: int) -> tuple[str, ...]:
        """Addresses of the workers of `revision`, empty when it has none."""
        return self.workers.get(str(revision), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service as the reconciler sees it: its status and the revisions that the status names."""

    project: str
    name: str
    status: Status
    revisions: Mapping[int, Revision]

    def spec(self, revision: int) -> ServiceSpec:
        """The spec of a revision that the status names."""
        return self.revisions[revision].spec


def package_directory(packages: str, digest: str) -> str:
    """Where the servable package of a bundle digest (`sha256:<hex>`) lies below the directory `packages`."""
    return f"{packages}/{digest.removeprefix(PREFIX)}"


def route_of(service: Service, *, packages: str) -> ServiceRoute | None:
    """What the routing table says of `service`; None when it is not to be routed.

    `packages` is the directory of all packages. The live revision has all the traffic; the candidate has weight 0, so
    that servers load and check it.
    """
    status = service.status
    if status.phase in (Phase.DELETING, Phase.DELETED):
        return None
    weights = [(status.live, 100), (status.candidate, 0)]
    backends = tuple(
        _backend(service, revision, weight, packages)
        for revision, weight in weights
        if revision is not None and _routable(service, revision)
    )
    if not backends:
        return None
    spec = service.spec(status.live if status.live is not None else backends[0].revision)
    return ServiceRoute(
        name=service.name,
        project=service.project,
        revision=status.goal,
        backends=backends,
        isolation=spec.isolation,
        limits=spec.limits,
        batching=spec.batching,
        resilience=spec.resilience,
    )


def _routable(service: Service, revision: int) -> bool:
    return service.spec(revision).isolation is Isolation.SHARED or bool(service.status.workers_of(revision))


def _backend(service: Service, revision: int, weight: int, packages: str) -> Backend:
    spec = service.spec(revision)
    return Backend(
        model=spec.model,
        version=spec.version,
        digest=spec.digest,
        package=package_directory(packages, spec.digest),
        revision=revision,
        weight=weight,
        workers=service.status.workers_of(revision),
        isolation=spec.isolation,
    )
