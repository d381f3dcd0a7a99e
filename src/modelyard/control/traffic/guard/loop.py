"""Look at every canary again and again: take what the servers counted, decide, and carry that out where it is asked.

Level-triggered as the reconciler is: what is missed at one look is taken at the next. The evidence is written down
before anything is done with it; a decision names the revision and the step that it was made for, so one that comes too
late does nothing.
"""

import logging
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from modelyard.control.deployments import Decision as Move
from modelyard.control.deployments import Rollouts, Service, find_services, is_canary
from modelyard.control.history import append
from modelyard.control.identity import system_actor
from modelyard.control.nodes import Board
from modelyard.control.records import Database, Transaction
from modelyard.control.traffic.guard import keeping
from modelyard.control.traffic.guard.decision import Decision, Verdict, decide
from modelyard.control.traffic.guard.evidence import forget, take
from modelyard.control.traffic.guard.keeping import Canary, Kept
from modelyard.control.traffic.guard.policy import GuardPolicy
from modelyard.control.traffic.guard.reading import epochs_over, readings_of, split_of
from modelyard.domain.errors import ModelyardError
from modelyard.domain.errors.platform import Conflict, NotFound
from modelyard.domain.rollout import Guard, Rollout, Watched
from modelyard.foundation.settings import GuardSettings

_MARGINS: Final = {Watched.ERRORS: "error", Watched.LATENCY: "latency", Watched.PREDICTIONS: "prediction"}
_LOG: Final = logging.getLogger(__name__)
ACTOR: Final = system_actor("guard")
SAYS: Final = "service.guard_said"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A canary that has a share of the traffic now, and how it is to be guarded."""

    canary: Canary
    way: Rollout
    step: int
    weight: int
    acts: bool


class GuardLoop:
    """One thread for all canaries. `start` once; `stop` waits for the look that is under way."""

    def __init__(self, database: Database, board: Board, rollouts: Rollouts, settings: GuardSettings) -> None:
        self._database = database
        self._board = board
        self._rollouts = rollouts
        self._settings = settings
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present look. Idempotent."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Look at every canary once."""
        with self._database.read() as tx:
            watches = [watch for stored in find_services(tx) for watch in watch_of(stored.service)]
        for watch in watches:
            try:
                self._look_at(watch)
            except Exception:  # noqa: BLE001  (the loop: one canary's trouble is not another's)
                _LOG.exception("a canary of %s cannot be looked at", watch.canary.service)

    def policy(self, way: Rollout) -> GuardPolicy:
        """The terms of a rollout."""
        return policy_of(way, self._settings)

    def document(self, kept: Kept, service: Service) -> dict[str, Any]:
        """What is known of a canary, as the API shows it."""
        policy = (
            self.policy(service.spec(kept.canary.revision).rollout) if _knows(service, kept) else self.policy(Rollout())
        )
        watch = next(watch_of(service), None)
        is_now = watch is not None and watch.canary == kept.canary
        split = split_of(kept.canary, watch.weight) if is_now and watch is not None else ""
        decision = decide(kept.evidence, policy, step_requests=kept.evidence.by_split.get(split, 0))
        return {
            "revision": kept.canary.revision,
            "stable": kept.canary.stable,
            "open": is_now,
            "verdict": decision.verdict.value,
            "reasons": list(decision.reasons),
            **figures(kept, decision, policy),
        }

    def _run(self) -> None:
        while not self._stopped.wait(self._settings.look_s):
            try:
                with self._database.leading() as leads:
                    if leads:
                        self.look()
            except Exception:  # noqa: BLE001  (the loop: it outlives whatever one look meets)
                _LOG.exception("a look at the canaries failed; the next one tries again")

    def _look_at(self, watch: Watch) -> None:
        policy = self.policy(watch.way)
        reports = (*self._board.alive(), *self._board.silent())
        readings = readings_of(watch.canary, reports)
        with self._database.read() as tx:
            before = keeping.find(tx, watch.canary)
            now = tx.now.timestamp()
        evidence = take(before.evidence, readings, policy, now=now)
        is_new = evidence.seen != before.evidence.seen
        evidence = forget(evidence, epochs_over(evidence, readings))
        split = split_of(watch.canary, watch.weight)
        decision = decide(evidence, policy, step_requests=evidence.by_split.get(split, 0))
        kept = Kept(canary=watch.canary, evidence=evidence, verdict=decision.verdict)
        if is_new or kept.verdict is not before.verdict:
            self._write(watch, kept, decision, is_news=kept.verdict is not before.verdict)
        if watch.acts and decision.verdict is not Verdict.WAIT:
            self._act(watch, decision, figures(kept, decision, policy))

    def _write(self, watch: Watch, kept: Kept, decision: Decision, *, is_news: bool) -> None:
        """Keep what is known; where the guard does not act, history has what it says."""
        with self._database.begin() as tx:
            keeping.save(tx, kept)
            if is_news and not watch.acts and decision.verdict is not Verdict.WAIT:
                _say(tx, watch, decision, figures(kept, decision, self.policy(watch.way)))

    def _act(self, watch: Watch, decision: Decision, evidence: dict[str, Any]) -> None:
        canary = watch.canary
        move = Move(
            actor=ACTOR,
            reason=decision.text[:480],
            revision=canary.revision,
            step=watch.step,
            evidence=evidence,
        )
        try:
            match decision.verdict:
                case Verdict.ROLL_BACK:
                    self._rollouts.abort(canary.project, canary.service, move)
                case Verdict.ADVANCE:
                    self._rollouts.advance(canary.project, canary.service, move)
                case Verdict.WAIT:
                    pass
        except (Conflict, NotFound) as error:  # somebody moved it meanwhile
            _LOG.info("a decision of the guard came too late: %s", error)
        except ModelyardError as error:
            _LOG.warning("a decision of the guard cannot be carried out now: %s", error)


