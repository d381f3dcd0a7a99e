"""Decide how a service gets from what runs to what is wanted.

Pure: no clock, no database, no orchestrator. A plan is the status as it shall be, the replicas to start and to stop,
and what history has to say of it. Planning the same state twice gives the same plan; a plan that was only half carried
out is made again from what is then seen.

A new revision is first a *candidate*: its workers are started, it stands in the routing table with weight 0, every live
server loads it and checks it with its golden request. Only when all of them report it ready does it take traffic: all
of it (`switch`), a share after a share, or worker by worker (`rollout`). A candidate that fails, or is not ready within
the patience, goes; the revision that was live before has answered all the time and stays.
"""

from dataclasses import replace

from modelyard.control.deployments.readiness import judge
from modelyard.control.deployments.rollout import (
    begin,
    exchange,
    follow_canary,
    give_up_candidate,
    must_return,
    wants_canary,
)
from modelyard.control.deployments.routing import is_canary, is_rolling
from modelyard.control.deployments.state import NEXT_TABLE, PreparationState, RevisionState, Service
from modelyard.control.deployments.steps import Event, Observed, Outcomes, Pace, Plan
from modelyard.control.deployments.switch import acknowledge, acknowledged, cool_down, switch
from modelyard.control.deployments.workers import (
    home_for,
    missing_workers,
    owner_prefix,
    refresh_addresses,
    stray_workers,
)
from modelyard.domain.service import MOVES, Phase, Trigger

_PACE = Pace()


def plan(service: Service, observed: Observed, *, now: float, pace: Pace = _PACE) -> Plan:
    """The next step of `service` towards its goal."""
    if service.status.phase is Phase.DELETED:
        return Plan(status=service.status, stop=stray_workers(service, observed, keep=()))
    if service.status.phase is Phase.DELETING:
        return _delete(service, observed, now=now, pace=pace)
    service, superseded = choose_candidate(service, now=now)
    service = replace(service, status=refresh_addresses(service, observed))
    made = _advance(service, observed, now=now, pace=pace)
    made = acknowledge(service, made, observed, now=now)
    status = cool_down(made.status, now=now)
    status = refresh_addresses(replace(service, status=status), observed)
    after = replace(service, status=status)
    return replace(
        made,
        status=status,
        start=missing_workers(after, observed),
        stop=stray_workers(after, observed, keep=status.kept) if status.awaiting is None else (),
        outcomes={**superseded, **made.outcomes},
    )


def choose_candidate(service: Service, *, now: float) -> tuple[Service, Outcomes]:
    """The service with its goal as candidate, and the candidate that this ends; nothing when that is so already.

    A candidate that has replaced workers is undone first.
    """
    status = service.status
    if status.goal in (status.live, status.candidate) or status.goal in status.failed or status.returning:
        return service, {}
    superseded: dict[int, tuple[RevisionState, str]] = {}
    draining = status.draining
    why = f"revision {status.goal} was asked for"
    if status.candidate is not None:
        superseded[status.candidate] = (RevisionState.SUPERSEDED, why)
        if must_return(service):
            return replace(service, status=replace(status, returning=why)), superseded
        draining = (*draining, status.candidate)
    trigger = Trigger.PLANNED if status.phase is Phase.PENDING else Trigger.SPEC_CHANGED
    home = home_for(service, status.goal)
    fresh = replace(
        status,
        phase=MOVES[status.phase, trigger],
        candidate=status.goal,
        since=now,
        rollout=None,
        homes=status.homes if home == status.goal else {**status.homes, str(status.goal): home},
        draining=draining,
        awaiting=NEXT_TABLE if draining != status.draining else status.awaiting,
        reason=f"revision {status.goal} is being made ready",
        unloaded=False,
    )
    return replace(service, status=fresh), superseded


def _advance(service: Service, observed: Observed, *, now: float, pace: Pace) -> Plan:
    status = service.status
    candidate = status.candidate
    if candidate is None or status.taking_over is not None:  # one switch at a time, so that each is written down
        return Plan(status=status)
    if is_rolling(service):
        made = exchange(service, candidate, observed, now=now, pace=pace)
        waits = made.status.candidate == candidate and not made.status.returning
        return _unless_late(service, made, observed, now=now, pace=pace) if waits else made
    readiness = judge(service, candidate, observed)
    if is_canary(service):
        return follow_canary(service, readiness, now=now, pace=pace)
    if readiness.ready:
        if wants_canary(service, candidate):
            return begin(service, candidate, now=now)
        return switch(service, candidate, now=now, pace=pace)
    if readiness.failed:
        return give_up_candidate(service, candidate, readiness.reason)
    made = Plan(status=replace(status, reason=readiness.reason))
    return _unless_late(service, made, observed, now=now, pace=pace)


def _unless_late(service: Service, made: Plan, observed: Observed, *, now: float, pace: Pace) -> Plan:
    """`made`, or the candidate's end when it had its time while there was a server that could have taken it."""
    status, candidate = made.status, service.status.candidate
    preparation = None if candidate is None else observed.preparations.get(candidate)
    began = max(status.since, observed.alive_since, 0.0 if preparation is None else preparation.at)
    building = preparation is not None and preparation.state is PreparationState.BUILDING
    if candidate is None or not observed.servers or building or now < began + pace.patience_s:
        return made
    return give_up_candidate(service, candidate, f"not ready after {pace.patience_s:g} s: {status.reason}")


def _delete(service: Service, observed: Observed, *, now: float, pace: Pace) -> Plan:
    status = service.status
    unheard = not observed.servers and now >= status.since + pace.patience_s
    if not (acknowledged(status.awaiting, observed) or unheard):
        return Plan(status=status)
    stop = stray_workers(service, observed, keep=())
    if stop or any(name.startswith(owner_prefix(service.project, service.name)) for name in observed.replicas):
        return Plan(status=status, stop=stop)
    over = replace(
        status,
        phase=MOVES[Phase.DELETING, Trigger.DRAINED],
        live=None,
        candidate=None,
        rollout=None,
        warm=(),
        draining=(),
        awaiting=None,
        workers={},
        homes={},
        counts={},
        reason="",
    )
    return Plan(status=over, events=(Event(action="service.gone", revision=status.goal),))
