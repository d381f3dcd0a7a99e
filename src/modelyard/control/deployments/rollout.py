"""A canary's way through its shares, and the exchange of isolated workers one by one. Pure.

A candidate that is ready gets the first share of its spec. From there a person, a guard or the clock moves it:
`advance` to the next share or to all of the traffic, `abort` back to what was live, which never stopped answering.

Workers are exchanged within two bounds: never more than the wanted number and `max_surge`, never fewer ready ones than
the wanted number less `max_unavailable`. A new one takes traffic when it answered its golden request, then an old one
is drained. When a new one fails, the same is done backwards.
"""

from dataclasses import replace
from typing import Final

from modelyard.control.deployments.readiness import judge_preparation, judge_servers
from modelyard.control.deployments.state import NEXT_TABLE, RevisionState, RolloutProgress, Service, Status
from modelyard.control.deployments.steps import Event, Observed, Pace, Plan, Readiness
from modelyard.control.deployments.switch import drop, give_up, reject, switch
from modelyard.control.deployments.workers import (
    count_of,
    judge_workers,
    owner_prefix,
    ready_workers,
    replicas_of,
    wanted_of,
)
from modelyard.domain.rollout import Guard, Strategy
from modelyard.domain.service import MOVES, Phase, Trigger
from modelyard.ports.orchestrator import ReplicaState

ALL: Final = 100


def wants_canary(service: Service, revision: int) -> bool:
    """Whether `revision` takes the traffic by shares: another version than what answers, and nobody went back to it."""
    status = service.status
    if status.live is None or status.at_once == revision:
        return False
    old, new = service.spec(status.live), service.spec(revision)
    other = (old.model, old.version, old.digest) != (new.model, new.version, new.digest)
    return new.rollout.strategy is Strategy.CANARY and other


def begin(service: Service, revision: int, *, now: float) -> Plan:
    """The first share of a canary that is ready."""
    status, shares = service.status, service.spec(revision).rollout.shares
    reached = RolloutProgress(revision=revision, step=0, weight=shares[0], since=now)
    phase = MOVES[status.phase, Trigger.CANARY_BEGUN]
    text = f"revision {revision} has {shares[0]} % of the traffic"
    event = Event(action="service.rollout_begun", revision=revision, payload=_progress(service, reached))
    return Plan(status=replace(status, phase=phase, rollout=reached, awaiting=NEXT_TABLE, reason=text), events=(event,))


def advance(service: Service, *, now: float, pace: Pace, to_end: bool, reason: str) -> Plan:
    """The next share of the canary, or all of the traffic after the last one or with `to_end`."""
    status = service.status
    progress = status.rollout
    assert progress is not None
    shares = service.spec(progress.revision).rollout.shares
    following = progress.step + 1
    if to_end or following >= len(shares):
        event = Event(
            action="service.rollout_promoted",
            revision=progress.revision,
            payload={**_progress(service, replace(progress, weight=ALL)), "reason": reason},
        )
        return replace(switch(service, progress.revision, now=now, pace=pace), events=(event,))
    reached = replace(progress, step=following, weight=shares[following], since=now, reason=reason)
    text = f"revision {progress.revision} has {reached.weight} % of the traffic: {reason}"
    event = Event(
        action="service.rollout_advanced",
        revision=progress.revision,
        payload={**_progress(service, reached), "reason": reason},
    )
    return Plan(status=replace(status, rollout=reached, awaiting=NEXT_TABLE, reason=text), events=(event,))


def abort(service: Service, revision: int, why: str) -> Plan:
    """The candidate goes and its digest is rejected; what was live gets all of the traffic, with no model loaded."""
    status = service.status
    event = Event(
        action="service.rollout_aborted",
        revision=revision,
        payload={
            "reason": why,
            "live": status.live,
            "digest": service.spec(revision).digest,
            "weight": 0 if status.rollout is None else status.rollout.weight,
        },
    )
    back = f"; revision {status.live} answers"
    reason = f"revision {revision} was given up: {why}{back}"
    if must_return(service):
        undoing = reject(replace(status, returning=why), service, revision, why)
        return Plan(status=replace(undoing, reason=reason), events=(event,))
    over = reject(drop(service, revision, Trigger.ABORTED), service, revision, why)
    return Plan(
        status=replace(over, reason=reason),
        events=(event,),
        outcomes={revision: (RevisionState.FAILED, why)},
    )


