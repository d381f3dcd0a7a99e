"""Give a revision the traffic, and let go of what had it. Pure.

The switch is one table; it is over when the last server has acknowledged it. What was live stays *warm* for a while, so
that going back is another table and no load. A candidate that is given up goes; the live revision was never touched.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelyard.control.deployments.routing import is_canary, is_rolling
from modelyard.control.deployments.state import NEXT_TABLE, RevisionState, Service, Status, Warm
from modelyard.control.deployments.steps import Event, Observed, Pace, Plan
from modelyard.control.deployments.workers import count_of
from modelyard.domain.service import MOVES, Phase, ServiceSpec, Trigger


def switch(service: Service, revision: int, *, now: float, pace: Pace) -> Plan:
    """All traffic to `revision`, which is ready."""
    status = service.status
    warm, cold = _kept_warm(service, revision, now=now, pace=pace)
    counts = {home: count for home, count in status.counts.items() if home != str(status.home(revision))}
    old = status.live
    if old is not None and status.home(old) != status.home(revision):
        counts[str(status.home(old))] = _warm_workers(service, revision, old)
    phase = MOVES[status.phase, Trigger.PROMOTED] if status.phase is Phase.CANARY else status.phase
    return Plan(
        status=replace(
            status,
            phase=phase,
            live=revision,
            candidate=None,
            rollout=None,
            at_once=None,
            warm=warm,
            counts=counts,
            draining=tuple(dict.fromkeys((*status.draining, *cold))),
            awaiting=NEXT_TABLE,
            taking_over=revision,
            replaced=status.live,
            reason=f"revision {revision} is ready; the servers are taking it over",
        )
    )


def give_up(service: Service, revision: int, why: str, *, payload: Mapping[str, object] | None = None) -> Plan:
    """The candidate goes, for a reason; its digest is not tried again by itself."""
    status = service.status
    back = f"; revision {status.live} goes on answering" if status.live is not None else ""
    digest = service.spec(revision).digest
    event = Event(
        action="service.revision_failed",
        revision=revision,
        payload={"reason": why, "live": status.live, "digest": digest, **(payload or {})},
    )
    return Plan(
        status=replace(
            reject(drop(service, revision, Trigger.LOAD_FAILED), service, revision, why),
            reason=f"revision {revision} did not become ready: {why}{back}",
        ),
        events=(event,),
        outcomes={revision: (RevisionState.FAILED, why)},
    )


def drop(service: Service, revision: int, trigger: Trigger) -> Status:
    """The status without its candidate; the live revision has the number of workers that it is to have."""
    status = service.status
    over = {str(revision)} if status.live is None else {str(revision), str(status.home(status.live))}
    counts = {home: count for home, count in status.counts.items() if home not in over}
    return replace(
        status,
        phase=MOVES[status.phase, trigger],
        candidate=None,
        rollout=None,
        at_once=None,
        returning="",
        counts=counts,
        draining=tuple(dict.fromkeys((*status.draining, revision))),
        awaiting=NEXT_TABLE,
    )


def reject(status: Status, service: Service, revision: int, why: str) -> Status:
    """`revision` is not tried again, and neither is its digest, unless that is what answers now."""
    digest = service.spec(revision).digest
    failed = tuple(dict.fromkeys((*status.failed, revision)))
    if status.live is not None and service.spec(status.live).digest == digest:
        return replace(status, failed=failed)
    return replace(
        status,
        failed=failed,
        rejected=tuple(dict.fromkeys((*status.rejected, digest))),
        rejections={**status.rejections, digest: why},
    )


def acknowledge(service: Service, plan_: Plan, observed: Observed, *, now: float) -> Plan:
    """When every live server has the awaited table, what drained is over, and a switch is done."""
    status = plan_.status
    if not acknowledged(status.awaiting, observed):
        return plan_
    table, new, drained = status.awaiting, status.taking_over, status.draining
    status = _without(replace(status, awaiting=None, taking_over=None, replaced=None, draining=()), drained)
    if status.rollout is not None:
        status = replace(status, rollout=replace(status.rollout, since=now))
    servers = [report.server for report in observed.servers]
    if new is None:
        return _tell_split(service, replace(plan_, status=status), {"table": table, "servers": servers, "at": now})
    status = replace(status, told={})
    if status.candidate is None:
        status = replace(status, phase=MOVES[status.phase, Trigger.READY], reason="")
    ended = [number for number in (*drained, plan_.status.replaced) if number is not None and number != new]
    ended = [number for number in ended if number not in status.failed and not _is_over(service, number)]
    outcomes = dict.fromkeys(ended, (RevisionState.SUPERSEDED, f"revision {new} took over"))
    spec = service.spec(new)
    payload = {
        **_answers(spec),
        "table": table,
        "servers": servers,
        "at": now,
    }
    return replace(
        plan_,
        status=status,
        events=(*plan_.events, Event(action="service.revision_live", revision=new, payload=payload)),
        outcomes={**outcomes, **plan_.outcomes, new: (RevisionState.LIVE, "")},
    )


def _tell_split(service: Service, plan_: Plan, facts: Mapping[str, Any]) -> Plan:
    """Write down who has which share of the traffic, when that is not what history knows already."""
    status = plan_.status
    if status.live is None or status.phase is Phase.DELETING:
        return plan_
    shares = {status.live: 100}
    now = replace(service, status=status)
    if is_canary(now) and status.candidate is not None and status.rollout is not None:
        shares = {status.live: 100 - status.rollout.weight, status.candidate: status.rollout.weight}
    told = {str(number): weight for number, weight in shares.items()}
    if told == (dict(status.told) or {str(status.live): 100}):
        return plan_
    split = [
        {**_answers(service.spec(number)), "revision": number, "weight": weight} for number, weight in shares.items()
    ]
    event = Event(action="service.split", revision=status.live, payload={"split": split, **facts})
    return replace(plan_, status=replace(status, told=told), events=(*plan_.events, event))


def _answers(spec: ServiceSpec) -> dict[str, str]:
    return {"model": spec.model, "version": spec.version, "digest": spec.digest}


def acknowledged(awaiting: int | None, observed: Observed) -> bool:
    """Whether every live server has the table that is waited for."""
    if awaiting is None or awaiting == NEXT_TABLE or not observed.servers:
        return False
    return all(report.table_revision >= awaiting for report in observed.servers)


def cool_down(status: Status, *, now: float) -> Status:
    """Let go of revisions that were kept warm long enough, when no other step is under way."""
    over = tuple(each.revision for each in status.warm if now >= each.until)
    if not over or status.awaiting is not None:
        return status
    return replace(
        status,
        warm=tuple(each for each in status.warm if each.revision not in over),
        draining=tuple(dict.fromkeys((*status.draining, *over))),
        awaiting=NEXT_TABLE,
    )


def _kept_warm(service: Service, revision: int, *, now: float, pace: Pace) -> tuple[tuple[Warm, ...], tuple[int, ...]]:
    """What stays loaded after `revision` took over, newest first, and what does not.

    A revision that only lends its workers or its model to the new one need not be kept: they are the same.
    """
    status, runs = service.status, service.spec(revision).runs
    before = () if status.live is None else (Warm(revision=status.live, until=now + pace.warm_s),)
    others = [each for each in (*before, *status.warm) if each.revision != revision]
    useful = [each for each in others if service.spec(each.revision).runs != runs]
    warm = tuple(useful[: pace.warm_revisions] if pace.warm_s > 0 else ())
    return warm, tuple(each.revision for each in others if each not in warm)


def _is_over(service: Service, revision: int) -> bool:
    """Whether its end was written down when it lost the traffic; it was only kept warm since."""
    return service.revisions[revision].state is RevisionState.SUPERSEDED


def _warm_workers(service: Service, new: int, old: int) -> int:
    """How many workers of what was live stay: all, or as many as the surge allows where they go one by one."""
    count, rollout = count_of(service, old), service.spec(new).rollout
    one_by_one = is_rolling(service) and new == service.status.candidate
    return min(count, rollout.max_surge) if one_by_one else count


def _without(status: Status, revisions: tuple[int, ...]) -> Status:
    """The status without what it knew of the workers of revisions that are over."""
    gone = {str(number) for number in revisions}
    kept_homes = {str(status.home(number)) for number in status.kept}
    return replace(
        status,
        workers={name: each for name, each in status.workers.items() if name.partition(".")[0] not in gone},
        homes={name: home for name, home in status.homes.items() if name not in gone},
        counts={home: count for home, count in status.counts.items() if home in kept_homes},
    )
