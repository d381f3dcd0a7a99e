"""Graphs against what is there: every part known, no way back to itself, and tensors that fit from part to part.

The same check stands before a graph and before its parts: whoever changes or takes away a service that a graph asks
hears which graph that is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.control.catalog import find_model, find_version
from modelyard.control.deployments import store
from modelyard.control.deployments.answerers import is_relayed
from modelyard.control.records import Transaction
from modelyard.domain.composing import compose
from modelyard.domain.contract import ModelContract
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict, InvalidRequest, NotFound
from modelyard.domain.graph import Graph, Problem, Step
from modelyard.domain.service import ServiceSpec

Specs = Mapping[str, ServiceSpec]


@dataclass(frozen=True, slots=True)
class _Parts:
    """The services of a project as they are wanted, by name."""

    tx: Transaction
    project: str
    specs: Specs
    known: dict[str, ModelContract | None] = field(default_factory=dict)

    def contract_of(self, spec: ServiceSpec, above: tuple[str, ...] = ()) -> ModelContract | None:
        """What a service takes and gives; None where only its servers know."""
        if spec.name in self.known or spec.name in above:
            return self.known.get(spec.name)
        made = self._contract(spec, (*above, spec.name))
        self.known[spec.name] = made
        return made

    def of_step(self, spec: ServiceSpec, step: Step, above: tuple[str, ...] = ()) -> ModelContract | None:
        """What one leaf of `spec`'s graph takes and gives."""
        if step.service is not None:
            part = self.specs.get(step.service)
            return None if part is None else self.contract_of(part, above)
        part_of = {part.reference: part for part in spec.parts}
        found = part_of.get(step.model or "")
        return None if found is None else _of_version(self.tx, self.project, found.model, found.version)

    def _contract(self, spec: ServiceSpec, above: tuple[str, ...]) -> ModelContract | None:
        if spec.graph is not None:
            return compose(spec.graph, lambda step: self.of_step(spec, step, above)).contract
        upstream = spec.upstream
        if upstream is None:
            return _of_version(self.tx, spec.project, spec.model, spec.version)
        if not upstream.inputs:
            return None
        batched = all(one.shape[:1] == (-1,) for one in (*upstream.inputs, *upstream.outputs))
        return ModelContract(inputs=upstream.inputs, outputs=upstream.outputs, max_batch_size=1 if batched else 0)


def require_graphs_hold(tx: Transaction, project: str, wanted: Specs, *, only: str | None = None) -> None:
    """Refuse `wanted` services whose own graph does not hold, or that a present graph could no longer be made of.

    `only` looks at the graph of that name, and at those beyond `wanted` that ask it.

    Raises:
        InvalidRequest: a wanted graph has a part that is not there, a cycle, or tensors that do not fit.
        Conflict: another graph would no longer hold.
    """
    specs = {stored.service.name: stored.service.spec(stored.service.status.goal) for stored in _services(tx, project)}
    parts = _Parts(tx, project, {**specs, **wanted})
    for spec in parts.specs.values():
        looked = wanted.keys() if only is None else {only}
        if spec.graph is None or not (spec.name in looked or spec.graph.services & looked):
            continue
        if only is not None and spec.name != only and spec.name in wanted:
            continue  # looked at in its own turn
        problem = _problem(parts, spec, spec.graph)
        if problem is None:
            continue
        if spec.name in wanted:
            path = f"graph.{problem.path}"
            raise InvalidRequest(
                f"{path}: {problem.what}",
                hint=problem.expected,
                details=[{"field": path, "expected": problem.expected}],
            )
        raise Conflict(
            f"the graph {quote(spec.name)} would no longer hold: graph.{problem.path}: {problem.what}",
            hint="change that graph first, or let this service take and give what it does now",
            details=[{"field": "model", "expected": problem.expected}],
        )


def require_unused_by_graphs(tx: Transaction, project: str, name: str) -> None:
    """Refuse to take away a service that a graph asks.

    Raises:
        Conflict: names the graphs.
    """
    users = [
        stored.service.name
        for stored in _services(tx, project)
        if stored.service.name != name
        and any(
            revision.spec.graph is not None and name in revision.spec.graph.services
            for number, revision in stored.service.revisions.items()
            if number in (stored.service.status.goal, *stored.service.status.kept)
        )
    ]
    if users:
        raise Conflict(
            f"{quote(name)} is a part of the graph {', '.join(map(quote, users[:5]))}",
            hint="change or undeploy that first; what it was before stays loaded for a while",
        )


def contract_of_graph(tx: Transaction, spec: ServiceSpec) -> ModelContract | None:
    """What a service that is a graph takes and gives, by what is wanted of its parts now."""
    services = _services(tx, spec.project)
    specs = {stored.service.name: stored.service.spec(stored.service.status.goal) for stored in services}
    return _Parts(tx, spec.project, specs).contract_of(spec)


def _problem(parts: _Parts, spec: ServiceSpec, graph: Graph) -> Problem | None:
    for path, step in graph.leaves():
        if step.service is None:
            continue
        part = parts.specs.get(step.service)
        if part is None:
            known = ", ".join(sorted(set(parts.specs) - {spec.name})[:8]) or "none is deployed yet"
            return Problem(f"{path}.service", f"there is no service {quote(step.service)}", f"one of {known}")
        if is_relayed(part.upstream):
            return Problem(f"{path}.service", f"{quote(step.service)} takes no tensors", "a service that takes tensors")
        way = _way_back(parts.specs, step.service, to=spec.name)
        if way is not None:
            return Problem(
                f"{path}.service", f"it leads back: {' → '.join((spec.name, *way))}", "parts without a cycle"
            )
    made = compose(graph, lambda step: parts.of_step(spec, step, (spec.name,)))
    return made.problems[0] if made.problems else None


def _way_back(specs: Specs, start: str, *, to: str) -> tuple[str, ...] | None:
    """The services from `start` to `to`, one asking the next; None when there is no such way."""
    waiting: list[tuple[str, ...]] = [(start,)]
    seen: set[str] = set()
    while waiting:
        way = waiting.pop()
        if way[-1] == to:
            return way
        spec = specs.get(way[-1])
        if way[-1] in seen or spec is None or spec.graph is None:
            continue
        seen.add(way[-1])
        waiting += [(*way, name) for name in sorted(spec.graph.services)]
    return None


def _services(tx: Transaction, project: str) -> list[store.Stored]:
    return store.find_services(tx, project=project)


def _of_version(tx: Transaction, project: str, model: str, version: str) -> ModelContract | None:
    try:
        return find_version(tx, find_model(tx, project, model), version).contract
    except NotFound:
        return None