def hold(service: Service, *, paused: bool, reason: str) -> Plan:
    """Stop the clock and the guard of a rollout, or let them go on."""
    progress = service.status.rollout
    assert progress is not None
    action = "service.rollout_paused" if paused else "service.rollout_resumed"
    held = replace(progress, paused=paused, reason=reason)
    event = Event(action=action, revision=progress.revision, payload={**_progress(service, held), "reason": reason})
    return Plan(status=replace(service.status, rollout=held), events=(event,))


def follow_canary(service: Service, readiness: Readiness, *, now: float, pace: Pace) -> Plan:
    """A canary with a share: it goes when it cannot answer any more, and moves by the clock where its spec says so."""
    status = service.status
    progress = status.rollout
    assert progress is not None
    if readiness.failed:
        return give_up(service, progress.revision, readiness.reason, payload={"weight": progress.weight})
    way = service.spec(progress.revision).rollout
    clocked = way.guard is Guard.OFF and way.step_s is not None and not progress.paused
    if not clocked or status.awaiting is not None or now < progress.since + (way.step_s or 0.0):
        return Plan(status=status)
    over = f"{way.step_s:g} s at {progress.weight} % are over"
    return advance(service, now=now, pace=pace, to_end=False, reason=over)


def must_return(service: Service) -> bool:
    """Whether workers were exchanged already, so that going back has to bring the old ones back first."""
    status = service.status
    return status.rollout is not None and status.phase is not Phase.CANARY


def exchange(service: Service, candidate: int, observed: Observed, *, now: float, pace: Pace) -> Plan:
    """One step of the exchange of workers of the live revision for those of `candidate`, or back."""
    status = service.status
    assert status.live is not None
    if status.returning:
        return _return(service, candidate, observed)
    unprepared = judge_preparation(candidate, observed)
    if unprepared is not None:
        return _failed(service, candidate, unprepared) if unprepared.failed else _waiting(service, unprepared.reason)
    if str(status.home(candidate)) not in status.counts and status.rollout is None:
        here = min(len(_at_home(service, candidate, observed)), wanted_of(service, candidate))
        return Plan(status=_with_count(_without_warm(status, candidate), candidate, here))
    workers = judge_workers(service, candidate, observed)
    if workers.failed:
        return _failed(service, candidate, workers)
    serving = _serving(service, candidate, observed)
    servers = judge_servers(service.spec(candidate), candidate, observed)
    if servers.failed:
        return _failed(service, candidate, servers)
    wanted = wanted_of(service, candidate)
    if serving >= wanted:
        return switch(service, candidate, now=now, pace=pace)
    moved = _shift(service, toward=candidate, away=status.live, serving=serving, observed=observed)
    if serving and (status.rollout is None or status.rollout.step != serving):
        old = len(moved.workers_of(status.live)) or 1
        reached = RolloutProgress(
            revision=candidate, step=serving, weight=round(ALL * serving / (serving + old)), since=now
        )
        moved = replace(moved, rollout=reached, since=now, awaiting=NEXT_TABLE)
    reason = f"{serving} of {wanted} workers of revision {candidate} answer"
    return Plan(status=replace(moved, reason=reason))


def _return(service: Service, candidate: int, observed: Observed) -> Plan:
    """Bring the live revision's workers back; then the candidate goes."""
    status = service.status
    assert status.live is not None
    serving, wanted = _serving(service, status.live, observed), wanted_of(service, status.live)
    if serving < wanted:
        moved = _shift(service, toward=status.live, away=candidate, serving=serving, observed=observed)
        return Plan(status=moved)
    if candidate not in status.failed:  # another revision was asked for meanwhile
        return Plan(status=drop(service, candidate, Trigger.SPEC_CHANGED))
    why = status.returning
    over = drop(service, candidate, Trigger.ABORTED)
    return Plan(status=replace(over, reason=status.reason), outcomes={candidate: (RevisionState.FAILED, why)})


