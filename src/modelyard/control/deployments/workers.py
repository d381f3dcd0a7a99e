"""The isolated workers of a service: which there are to be, which are reached, and which have no place any more. Pure.

Workers are named after a *home*: the revision that they were started for. A revision that runs the same as one that is
live or warm uses that one's workers, so that going back, and changing limits or the number of workers, loads nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from modelyard.control.deployments.routing import package_directory, shadow_key
from modelyard.control.deployments.state import NEXT_TABLE, Service, Status
from modelyard.control.deployments.steps import CRASHES, Observed, Readiness
from modelyard.domain.contract import Isolation
from modelyard.ports.orchestrator import Replica, ReplicaSpec, ReplicaState


def owner_prefix(project: str, service: str) -> str:
    """How the ids of all replicas of a service begin; dots inside names become `~`, so that two ids never meet."""
    return f"{project.replace('.', '~')}.{service.replace('.', '~')}."


def replica_id(project: str, service: str, revision: int | str, index: int) -> str:
    """`project.service.revision.index`."""
    return f"{owner_prefix(project, service)}{revision}.{index}"


def home_for(service: Service, revision: int) -> int:
    """The home of a revision that is to be made ready: that of a kept one which runs the same, else its own."""
    status, spec = service.status, service.spec(revision)
    warm = [each.revision for each in status.warm]
    for kept in (status.live, *warm):
        if kept is not None and kept in service.revisions and service.spec(kept).runs == spec.runs:
            return status.home(kept)
    return revision


def wanted_of(service: Service, revision: int) -> int:
    """How many workers `revision` is to have when it answers: the service's present number within its bounds.

    One that is to be made ready has at least one, to prove itself, also where there may be none later.
    """
    replicas, status = service.spec(revision).replicas, service.status
    if status.wanted is None:
        return max(1, replicas.min)
    number = max(replicas.least, min(status.wanted, replicas.most))
    return number if revision == status.live else max(1, number)


def count_of(service: Service, revision: int) -> int:
    """How many workers `revision` is to have now, on its way there or kept warm."""
    home = service.status.home(revision)
    return service.status.counts.get(str(home), wanted_of(service, revision))


def replicas_of(service: Service, revision: int, observed: Observed) -> list[ReplicaSpec]:
    """The workers that `revision` is to have, by index; none when it shares the listening processes."""
    spec = service.spec(revision)
    if spec.isolation is not Isolation.PROCESS or service.status.unloaded:
        return []
    home = service.status.home(revision)
    one = _replica(service, home, 0, spec.digest, observed)
    cpu, memory = spec.resources.cpu, spec.resources.memory_bytes
    one = replace(one, threads=1 if cpu is None else max(1, math.ceil(cpu)), cpus=cpu, memory_bytes=memory)
    one = replace(one, device=spec.resources.device)
    return [replace(one, id=_id(service, home, index)) for index in range(count_of(service, revision))]


def shadow_replicas(service: Service, revision: int, observed: Observed) -> list[ReplicaSpec]:
    """The worker of a revision's shadow, where that needs one."""
    shadow = service.spec(revision).shadow
    if shadow is None or shadow.isolation is not Isolation.PROCESS or service.status.unloaded:
        return []
    return [_replica(service, shadow_key(revision).replace(".", "-"), 0, shadow.digest, observed)]


def ready_workers(service: Service, revision: int, observed: Observed) -> int:
    """How many of the workers of `revision` are ready."""
    wanted = [replica.id for replica in replicas_of(service, revision, observed)]
    seen = [observed.replicas[name] for name in wanted if name in observed.replicas]
    return sum(replica.state is ReplicaState.READY for replica in seen)


def judge_workers(service: Service, revision: int, observed: Observed) -> Readiness:
    """Whether all workers of `revision` are ready, or one of them never will be."""
    wanted = [replica.id for replica in replicas_of(service, revision, observed)]
    crashes = CRASHES if service.status.home(revision) == revision else float("inf")  # not those of a shared past
    for name in wanted:
        replica = observed.replicas.get(name)
        if replica is not None and (replica.state is ReplicaState.FAILED or replica.restarts >= crashes):
            reason = f"its worker {replica.id} crashed: {replica.reason or 'no reason given'}"
            return Readiness(failed=True, reason=reason)
    ready = ready_workers(service, revision, observed)
    if ready < len(wanted):
        return Readiness(reason=f"{ready} of {len(wanted)} workers of revision {revision} are ready")
    return Readiness(ready=True)


