"""Move a rollout: on, to its end, or back. Each move is one unit of work with its history entry and its evidence.

People call this through the API, the guard from `traffic` with what it measured. A move names the revision, and the
step, that it was decided for: a decision about what is no longer so is refused and changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modelyard.control.deployments import store
from modelyard.control.deployments.rollout import abort, advance, hold
from modelyard.control.deployments.routing import is_canary
from modelyard.control.deployments.service import Deployments, require_standing
from modelyard.control.deployments.state import Service
from modelyard.control.deployments.steps import Pace, Plan
from modelyard.control.deployments.store import Stored
from modelyard.control.identity import Actor
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Who decides about a rollout, why, and on what evidence (plain JSON, kept in history).

    `revision` and `step` are those it was decided for; None means whatever there is.
    """

    actor: Actor
    reason: str
    revision: int | None = None
    step: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


class Rollouts:
    """The rollouts of all services. Raises `NotFound` for a service, `Conflict` for a move that does not fit."""

    def __init__(self, deployments: Deployments, *, pace: Pace) -> None:
        self._deployments = deployments
        self._pace = pace

    def advance(self, project: str, name: str, decision: Decision) -> Stored:
        """To the next share, or all of the traffic after the last."""
        return self._move(project, name, decision, lambda service, now: self._on(service, now, decision))

    def promote(self, project: str, name: str, decision: Decision) -> Stored:
        """All of the traffic, whatever the step."""
        return self._move(project, name, decision, lambda service, now: self._on(service, now, decision, to_end=True))

    def abort(self, project: str, name: str, decision: Decision) -> Stored:
        """Back to what was live; the digest of the candidate is rejected until a person lifts it."""

        def decide(service: Service, now: float) -> Plan:
            del now
            status = service.status
            if status.candidate is None or status.live is None or status.returning:
                raise Conflict(
                    f"{quote(name)} has nothing on its way that could be given up",
                    hint=f"modelyard rollback {name} goes back to an earlier revision",
                )
            return abort(service, status.candidate, decision.reason)

        return self._move(project, name, decision, decide)

    def hold(self, project: str, name: str, decision: Decision, *, paused: bool) -> Stored:
        """Let only people move it from now on, or let clock and guard move it again."""

        def decide(service: Service, now: float) -> Plan:
            del now
            _require_canary(service)
            return hold(service, paused=paused, reason=decision.reason)

        return self._move(project, name, decision, decide)

    def _on(self, service: Service, now: float, decision: Decision, *, to_end: bool = False) -> Plan:
        _require_canary(service)
        return advance(service, now=now, pace=self._pace, to_end=to_end, reason=decision.reason)

    def _move(self, project: str, name: str, decision: Decision, decide: Callable[[Service, float], Plan]) -> Stored:
        with self._deployments.changing() as tx:
            stored = store.find(tx, project, name)
            service = stored.service
            require_standing(service)
            _require_same(service, decision)
            made = decide(service, tx.now.timestamp())
            events = tuple(
                replace(event, payload={**event.payload, "evidence": dict(decision.evidence)}) for event in made.events
            )
            made = replace(made, events=events)
            store.carry_out(tx, service, made, actor=decision.actor, publish=self._deployments.publish)
            return store.find(tx, project, name)


def _require_canary(service: Service) -> None:
    if not is_canary(service):
        raise Conflict(
            f"no canary of {quote(service.name)} has a share of the traffic now",
            hint=f"modelyard rollout status {service.name} tells what is on its way",
        )


def _require_same(service: Service, decision: Decision) -> None:
    status, progress = service.status, service.status.rollout
    revision = status.candidate if decision.revision is None else decision.revision
    step = None if progress is None or decision.step is None else progress.step
    if revision != status.candidate or step != decision.step:
        raise Conflict(
            "the rollout is no longer where it was when this was decided",
            hint=f"modelyard rollout status {service.name}",
        )