def _failed(service: Service, candidate: int, readiness: Readiness) -> Plan:
    """A candidate that failed goes at once, or after what it replaced is back."""
    given_up = give_up(service, candidate, readiness.reason)
    if not must_return(service):
        return given_up
    status = reject(service.status, service, candidate, readiness.reason)
    return Plan(
        status=replace(status, returning=readiness.reason, reason=given_up.status.reason), events=given_up.events
    )


def give_up_candidate(service: Service, candidate: int, why: str) -> Plan:
    """Give a candidate up that is not ready in time, undoing what it replaced."""
    return _failed(service, candidate, Readiness(failed=True, reason=why))


def _waiting(service: Service, reason: str) -> Plan:
    return Plan(status=replace(service.status, reason=reason))


def _serving(service: Service, revision: int, observed: Observed) -> int:
    """Ready workers of a revision that servers can use; none while a server has not got its golden answer right."""
    servers = judge_servers(service.spec(revision), revision, observed)
    return ready_workers(service, revision, observed) if servers.ready else 0


def _shift(service: Service, *, toward: int, away: int, serving: int, observed: Observed) -> Status:
    """The numbers of workers on both sides that the bounds allow now."""
    status, way = service.status, service.spec(status_candidate(service)).rollout
    wanted = wanted_of(service, toward)
    old = _fewest_with(service, away, observed, ready=wanted - way.max_unavailable - serving)
    others = max(_elsewhere(service, toward, observed), count_of(service, away))
    room = min(wanted, wanted + way.max_surge - others)
    new = max(count_of(service, toward), room)
    return _with_count(_with_count(status, away, old), toward, new)


def status_candidate(service: Service) -> int:
    """The candidate, which there is."""
    assert service.status.candidate is not None
    return service.status.candidate


def _fewest_with(service: Service, revision: int, observed: Observed, *, ready: int) -> int:
    """The fewest workers of a revision, counted from the first, of which `ready` are ready; else all of them."""
    found = 0
    replicas = replicas_of(service, revision, observed)
    for count, replica in enumerate(replicas):
        if found >= ready:
            return count
        seen = observed.replicas.get(replica.id)
        found += seen is not None and seen.state is ReplicaState.READY
    return len(replicas)


def _at_home(service: Service, revision: int, observed: Observed) -> set[str]:
    """Workers of a revision's home that run, also those that are just ending."""
    prefix = f"{owner_prefix(service.project, service.name)}{service.status.home(revision)}."
    return {name for name in observed.replicas if name.startswith(prefix)}


def _elsewhere(service: Service, revision: int, observed: Observed) -> int:
    """Workers of the service, but for those of a revision's home and of shadows."""
    prefix = owner_prefix(service.project, service.name)
    names = {name for name in observed.replicas if name.startswith(prefix) and "-shadow." not in name}
    return len(names - _at_home(service, revision, observed))


def _without_warm(status: Status, candidate: int) -> Status:
    """Workers that are only kept warm give their place to those of the candidate."""
    cold = [each.revision for each in status.warm if status.home(each.revision) != status.home(candidate)]
    if not cold:
        return status
    return replace(
        status,
        warm=tuple(each for each in status.warm if each.revision not in cold),
        draining=tuple(dict.fromkeys((*status.draining, *cold))),
        awaiting=NEXT_TABLE,
    )


def _with_count(status: Status, revision: int, count: int) -> Status:
    return replace(status, counts={**status.counts, str(status.home(revision)): count})


def _progress(service: Service, progress: RolloutProgress) -> dict[str, object]:
    spec = service.spec(progress.revision)
    return {
        "step": progress.step,
        "weight": progress.weight,
        "live": service.status.live,
        "version": spec.version,
        "digest": spec.digest,
    }
