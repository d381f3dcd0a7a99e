"""What one can ask of services: create, change, roll back, take away, look. Asking writes a wish; the reconciler acts.

The wish, the routing table that follows at once, and the history entry are one transaction. Asking twice for the same
is asking once: a wish that equals the present one changes nothing. `step` is called with the name of each step of a
change (`STEPS`); fault tests end the process in it, everybody else passes a function that does nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from modelyard.control.deployments import store
from modelyard.control.deployments.graphs import require_graphs_hold, require_unused_by_graphs
from modelyard.control.deployments.plan import choose_candidate
from modelyard.control.deployments.rollout import abort
from modelyard.control.deployments.state import NEXT_TABLE, Revision, RevisionState, Service, Status
from modelyard.control.deployments.store import Publish, Stored
from modelyard.control.deployments.switch import reject
from modelyard.control.deployments.targets import Targets
from modelyard.control.deployments.wishes import Wish, require_still_servable, spec_of
from modelyard.control.history import append
from modelyard.control.identity import Actor, Principal, find_project, require
from modelyard.control.records import Database, Transaction
from modelyard.domain.access import Verb
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict, PreconditionFailed
from modelyard.domain.names import require_name
from modelyard.domain.service import MOVES, Phase, ServiceSpec, Trigger
from modelyard.foundation.documents import to_plain

Step = Callable[[str], None]
STEPS: Final = (
    "change.written",
    "change.committed",
    "reconcile.observed",
    "reconcile.planned",
    "reconcile.started",
    "reconcile.written",
    "reconcile.committed",
    "reconcile.stopped",
)
"""Every place between two of which the control plane may die: in and after a change, and in a pass over a service."""


def no_step(name: str) -> None:
    """Nothing happens at a failpoint."""


class Deployments:
    """The services of a platform. `publish` makes the next routing table; `targets` are the places there are."""

    def __init__(
        self, database: Database, *, publish: Publish, packages: Path, targets: Targets, step: Step = no_step
    ) -> None:
        self.database = database
        self.publish = publish
        self.packages = packages
        self.targets = targets
        self.step = step

    @contextmanager
    def changing(self) -> Iterator[Transaction]:
        """The unit of work of a change, with its failpoints."""
        with self.database.begin() as tx:
            yield tx
            self.step("change.written")
        self.step("change.committed")

    def apply(self, who: Principal, wish: Wish, *, if_match: str | None = None) -> tuple[Stored, str]:
        """Create the service or change it; gives it and how its version was chosen.

        Raises:
            NotFound, Forbidden: project, model, version or scope.
            InvalidRequest, NotSupported: a wish that cannot be fulfilled, with what can.
            Conflict: the version is not approved, or was rejected for this service before.
            PreconditionFailed: `if_match` is not the present etag.
        """
        require_name(wish.name, what="service name")
        require(who, Verb.DEPLOY, project=wish.project, name=wish.name)
        with self.changing() as tx:
            find_project(tx, wish.project)
            present = store.find_any(tx, wish.project, wish.name)
            _require_match(present, if_match)
            if present is None or present.service.status.phase is Phase.DELETED:
                spec, how = spec_of(tx, wish, present=None, targets=self.targets)
                require_graphs_hold(tx, wish.project, {spec.name: spec})
                self.create(tx, who.actor, spec, why=wish.why or how)
            else:
                kept = standing_spec(present.service)
                spec, how = spec_of(tx, wish, present=kept, targets=self.targets)
                require_graphs_hold(tx, wish.project, {spec.name: spec})
                self._change(tx, who.actor, present, spec, retry=wish.retry, why=wish.why or how)
            return store.find(tx, wish.project, wish.name), how

    def roll_back(self, who: Principal, project: str, name: str, *, to: int | None, why: str) -> Stored:
        """Back to an earlier revision: a new one with its spec. Without `to`, to the last that was good before.

        While another revision is only on its way, that is given up instead. What is left behind is rejected: no
        manifest brings it back by itself.
        """
        require(who, Verb.DEPLOY, project=project, name=name)
        with self.changing() as tx:
            stored = store.find(tx, project, name)
            service, status = stored.service, stored.service.status
            reason = f"rolled back by {who.name}" + (f": {why}" if why else "")
            if to is None and status.candidate is not None and status.live is not None and not status.returning:
                made = abort(service, status.candidate, reason)
                store.carry_out(tx, service, made, actor=who.actor, publish=self.publish)
                return store.find(tx, project, name)
            revision = self._earlier(tx, stored, to)
            old = revision.spec
            require_still_servable(tx, old)
            require_graphs_hold(tx, project, {name: old})
            text = f"back to revision {revision.number}" + (f": {why}" if why else "")
            left = status.goal if status.goal != revision.number else None
            self.revise(tx, who.actor, stored, old, why=text, action="service.rolled_back", left=left, reason=reason)
            return store.find(tx, project, name)

    def delete(self, who: Principal, project: str, name: str, *, if_match: str | None = None) -> None:
        """Take the service away: its route goes at once, its workers when the last server has heard of it."""
        require(who, Verb.DEPLOY, project=project, name=name)
        with self.changing() as tx:
            stored = store.find(tx, project, name)
            _require_match(stored, if_match)
            status = stored.service.status
            if status.phase is Phase.DELETING:
                return
            require_unused_by_graphs(tx, project, name)
            gone = replace(
                status,
                phase=MOVES[status.phase, Trigger.DELETE_ASKED],
                awaiting=NEXT_TABLE,
                taking_over=None,
                since=tx.now.timestamp(),
                reason="it is being taken away",
            )
            store.save(tx, project, name, gone, publish=self.publish)
            append(
                tx,
                actor=who.actor,
                action="service.delete_asked",
                subject=f"service/{name}",
                project=project,
                payload={"service": name, "project": project, "live": status.live},
            )

    def find(self, who: Principal, project: str, name: str) -> Stored:
        """One service; `NotFound` also for what the caller may not see."""
        with self.database.read() as tx:
            require(who, Verb.READ, project=project, name=name, what=f"service {quote(name)}")
            return store.find(tx, project, name)

    def create(self, tx: Transaction, actor: Actor, spec: ServiceSpec, *, why: str) -> None:
        """A service with its first revision."""
        revision = store.add_revision(tx, spec, actor=actor.name, why=why)
        status = Status(goal=revision.number, reason="it is being made ready", asked=spec)
        store.create(tx, spec.project, spec.name, status, publish=self.publish)
        _record(tx, actor, spec, revision, action="service.created")

    def _change(
        self, tx: Transaction, actor: Actor, present: Stored, spec: ServiceSpec, *, retry: bool, why: str
    ) -> None:
        status = present.service.status
        require_standing(present.service)
        again = retry and status.goal in status.failed
        if present.service.spec(status.goal) == spec and not again:
            self.note_asked(tx, present, spec)
            return
        require_not_rejected(present.service, spec, retry=retry)
        self.revise(tx, actor, present, spec, why=why, action="service.changed")

    def revise(  # noqa: PLR0913  (a change, by whom, why, and what it leaves behind)
        self,
        tx: Transaction,
        actor: Actor,
        present: Stored,
        spec: ServiceSpec,
        *,
        why: str,
        action: str,
        left: int | None = None,
        reason: str = "",
    ) -> Revision:
        """The next revision of a service, in the caller's unit of work.

        With `left`, it is a way back: that revision is rejected for `reason`, and traffic moves at once.
        """
        service = present.service
        require_standing(service)
        revision = store.add_revision(tx, spec, actor=actor.name, why=why)
        status = service.status
        if left is not None and service.spec(left).digest != spec.digest:
            status = _leave(service, left, reason)
        rejected = tuple(digest for digest in status.rejected if digest != spec.digest)
        wanted = replace(
            service,
            status=replace(
                status,
                goal=revision.number,
                rejected=rejected,
                rejections={digest: text for digest, text in status.rejections.items() if digest in rejected},
                at_once=revision.number if action == "service.rolled_back" else None,
                asked=status.asked if action == "service.rolled_back" else spec,
            ),
            revisions={**service.revisions, revision.number: revision},
        )
        chosen, superseded = choose_candidate(wanted, now=tx.now.timestamp())
        store.end_revisions(tx, chosen, superseded)
        store.save(tx, spec.project, spec.name, chosen.status, publish=self.publish)
        _record(tx, actor, spec, revision, action=action)
        return revision

    def note_asked(self, tx: Transaction, present: Stored, spec: ServiceSpec) -> None:
        """Remember that this was asked for last: it is so already, for somebody had chosen otherwise before."""
        status = present.service.status
        if status.asked not in (None, spec):
            store.save(tx, spec.project, spec.name, replace(status, asked=spec), publish=self.publish)

    @staticmethod
    def _earlier(tx: Transaction, stored: Stored, to: int | None) -> Revision:
        project, name, status = stored.service.project, stored.service.name, stored.service.status
        if to is not None:
            return store.find_revision(tx, project, name, to)
        present = stored.service.spec(status.live if status.live is not None else status.goal)
        for revision in store.list_revisions(tx, project, name, before=None, limit=500):
            good = revision.live_at is not None and revision.state is not RevisionState.FAILED
            other = status.goal in status.failed or revision.spec != present
            if good and other and revision.spec.digest not in status.rejected:
                return revision
        raise Conflict(f"{quote(name)} has no earlier revision that was good", hint=f"modelyard revisions {name}")


def standing_spec(service: Service) -> ServiceSpec:
    """What stays where a wish says nothing: the wish before, unless that was given up and another revision answers."""
    status = service.status
    given_up = status.goal in status.failed and status.live is not None
    return service.spec(status.live if given_up and status.live is not None else status.goal)


def require_standing(service: Service) -> None:
    """Refuse to change a service that is being taken away."""
    if service.status.phase is Phase.DELETING:
        raise Conflict(f"{quote(service.name)} is being taken away", hint="ask again in a moment, or use another name")


def require_not_rejected(service: Service, spec: ServiceSpec, *, retry: bool) -> None:
    """Refuse a digest that was given up or rolled back for this service, unless it is to be tried again."""
    status = service.status
    if spec.digest in status.rejected and not retry:
        why = status.rejections.get(spec.digest, status.reason)
        raise Conflict(
            f"{spec.model}:{spec.version} is rejected for {spec.name}: {why}",
            hint="deploy another version, or send retry: true (--retry) when the cause is gone",
        )


def _leave(service: Service, revision: int, reason: str) -> Status:
    """The status after somebody turned away from `revision`: its digest is rejected, it itself has not failed."""
    status = service.status
    without_live = replace(service, status=replace(status, live=None))
    rejected = reject(without_live.status, without_live, revision, reason)
    return replace(status, rejected=rejected.rejected, rejections=rejected.rejections)


def _require_match(present: Stored | None, if_match: str | None) -> None:
    if if_match is None or (if_match == "*" and present is not None):
        return
    if present is None or present.etag not in [tag.strip() for tag in if_match.split(",")]:
        raise PreconditionFailed("the service changed since it was read", hint="read it again, then decide")


def _record(tx: Transaction, actor: Actor, spec: ServiceSpec, revision: Revision, *, action: str) -> None:
    append(
        tx,
        actor=actor,
        action=action,
        subject=f"service/{spec.name}",
        project=spec.project,
        payload={
            "service": spec.name,
            "project": spec.project,
            "revision": revision.number,
            "why": revision.why,
            "spec": to_plain(spec),
        },
    )
