"""What the routing table says of a service, from where it stands. Pure."""

import math
from dataclasses import replace

from modelyard.control.deployments.state import Service
from modelyard.domain.contract import Isolation
from modelyard.domain.digests import PREFIX
from modelyard.domain.rollout import Guard, Strategy
from modelyard.domain.routing import Backend, Match, ServiceRoute
from modelyard.domain.service import Phase, ServiceSpec


def package_directory(packages: str, digest: str) -> str:
    """Where the servable package of a bundle digest (`sha256:<hex>`) lies below the directory `packages`."""
    return f"{packages}/{digest.removeprefix(PREFIX)}"


def shadow_key(revision: int) -> str:
    """The name, in `Status.workers`, of the workers of a revision's shadow."""
    return f"{revision}.shadow"


def route_of(service: Service, *, packages: str) -> ServiceRoute | None:
    """What the routing table says of `service`; None when it is not to be routed.

    `packages` is the directory of all packages. The live revision has the traffic but for what a rollout gives to the
    candidate; before that the candidate has weight 0, so that servers load and check it, and so have revisions that
    are kept warm, so that servers hold them. A service that was unloaded, or whose workers are not there yet, is told
    as one that nobody holds.
    """
    status = service.status
    if status.phase in (Phase.DELETING, Phase.DELETED):
        return None
    weights = _weights(service)
    routable = [pair for pair in weights if _routable(service, pair[0])]
    loaded = bool(routable) and not status.unloaded
    if not loaded:  # nobody holds it, but what is live is known
        routable = [pair for pair in weights if pair[0] == status.live]
    backends = [_backend(service, revision, weight, packages) for revision, weight in routable]
    if not backends:
        return None
    leading = status.live if status.live is not None else backends[0].revision
    spec = service.spec(leading)
    shadow = _shadow(service, leading, packages)
    way = service.spec(status.candidate if status.candidate is not None else leading).rollout
    return ServiceRoute(
        name=service.name,
        project=service.project,
        revision=status.goal,
        backends=tuple(backends) if shadow is None else (*backends, shadow),
        isolation=spec.isolation,
        limits=spec.limits,
        batching=spec.batching,
        resilience=spec.resilience,
        cache=spec.cache,
        matches=_matches(service),
        sticky=way.sticky,
        watched=is_canary(service) and way.guard is not Guard.OFF,
        loaded=loaded,
        scaled=is_scaled(spec),
        on_demand=spec.isolation is Isolation.SHARED and spec.replicas.may_sleep,
        idle_s=spec.replicas.scaling.idle_s,
    )


def is_scaled(spec: ServiceSpec) -> bool:
    """Whether the number of its isolated workers follows the load, the hour, or both."""
    replicas = spec.replicas
    moves = replicas.may_sleep or (replicas.scaling.is_on and replicas.max > replicas.min)
    return spec.isolation is Isolation.PROCESS and (moves or bool(replicas.scaling.schedule))


def is_canary(service: Service) -> bool:
    """Whether a canary has a share of the traffic now."""
    status = service.status
    if status.rollout is None or status.candidate is None or status.returning:
        return False
    return status.phase is Phase.CANARY


def _weights(service: Service) -> list[tuple[int, int]]:
    """Revisions with their weights, those with traffic first."""
    status = service.status
    live, candidate, progress = status.live, status.candidate, status.rollout
    found: list[tuple[int, int]] = []
    if live is not None and candidate is not None and progress is not None:
        if is_canary(service):
            found = [(live, 100 - progress.weight), (candidate, progress.weight)]
        else:  # workers are being exchanged: each one counts the same
            found = [(number, len(status.workers_of(number))) for number in (live, candidate)]
    else:
        found = [(number, weight) for number, weight in ((live, 100), (candidate, 0)) if number is not None]
    named = {number for number, _ in found}
    return found + [(each.revision, 0) for each in status.warm if each.revision not in named]


def _matches(service: Service) -> tuple[Match, ...]:
    candidate = service.status.candidate
    if candidate is None or not is_canary(service):
        return ()
    matches = service.spec(candidate).rollout.matches
    return tuple(Match(revision=candidate, headers=each.headers, keys=each.keys) for each in matches)


def is_rolling(service: Service) -> bool:
    """Whether the candidate replaces the live revision's workers one by one."""
    status = service.status
    if status.live is None or status.candidate is None or status.home(status.live) == status.home(status.candidate):
        return False
    old, new = service.spec(status.live), service.spec(status.candidate)
    isolated = old.isolation is Isolation.PROCESS and new.isolation is Isolation.PROCESS
    return isolated and new.target == old.target and new.rollout.strategy is Strategy.ROLLING


def _routable(service: Service, revision: int) -> bool:
    spec, status = service.spec(revision), service.status
    if spec.isolation is Isolation.SHARED or status.workers_of(revision):
        return True
    return revision == status.live and is_scaled(spec) and status.wanted == 0


def _backend(service: Service, revision: int, weight: int, packages: str) -> Backend:
    spec = service.spec(revision)
    return Backend(
        model=spec.model,
        version=spec.version,
        digest=spec.digest,
        package="" if spec.upstream or spec.graph else package_directory(packages, spec.digest),
        revision=revision,
        weight=weight,
        workers=service.status.workers_of(revision),
        isolation=spec.isolation,
        upstream=spec.upstream,
        graph=spec.graph,
        parts=tuple(replace(part, package=package_directory(packages, part.digest)) for part in spec.parts),
        device=spec.resources.device,
        memory_bytes=spec.resources.memory_bytes,
        threads=None if spec.resources.cpu is None else math.ceil(spec.resources.cpu),
    )


def _shadow(service: Service, revision: int, packages: str) -> Backend | None:
    """The backend of the leading revision's shadow, once it can be reached."""
    spec: ServiceSpec = service.spec(revision)
    shadow = spec.shadow
    workers = service.status.workers.get(shadow_key(revision), ())
    if shadow is None or (shadow.isolation is Isolation.PROCESS and not workers):
        return None
    return Backend(
        model=shadow.model,
        version=shadow.version,
        digest=shadow.digest,
        package=package_directory(packages, shadow.digest),
        revision=revision,
        weight=0,
        workers=workers,
        isolation=shadow.isolation,
        shadow_percent=shadow.percent,
    )