def refresh_addresses(service: Service, observed: Observed) -> Status:
    """The status with the addresses of workers as they are now.

    A worker comes in when it is ready and goes out when it is not wanted any more; one that is being started again
    after a crash stays in, for the servers wait for it or ask another. When one goes out, its end waits for the next
    table.
    """
    status = service.status
    workers: dict[str, tuple[str, ...]] = {}
    for revision in status.kept:
        addresses = _addresses(replicas_of(service, revision, observed), status.workers_of(revision), observed)
        shadow = shadow_key(revision)
        copies = _addresses(shadow_replicas(service, revision, observed), status.workers.get(shadow, ()), observed)
        workers |= {str(revision): addresses} if addresses else {}
        workers |= {shadow: copies} if copies else {}
    if workers == status.workers:
        return status
    before = {address for each in status.workers.values() for address in each}
    gone = before - {address for each in workers.values() for address in each}
    return replace(status, workers=workers, awaiting=NEXT_TABLE if gone else status.awaiting)


def missing_workers(service: Service, observed: Observed) -> tuple[ReplicaSpec, ...]:
    """Workers that are wanted and not there, or on a node that they have to leave, of prepared revisions."""
    status = service.status
    wanted: dict[str, ReplicaSpec] = {}
    for revision in (status.live, status.candidate):
        if revision is not None and observed.is_prepared(revision):
            wanted |= {each.id: each for each in replicas_of(service, revision, observed)}
    if status.live is not None:
        wanted |= {each.id: each for each in shadow_replicas(service, status.live, observed)}
    return tuple(replica for name, replica in wanted.items() if _is_due(observed.replicas.get(name), observed))


def stray_workers(service: Service, observed: Observed, *, keep: Sequence[int]) -> tuple[str, ...]:
    """Workers of this service that no kept revision wants."""
    wanted = {
        replica.id
        for revision in keep
        for replica in (*replicas_of(service, revision, observed), *shadow_replicas(service, revision, observed))
    }
    prefix = owner_prefix(service.project, service.name)
    return tuple(
        name
        for name, replica in observed.replicas.items()
        if name.startswith(prefix) and name not in wanted and replica.state is not ReplicaState.STOPPING
    )


def _is_due(seen: Replica | None, observed: Observed) -> bool:
    """Whether a wanted worker is to be started, perhaps beside the one there is until the new one is ready."""
    if seen is None:
        return True
    return not seen.moving_to and (seen.state is ReplicaState.LOST or seen.node in observed.leaving)


def _replica(service: Service, home: int | str, index: int, digest: str, observed: Observed) -> ReplicaSpec:
    number = int(str(home).partition("-")[0])
    return ReplicaSpec(
        id=_id(service, home, index),
        project=service.project,
        service=service.name,
        revision=number,
        package=package_directory(observed.packages, digest),
    )


def _id(service: Service, home: int | str, index: int) -> str:
    return replica_id(service.project, service.name, home, index)


def _addresses(wanted: Sequence[ReplicaSpec], known: Sequence[str], observed: Observed) -> tuple[str, ...]:
    """Known addresses stay while their worker is wanted, also one that is not seen just now; ready ones come in."""
    ids = {replica.id for replica in wanted}
    seen = {replica.address: replica for replica in observed.replicas.values() if replica.address}
    ended = (ReplicaState.STOPPING, ReplicaState.FAILED)
    kept = [
        address
        for address in known
        if address not in seen or (seen[address].id in ids and seen[address].state not in ended)
    ]
    here = [observed.replicas[replica.id] for replica in wanted if replica.id in observed.replicas]
    came = [each.address for each in here if each.state is ReplicaState.READY and each.address not in kept]
    found = [*kept, *came]
    spare = len(found) - len(ids)
    unseen = [address for address in found if address not in seen][: max(0, spare)]
    return tuple(address for address in found if address not in unseen)