def policy_of(way: Rollout, settings: GuardSettings) -> GuardPolicy:
    """The terms of a rollout: the platform's, with the margins that it names itself."""
    terms = {name: value for name, value in asdict(settings).items() if name != "look_s"}
    own = {f"{_MARGINS[watched]}_margin": margin for watched, margin in way.margins.items()}
    return GuardPolicy(watch=way.watch, **(terms | own))


def watch_of(service: Service) -> Iterator[Watch]:
    """The canary of a service that is to be looked at now, if there is one."""
    status = service.status
    progress = status.rollout
    if not is_canary(service) or progress is None or status.live is None:
        return
    way = service.spec(progress.revision).rollout
    if way.guard is Guard.OFF:
        return
    canary = Canary(project=service.project, service=service.name, revision=progress.revision, stable=status.live)
    acts = way.guard is Guard.AUTO and not progress.paused
    yield Watch(canary=canary, way=way, step=progress.step, weight=progress.weight, acts=acts)


def figures(kept: Kept, decision: Decision, policy: GuardPolicy) -> dict[str, Any]:
    """The figures behind a decision, in plain JSON."""
    document: Any = keeping.plain(
        {
            "level": policy.level,
            "evidence": decision.evidence,
            "needed": decision.needed,
            "blocks": kept.evidence.blocks,
            "seconds": kept.evidence.looked_at - kept.evidence.began_at,
            "rows": list(decision.rows),
        }
    )
    return dict(document)


def _say(tx: Transaction, watch: Watch, decision: Decision, evidence: dict[str, Any]) -> None:
    canary = watch.canary
    append(
        tx,
        actor=ACTOR,
        action=SAYS,
        subject=f"service/{canary.service}",
        project=canary.project,
        payload={
            "service": canary.service,
            "project": canary.project,
            "revision": canary.revision,
            "verdict": decision.verdict.value,
            "reason": decision.text,
            "evidence": evidence,
        },
    )


def _knows(service: Service, kept: Kept) -> bool:
    return kept.canary.revision in service.revisions


__all__ = ["ACTOR", "GuardLoop", "Watch", "figures", "watch_of"]
