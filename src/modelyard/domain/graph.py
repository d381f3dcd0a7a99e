"""Graphs: services that are made of others, as a sequence, an ensemble, a switch, or a splitter.

The four kinds and the words `nodes`, `root`, `steps` are those of KServe's InferenceGraph. Tensors flow by name: a step
takes each of its inputs from what the steps before it gave, else from the request; `inputs` says under which other
name, `outputs` under which other name what it gives goes on. A step is a service of the project, a version of the
library, or another node.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Final

from modelyard.domain.digests import PREFIX
from modelyard.domain.errors.base import quote

ROOT: Final = "root"
MOST_NODES: Final = 64
MOST_STEPS: Final = 64
ALL: Final = 100
"""What the weights of a splitter sum to, as in KServe."""
Scalar = bool | int | float | str


class NodeKind(StrEnum):
    """What a node does with its steps: one after the other, all at once, one by condition, one by share."""

    SEQUENCE = "Sequence"
    ENSEMBLE = "Ensemble"
    SWITCH = "Switch"
    SPLITTER = "Splitter"


class Combine(StrEnum):
    """How an ensemble's answers become one. `MERGE` keeps all outputs, which have different names."""

    AVERAGE = "average"
    WEIGHTED = "weighted"
    VOTE = "vote"
    MAX = "max"
    MERGE = "merge"


