"""What one can ask of services: create, change, roll back, take away, look. Asking writes a wish; the reconciler acts.

The wish, the routing table that follows at once, and the history entry are one transaction. Asking twice for the same
is asking once: a wish that equals the present one changes nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from modelyard.control.catalog import resolve
from modelyard.control.deployments import store
from modelyard.control.deployments.plan import choose_candidate
from modelyard.control.deployments.state import NEXT_TABLE, Revision, RevisionState, Status
from modelyard.control.deployments.store import Publish, Stored
from modelyard.control.history import append
from modelyard.control.identity import Principal, find_project, require
from modelyard.control.records import Database, Transaction
from modelyard.domain.access import Verb
from modelyard.domain.contract import Isolation
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict, InvalidRequest, NotSupported, PreconditionFailed
from modelyard.domain.names import DEFAULT_PROJECT, require_name
from modelyard.domain.routing import Batching, Limits, Resilience
from modelyard.domain.service import MOVES, Phase, Replicas, ServiceSpec, Trigger
from modelyard.foundation.documents import to_plain

MOST_REPLICAS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person asks for. Without `version` and `alias`: the champion, else the newest approved version."""

    name: str
    model: str
    project: str
    version: str | None = None
    alias: str | None = None
    target: str = "local"
    owner: str = ""
    replicas: Replicas | None = None
    isolation: Isolation | None = None
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)
    resilience: Resilience = field(default_factory=Resilience)
    why: str = ""
    retry: bool = False


class Deployments:
    """The services of a platform. `publish` makes the next routing table; `targets` are the orchestrators there are."""

    def __init__(self, database: Database, *, publish: Publish, packages: Path, targets: Collection[str]) -> None:
        self.database = database
        self.publish = publish
        self.packages = packages
        self._targets = tuple(targets)

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
        with self.database.begin() as tx:
            find_project(tx, wish.project)
            spec, how = self._spec(tx, wish)
            present = store.find_any(tx, wish.project, wish.name)
            _require_match(present, if_match)
            if present is None or present.service.status.phase is Phase.DELETED:
                self._create(tx, who, spec, why=wish.why or how)
            else:
                self._change(tx, who, present, spec, wish, why=wish.why or how)
            return store.find(tx, wish.project, wish.name), how

    def roll_back(self, who: Principal, project: str, name: str, *, to: int | None, why: str) -> Stored:
        """A new revision with the spec of an earlier one; without `to`, of the last that was live before."""
        require(who, Verb.DEPLOY, project=project, name=name)
        with self.database.begin() as tx:
            stored = store.find(tx, project, name)
            revision = self._earlier(tx, stored, to)
            old = revision.spec
            resolve(tx, project, old.model, version=old.version)  # still approved, or the reason why it is not
            text = f"back to revision {revision.number}" + (f": {why}" if why else "")
            self._revise(tx, who, stored, old, why=text, action="service.rolled_back")
            return store.find(tx, project, name)

    def delete(self, who: Principal, project: str, name: str, *, if_match: str | None = None) -> None:
        """Take the service away: its route goes at once, its workers when the last server has heard of it."""
        require(who, Verb.DEPLOY, project=project, name=name)
        with self.database.begin() as tx:
            stored = store.find(tx, project, name)
            _require_match(stored, if_match)
            status = stored.service.status
            if status.phase is Phase.DELETING:
                return
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

    def _spec(self, tx: Transaction, wish: Wish) -> tuple[ServiceSpec, str]:
        if wish.target not in self._targets:
            raise NotSupported(
                f"there is no target {quote(wish.target)} here", hint=f"targets: {', '.join(self._targets)}"
            )
        resolved = resolve(tx, wish.project, wish.model, version=wish.version, alias=wish.alias)
        version = resolved.version
        if not version.has_package:
            raise NotSupported(
                f"{version.model}:{version.version} has no form that can be served here",
                hint=f"modelyard show {version.model}:{version.version} tells why",
            )
        isolation = _isolation(wish, version.isolation)
        spec = ServiceSpec(
            name=wish.name,
            model=wish.model,
            version=version.version,
            digest=version.digest,
            project=wish.project,
            owner=wish.owner,
            target=wish.target,
            replicas=_replicas(wish, isolation),
            isolation=isolation,
            limits=wish.limits,
            batching=wish.batching,
            resilience=wish.resilience,
        )
        return spec, resolved.how

    def _create(self, tx: Transaction, who: Principal, spec: ServiceSpec, *, why: str) -> None:
        revision = store.add_revision(tx, spec, actor=who.name, why=why)
        status = Status(goal=revision.number, reason="it is being made ready")
        store.create(tx, spec.project, spec.name, status, publish=self.publish)
        _record(tx, who, spec, revision, action="service.created")

    def _change(
        self, tx: Transaction, who: Principal, present: Stored, spec: ServiceSpec, wish: Wish, *, why: str
    ) -> None:
        status = present.service.status
        if status.phase is Phase.DELETING:
            raise Conflict(f"{quote(spec.name)} is being taken away", hint="ask again in a moment, or use another name")
        if present.service.spec(status.goal) == spec and not (wish.retry and status.goal in status.failed):
            return
        if spec.digest in status.rejected and not wish.retry:
            raise Conflict(
                f"{spec.model}:{spec.version} did not become ready as {spec.name} before: {status.reason}",
                hint="deploy another version, or send retry: true when the cause is gone",
            )
        self._revise(tx, who, present, spec, why=why, action="service.changed")

    def _revise(
        self, tx: Transaction, who: Principal, present: Stored, spec: ServiceSpec, *, why: str, action: str
    ) -> None:
        service = present.service
        if service.status.phase is Phase.DELETING:
            raise Conflict(f"{quote(spec.name)} is being taken away", hint="ask again in a moment")
        revision = store.add_revision(tx, spec, actor=who.name, why=why)
        rejected = tuple(digest for digest in service.status.rejected if digest != spec.digest)
        wanted = replace(
            service,
            status=replace(service.status, goal=revision.number, rejected=rejected),
            revisions={**service.revisions, revision.number: revision},
        )
        chosen, superseded = choose_candidate(wanted, now=tx.now.timestamp())
        store.end_revisions(tx, chosen, superseded)
        store.save(tx, spec.project, spec.name, chosen.status, publish=self.publish)
        _record(tx, who, spec, revision, action=action)

    @staticmethod
    def _earlier(tx: Transaction, stored: Stored, to: int | None) -> Revision:
        project, name, status = stored.service.project, stored.service.name, stored.service.status
        if to is not None:
            return store.find_revision(tx, project, name, to)
        present = status.live if status.goal == status.live else None
        for revision in store.list_revisions(tx, project, name, before=None, limit=500):
            good = revision.live_at is not None and revision.state is not RevisionState.FAILED
            if good and revision.number != present:
                return revision
        raise Conflict(f"{quote(name)} has no earlier revision that was good", hint=f"modelyard revisions {name}")


