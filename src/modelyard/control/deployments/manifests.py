"""Manifests: one plan value says what applying them does; `plan`, `diff` and `apply` show it, `apply` also does it.

`spec.model` is the goal and `rollout` the way. What was asked for last is kept beside what is wanted now, so that the
same manifest applied again changes nothing after a promotion (the goal is what it says), after a rollback (somebody
turned away from it since) and after an automatic return (its digest is rejected). All documents of a call are one unit
of work: they are applied together or not at all.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from modelyard.control.deployments import store
from modelyard.control.deployments.answerers import require_same_dialect
from modelyard.control.deployments.graphs import require_graphs_hold
from modelyard.control.deployments.manifest_fields import Manifest, manifest_of, wish_of
from modelyard.control.deployments.manifest_reading import refusal
from modelyard.control.deployments.routing import is_canary
from modelyard.control.deployments.service import Deployments, standing_spec
from modelyard.control.deployments.state import Service
from modelyard.control.deployments.store import Stored
from modelyard.control.deployments.targets import notes_on
from modelyard.control.deployments.wishes import spec_of
from modelyard.control.identity import Principal, Reach, find_project, require
from modelyard.control.records import Transaction
from modelyard.domain.access import Verb
from modelyard.domain.errors import ModelyardError
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict, Forbidden, NotFound
from modelyard.domain.rollout import Strategy
from modelyard.domain.service import Phase, ServiceSpec
from modelyard.foundation.documents import to_json


class Action(StrEnum):
    """What applying one manifest does. `HELD`: nothing, for what it asks for was given up or rolled back before."""

    CREATE = "create"
    CHANGE = "change"
    UNCHANGED = "unchanged"
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """A field of the manifest, before and after; None where it is not there."""

    path: str
    before: Any = None
    after: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedService:
    """What applying does to one service, and why. `revision` is what was wanted when it was made.

    `notes` say what its fields mean where it runs, as far as they may be misunderstood.
    """

    project: str
    name: str
    action: Action
    reason: str
    version: str
    digest: str
    way: str = ""
    changes: tuple[FieldChange, ...] = ()
    revision: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestPlan:
    """What applying does. `fingerprint` stands for all of it, so that no other plan is applied than the one shown."""

    services: tuple[PlannedService, ...]
    fingerprint: str = field(default="")

    @property
    def has_changes(self) -> bool:
        """Whether applying would change anything."""
        return any(each.action in (Action.CREATE, Action.CHANGE) for each in self.services)


@dataclass(frozen=True, slots=True)
class _Step:
    """A planned service with what carrying it out needs."""

    planned: PlannedService
    spec: ServiceSpec
    present: Stored | None


class Manifests:
    """Plans and applies manifests, and writes those of present services."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments

    def plan(self, who: Principal, manifests: Sequence[Manifest], *, retry: bool = False) -> ManifestPlan:
        """What applying would do now.

        Raises:
            Forbidden: a service that the caller may not deploy.
            InvalidRequest: what cannot be, with the document and the path of the field.
        """
        with self._deployments.database.read() as tx:
            return _value(self._steps(tx, who, manifests, retry=retry))

    def apply(
        self, who: Principal, manifests: Sequence[Manifest], *, retry: bool = False, fingerprint: str | None = None
    ) -> ManifestPlan:
        """Do it, all or nothing; gives the plan that was carried out.

        Raises:
            Conflict: the plan is no longer that of `fingerprint`.
        """
        with self._deployments.changing() as tx:
            steps = self._steps(tx, who, manifests, retry=retry)
            made = _value(steps)
            if fingerprint is not None and fingerprint != made.fingerprint:
                raise Conflict("the plan has changed since it was shown", hint="look at the new plan, then apply it")
            for step in steps:
                self._carry_out(tx, who, step)
            return made

    def export(self, reach: Reach, project: str | None) -> list[dict[str, Any]]:
        """Manifests of all services that `reach` covers, as they stand: what `apply` reads."""
        with self._deployments.database.read() as tx:
            found = store.find_services(tx, reach=reach, project=project)
        return [manifest_of(standing_spec(stored.service)) for stored in found]

    def _steps(self, tx: Transaction, who: Principal, manifests: Sequence[Manifest], *, retry: bool) -> list[_Step]:
        steps: list[_Step] = []
        wrong: list[Mapping[str, Any]] = []
        for index, manifest in enumerate(manifests):
            require(who, Verb.DEPLOY, project=manifest.metadata.project, name=manifest.metadata.name)
            try:
                steps.append(self._step(tx, manifest, retry=retry))
            except Forbidden:
                raise
            except ModelyardError as error:
                wrong += _rows(index, error)
        wrong += _graph_problems(tx, steps) if not wrong else []
        if wrong:
            raise refusal(wrong)
        return steps

    def _step(self, tx: Transaction, manifest: Manifest, *, retry: bool) -> _Step:
        project, name = manifest.metadata.project, manifest.metadata.name
        try:
            find_project(tx, project)
        except NotFound as error:
            details = [{"field": "metadata.project", "expected": "a project that is there"}]
            raise NotFound(error.detail, hint=error.hint, details=details) from error
        spec, how = spec_of(tx, wish_of(manifest), present=None, targets=self._deployments.targets)
        present = store.find_any(tx, project, name)
        if present is None or present.service.status.phase is Phase.DELETED:
            planned = PlannedService(
                project=project,
                name=name,
                action=Action.CREATE,
                reason=f"there is no service of this name; {how}",
                version=spec.version,
                digest=spec.digest,
                changes=_differences(None, spec),
                notes=notes_on(spec),
            )
            return _Step(planned, spec, None)
        require_same_dialect(present.service.spec(present.service.status.goal), spec.upstream)
        planned = replace(_compare(present, spec, how, retry=retry), notes=notes_on(spec))
        return _Step(planned, spec, present)

    def _carry_out(self, tx: Transaction, who: Principal, step: _Step) -> None:
        why = f"manifest applied: {step.planned.reason}"
        match step.planned.action:
            case Action.CREATE:
                self._deployments.create(tx, who.actor, step.spec, why=why)
            case Action.CHANGE if step.present is not None:
                self._deployments.revise(tx, who.actor, step.present, step.spec, why=why, action="service.changed")
            case Action.UNCHANGED if step.present is not None and step.present.service.status.asked != step.spec:
                self._deployments.note_asked(tx, step.present, step.spec)
            case _:
                return