class Comparison(StrEnum):
    """How a value is compared."""

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LE = "le"
    GT = "gt"
    GE = "ge"
    IN = "in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """When a switch takes a step: row by row on an element of a tensor, or for the request on one of its parameters."""

    input: str | None = None
    element: int = 0
    parameter: str | None = None
    op: Comparison = Comparison.EQ
    value: Scalar | tuple[Scalar, ...] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Exactly one of `service`, `model` (NAME, NAME:VERSION or NAME@ALIAS) and `node` says what is asked."""

    name: str
    service: str | None = None
    model: str | None = None
    node: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    weight: int = 1
    when: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A step of a splitter is chosen by its weight; `sticky` is the request parameter whose value decides instead."""

    kind: NodeKind
    steps: tuple[Step, ...]
    combine: Combine = Combine.AVERAGE
    sticky: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Nodes by name; `root` is asked first."""

    nodes: Mapping[str, Node]

    def leaves(self) -> Iterator[tuple[str, Step]]:
        """Steps that ask a service or a model, with the path of each."""
        for name, node in self.nodes.items():
            for index, step in enumerate(node.steps):
                if step.node is None:
                    yield f"nodes.{name}.steps[{index}]", step

    @property
    def services(self) -> frozenset[str]:
        """The services that are asked."""
        return frozenset(step.service for _, step in self.leaves() if step.service is not None)

    @property
    def models(self) -> frozenset[str]:
        """The versions of the library that are asked, as they are named."""
        return frozenset(step.model for _, step in self.leaves() if step.model is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphPart:
    """A version of the library that a graph asks itself: what `reference` was resolved to."""

    reference: str
    model: str
    version: str
    digest: str
    package: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a graph: the field's path below `graph`, what is wrong, what would be right."""

    path: str
    what: str
    expected: str


def graph_digest(graph: Graph, parts: Collection[GraphPart]) -> str:
    """The digest that a revision of a graph has: of the graph, and of the versions that it asks itself."""
    digests = sorted((part.reference, part.digest) for part in parts)
    text = json.dumps([asdict(graph), digests], sort_keys=True, separators=(",", ":"))
    return PREFIX + hashlib.sha256(text.encode()).hexdigest()


def problems_of(graph: Graph) -> Iterator[Problem]:
    """What is wrong with the form of a graph, whatever its parts are."""
    if ROOT not in graph.nodes:
        yield Problem("nodes", "there is no node root", "the node that is asked first, by the name root")
    if not 1 <= len(graph.nodes) <= MOST_NODES:
        yield Problem("nodes", f"{len(graph.nodes)} nodes", f"1 to {MOST_NODES}")
    for name, node in graph.nodes.items():
        yield from _problems_of_node(graph, f"nodes.{name}", node)
    yield from _cycles(graph)
    reached = _reached(graph)
    for name in graph.nodes:
        if ROOT in graph.nodes and name not in reached:
            yield Problem(f"nodes.{name}", "no step leads to it", "a step with node: " + name)


def _problems_of_node(graph: Graph, path: str, node: Node) -> Iterator[Problem]:
    if not 1 <= len(node.steps) <= MOST_STEPS:
        yield Problem(f"{path}.steps", f"{len(node.steps)} steps", f"1 to {MOST_STEPS}")
        return
    seen: set[str] = set()
    for index, step in enumerate(node.steps):
        at = f"{path}.steps[{index}]"
        if sum(each is not None for each in (step.service, step.model, step.node)) != 1:
            yield Problem(at, "it does not say what is asked", "exactly one of service, model and node")
        elif step.node is not None and step.node not in graph.nodes:
            known = ", ".join(sorted(graph.nodes))
            yield Problem(f"{at}.node", f"there is no node {quote(step.node)}", f"one of {known}")
        if step.name in seen:
            yield Problem(f"{at}.name", f"two steps are named {quote(step.name)}", "a name of its own for each step")
        seen.add(step.name)
        if step.when is not None:
            yield from _problems_of_condition(f"{at}.when", node, step.when)
    yield from _problems_of_kind(path, node)


def _problems_of_condition(path: str, node: Node, when: Condition) -> Iterator[Problem]:
    if node.kind is not NodeKind.SWITCH:
        yield Problem(path, f"a {node.kind} has no conditions", "type: Switch, or no when")
    if (when.input is None) is (when.parameter is None):
        yield Problem(path, "it does not say what is compared", "one of input and parameter")
    if when.element < 0:
        yield Problem(f"{path}.element", f"{when.element} is no place in a row", "0 for the first value of a row")
    if (when.op is Comparison.IN) is not isinstance(when.value, tuple):
        yield Problem(f"{path}.value", f"{when.op} does not go with it", "a list for in, one value for all others")


def _problems_of_kind(path: str, node: Node) -> Iterator[Problem]:
    steps = node.steps
    match node.kind:
        case NodeKind.SWITCH:
            bare = [index for index, step in enumerate(steps) if step.when is None]
            if bare != [len(steps) - 1]:
                expected = "a last step without when, for all that no condition takes"
                yield Problem(f"{path}.steps", "the last step, and no other, is the default", expected)
        case NodeKind.SPLITTER:
            total = sum(step.weight for step in steps)
            if total != ALL or any(step.weight < 0 for step in steps):
                yield Problem(f"{path}.steps", f"the weights sum to {total}", f"whole weights that sum to {ALL}")
        case NodeKind.ENSEMBLE:
            for index, step in enumerate(steps):
                if step.weight < 1:
                    yield Problem(f"{path}.steps[{index}].weight", f"{step.weight} is no weight", "1 or more")
        case NodeKind.SEQUENCE:
            pass
    if node.sticky is not None and node.kind is not NodeKind.SPLITTER:
        yield Problem(f"{path}.sticky", f"a {node.kind} does not split", "type: Splitter, or no sticky")


def _cycles(graph: Graph) -> Iterator[Problem]:
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> Iterator[Problem]:
        if name in done or name not in graph.nodes:
            return
        for index, step in enumerate(graph.nodes[name].steps):
            if step.node is None:
                continue
            trail = (*above, name)
            if step.node in trail:
                way = " → ".join((*trail[trail.index(step.node) :], step.node))
                yield Problem(f"nodes.{name}.steps[{index}].node", f"it leads back: {way}", "nodes without a cycle")
            else:
                yield from visit(step.node, trail)
        done.add(name)

    for name in graph.nodes:
        yield from visit(name, ())


def _reached(graph: Graph) -> frozenset[str]:
    found: set[str] = set()
    waiting = [ROOT]
    while waiting:
        name = waiting.pop()
        if name in found or name not in graph.nodes:
            continue
        found.add(name)
        waiting += [step.node for step in graph.nodes[name].steps if step.node is not None]
    return frozenset(found)