def _isolation(wish: Wish, least: Isolation) -> Isolation:
    """Where it may run: what the model needs, and no process is shared by two projects."""
    needs = ""
    if least is Isolation.PROCESS:
        needs = "this model runs only in a process of its own"
    elif wish.project != DEFAULT_PROJECT:
        needs = f"models of the project {quote(wish.project)} share no process with those of others"
    if not needs:
        return wish.isolation or Isolation.SHARED
    if wish.isolation is Isolation.SHARED:
        raise InvalidRequest(needs, hint="leave isolation out, or ask for process")
    return Isolation.PROCESS


def _replicas(wish: Wish, isolation: Isolation) -> Replicas:
    replicas = wish.replicas or Replicas()
    if not 1 <= replicas.min <= replicas.max <= MOST_REPLICAS:
        raise InvalidRequest(
            f"{replicas.min} to {replicas.max} replicas are not possible", hint=f"1 to {MOST_REPLICAS}, min first"
        )
    if isolation is Isolation.SHARED and replicas.max > 1:
        raise InvalidRequest(
            "a shared service runs in every model server; replicas count isolated workers",
            hint="add --isolation process, or leave replicas out",
        )
    return replicas


def _require_match(present: Stored | None, if_match: str | None) -> None:
    if if_match is None or (if_match == "*" and present is not None):
        return
    if present is None or present.etag not in [tag.strip() for tag in if_match.split(",")]:
        raise PreconditionFailed("the service changed since it was read", hint="read it again, then decide")


def _record(tx: Transaction, who: Principal, spec: ServiceSpec, revision: Revision, *, action: str) -> None:
    append(
        tx,
        actor=who.actor,
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