def _graph_problems(tx: Transaction, steps: Sequence[_Step]) -> list[Mapping[str, Any]]:
    """What is wrong with graphs, when all documents are taken together: one may ask what another brings."""
    wrong: list[Mapping[str, Any]] = []
    for index, step in enumerate(steps):
        together = {each.spec.name: each.spec for each in steps if each.spec.project == step.spec.project}
        try:
            require_graphs_hold(tx, step.spec.project, together, only=step.spec.name)
        except ModelyardError as error:
            wrong += _rows(index, error)
    return wrong


def _compare(present: Stored, spec: ServiceSpec, how: str, *, retry: bool) -> PlannedService:
    service, status = present.service, present.service.status
    goal, standing = service.spec(status.goal), standing_spec(service)
    if status.phase is Phase.DELETING:
        raise Conflict(f"{quote(service.name)} is being taken away", hint="ask again in a moment")
    asked = goal if status.asked is None else status.asked
    changes = _differences(standing, spec)
    action, reason = Action.CHANGE, how
    if retry and spec != standing:
        reason = f"{how}, tried again"
    elif spec.digest in status.rejected:
        action, reason = Action.HELD, _rejected(service, spec)
    elif spec == goal:
        action, reason, changes = Action.UNCHANGED, "it is as it should be", ()
    elif spec == asked:
        action = Action.HELD
        reason = f"revision {status.goal} was chosen since this was asked for; another manifest or --retry changes that"
    return PlannedService(
        project=service.project,
        name=service.name,
        action=action,
        reason=reason,
        version=spec.version,
        digest=spec.digest,
        way=_way(service, spec) if action is Action.CHANGE else "",
        changes=changes,
        revision=status.goal,
    )


def _rejected(service: Service, spec: ServiceSpec) -> str:
    why = service.status.rejections.get(spec.digest, "it did not become ready")
    return f"{spec.model}:{spec.version} is rejected here ({why}); name another version, or --retry lifts that"


def _way(service: Service, spec: ServiceSpec) -> str:
    """How traffic gets to the new revision, in words."""
    live = None if service.status.live is None else service.spec(service.status.live)
    if live is None or (live.version, live.digest) == (spec.version, spec.digest):
        return "at once when it is ready"
    if spec.rollout.strategy is Strategy.ROLLING:
        return "all of the traffic when it is ready"
    shares = ", ".join(map(str, spec.rollout.shares))
    ends = "; ends the canary that is on its way" if is_canary(service) else ""
    return f"a canary with {shares} % of the traffic, guard {spec.rollout.guard.value}{ends}"


def _differences(before: ServiceSpec | None, after: ServiceSpec) -> tuple[FieldChange, ...]:
    """Fields of the manifests that differ; an alias is shown with the version it points at."""
    old = {} if before is None else _flat(manifest_of(before), before)
    new = _flat(manifest_of(after), after)
    paths = dict.fromkeys((*old, *new))
    return tuple(
        FieldChange(path=path, before=old.get(path), after=new.get(path))
        for path in paths
        if old.get(path) != new.get(path)
    )


def _flat(manifest: Mapping[str, Any], spec: ServiceSpec) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:  # noqa: ANN401  (plain JSON)
        if isinstance(value, Mapping) and value:
            for name, item in value.items():
                walk(item, f"{path}.{name}" if path else name)
        else:
            found[path] = value

    walk({name: manifest[name] for name in ("metadata", "spec")}, "")
    if spec.alias is not None:
        found["spec.model"] = f"{found['spec.model']} (version {spec.version})"
    return found


def _rows(index: int, error: ModelyardError) -> list[Mapping[str, Any]]:
    """What is wrong with one document, with paths from its root."""
    found = [dict(each) for each in error.details if "field" in each] or [{"field": "", "expected": error.hint}]
    rows: list[Mapping[str, Any]] = []
    for row in found:
        path = str(row["field"])
        row["document"] = index
        row["field"] = path if path.startswith("metadata") else f"spec.{path}".rstrip(".")
        row["reason"] = error.detail
        row["expected"] = row.get("expected") or error.hint or "something else"
        rows.append(row)
    return rows


def _value(steps: Sequence[_Step]) -> ManifestPlan:
    made = ManifestPlan(services=tuple(step.planned for step in steps))
    return replace(made, fingerprint=hashlib.sha256(to_json(made)).hexdigest())
