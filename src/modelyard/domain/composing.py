"""What a graph takes and gives, from what its parts take and give; or where the two do not fit.

Pure, and the same for whoever plans a graph and whoever carries it out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from modelyard.domain.contract import ModelContract
from modelyard.domain.errors.base import quote
from modelyard.domain.graph import ROOT, Combine, Graph, Node, NodeKind, Problem, Step
from modelyard.domain.tensors import DataType, TensorSpec

ContractOf = Callable[[Step], ModelContract | None]
"""The contract of a leaf; None where it is not known yet."""
Specs = Mapping[str, TensorSpec]
_WIDER: Final[Mapping[DataType, frozenset[DataType]]] = {
    DataType.INT8: frozenset({DataType.INT16, DataType.INT32, DataType.INT64, DataType.FP32, DataType.FP64}),
    DataType.INT16: frozenset({DataType.INT32, DataType.INT64, DataType.FP32, DataType.FP64}),
    DataType.INT32: frozenset({DataType.INT64, DataType.FP64}),
    DataType.UINT8: frozenset(
        {DataType.UINT16, DataType.UINT32, DataType.UINT64, DataType.INT16, DataType.INT32, DataType.INT64}
        | {DataType.FP32, DataType.FP64}
    ),
    DataType.UINT16: frozenset({DataType.UINT32, DataType.UINT64, DataType.INT32, DataType.INT64, DataType.FP32}),
    DataType.UINT32: frozenset({DataType.UINT64, DataType.INT64, DataType.FP64}),
    DataType.FP16: frozenset({DataType.FP32, DataType.FP64}),
    DataType.FP32: frozenset({DataType.FP64}),
}
"""Conversions between parts that lose nothing."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a step or node gives: its outputs, and the labels of their classes where there are such."""

    specs: Specs
    labels: tuple[str, ...] = ()


@dataclass(slots=True)
class Composition:
    """`contract` is the whole's; None when a part's is not known, or something does not fit.

    `given` is what each ensemble's steps give, by the name of the node.
    """

    contract: ModelContract | None = None
    problems: list[Problem] = field(default_factory=list)
    given: Mapping[str, Sequence[Given]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Averaged:
    """Outputs of an ensemble: what is combined, and the label that follows from it: (label output, its source)."""

    names: tuple[str, ...]
    label: tuple[str, str] | None = None


class _Walk:
    """One pass through a graph: collects what the request has to bring, and what does not fit."""

    def __init__(self, graph: Graph, contract_of: ContractOf) -> None:
        self._graph = graph
        self._contract_of = contract_of
        self.asked: dict[str, TensorSpec] = {}
        self.problems: list[Problem] = []
        self.sizes: list[int] = []
        self.given: dict[str, Sequence[Given]] = {}

    def node(self, name: str, scope: Specs) -> Given | None:
        """What the node gives in `scope`; None when that cannot be said."""
        node, path = self._graph.nodes[name], f"nodes.{name}"
        if node.kind is NodeKind.SEQUENCE:
            return self._sequence(node, path, scope)
        given = [self._step(step, f"{path}.steps[{i}]", scope) for i, step in enumerate(node.steps)]
        known = [each for each in given if each is not None]
        if len(known) < len(given):
            return None
        self._conditions(node, path, scope)
        if node.kind is not NodeKind.ENSEMBLE:
            return self._alike(path, known)
        self.given[name] = known
        return self._ensemble(node, path, known)

    def _sequence(self, node: Node, path: str, scope: Specs) -> Given | None:
        here = dict(scope)
        given: Given | None = None
        for index, step in enumerate(node.steps):
            given = self._step(step, f"{path}.steps[{index}]", here)
            if given is None:
                return None
            here |= given.specs
        return given

    def _step(self, step: Step, path: str, scope: Specs) -> Given | None:
        if step.node is not None:
            inner = {**scope, **{name: scope[of] for name, of in step.inputs.items() if of in scope}}
            given = self.node(step.node, inner)
        else:
            contract = self._contract_of(step)
            if contract is None:
                return None
            self.sizes.append(contract.max_batch_size)
            self._take(contract, step, path, scope)
            given = Given({spec.name: spec for spec in contract.outputs}, contract.labels)
        return None if given is None else Given(self._renamed(given.specs, step, path), given.labels)

    def _take(self, contract: ModelContract, step: Step, path: str, scope: Specs) -> None:
        """Find every input of a leaf, in scope or in the request."""
        names = {spec.name for spec in contract.inputs}
        for name in step.inputs:
            if name not in names:
                self._note(f"{path}.inputs.{name}", "the part has no such input", f"one of {', '.join(sorted(names))}")
        for spec in contract.inputs:
            name = step.inputs.get(spec.name, spec.name)
            source = scope.get(name)
            if source is None:
                self._ask(name, spec, path)
            elif (why := misfit(source, spec)) is not None:
                self._note(f"{path}.inputs.{spec.name}", f"{quote(name)} does not fit: {why}", _shown(spec))

    def _ask(self, name: str, spec: TensorSpec, path: str) -> None:
        wanted = TensorSpec(
            name=name,
            datatype=spec.datatype,
            shape=spec.shape,
            categories=spec.categories,
            allows_nan=spec.allows_nan,
        )
        known = self.asked.get(name)
        if known is None:
            self.asked[name] = wanted
        elif known.datatype is not wanted.datatype or (why := _shape_misfit(known.shape, wanted.shape)) is not None:
            why = f"two parts take {quote(name)} as {_shown(known)} and as {_shown(wanted)}"
            self._note(f"{path}.inputs.{spec.name}", why, "the same for both, or another name for one of them")
        else:
            self.asked[name] = TensorSpec(
                name=name,
                datatype=known.datatype,
                shape=_narrower(known.shape, wanted.shape),
                categories=known.categories or wanted.categories,
                allows_nan=known.allows_nan and wanted.allows_nan,
            )

    def _renamed(self, specs: Specs, step: Step, path: str) -> dict[str, TensorSpec]:
        for name in step.outputs:
            if name not in specs:
                known = ", ".join(sorted(specs))
                self._note(f"{path}.outputs.{name}", "the part has no such output", f"one of {known}")
        named = [(step.outputs.get(name, name), spec) for name, spec in specs.items()]
        if len({name for name, _ in named}) < len(named):
            self._note(f"{path}.outputs", "two outputs get the same name", "a name of its own for each output")
        return {
            name: TensorSpec(name=name, datatype=spec.datatype, shape=spec.shape, allows_nan=True)
            for name, spec in named
        }

    def _conditions(self, node: Node, path: str, scope: Specs) -> None:
        for index, step in enumerate(node.steps):
            when = step.when
            if when is None or when.input is None:
                continue
            if when.input not in scope and when.input not in self.asked:
                known = ", ".join(sorted({*scope, *self.asked}))
                at = f"{path}.steps[{index}].when.input"
                self._note(at, f"there is no {quote(when.input)} here", f"one of {known}")

    def _ensemble(self, node: Node, path: str, given: Sequence[Given]) -> Given:
        if node.combine is Combine.MERGE:
            merged: dict[str, TensorSpec] = {}
            for each in given:
                for name, spec in each.specs.items():
                    if name in merged:
                        self._note(f"{path}.steps", f"two parts give {quote(name)}", "outputs that rename one of them")
                    merged[name] = spec
            return Given(merged)
        chosen = combined(node, given)
        if not chosen.names:
            self._note(f"{path}.combine", f"the parts share no output for {node.combine}", _COMBINABLE[node.combine])
        shared = {name: given[0].specs[name] for name in chosen.names}
        for name in chosen.names:
            for index, each in enumerate(given):
                if (why := _shape_misfit(shared[name].shape, each.specs[name].shape)) is not None:
                    self._note(f"{path}.steps[{index}]", f"its {quote(name)} differs: {why}", _shown(shared[name]))
        if chosen.label is not None:
            shared[chosen.label[0]] = given[0].specs[chosen.label[0]]
        labels = given[0].labels if all(each.labels == given[0].labels for each in given) else ()
        return Given(shared, labels)

    def _alike(self, path: str, given: Sequence[Given]) -> Given:
        """Steps of which one answers: what all of them give."""
        first = given[0]
        for index, each in enumerate(given):
            if {(n, s.datatype) for n, s in each.specs.items()} != {(n, s.datatype) for n, s in first.specs.items()}:
                what = f"it gives {_listed(each.specs)}, the first step {_listed(first.specs)}"
                self._note(f"{path}.steps[{index}]", what, "the same outputs for every step; outputs renames them")
        labels = first.labels if all(each.labels == first.labels for each in given) else ()
        return Given(first.specs, labels)

    def _note(self, path: str, what: str, expected: str) -> None:
        self.problems.append(Problem(path, what, expected))


_COMBINABLE: Final[Mapping[Combine, str]] = {
    Combine.AVERAGE: "an output of one name and a floating-point datatype in every part",
    Combine.WEIGHTED: "an output of one name and a floating-point datatype in every part",
    Combine.VOTE: "an output of one name with labels or whole numbers in every part",
    Combine.MAX: "an output of one name with numbers in every part",
}


def compose(graph: Graph, contract_of: ContractOf) -> Composition:
    """The contract of a graph whose form is sound (`graph.problems_of` finds nothing)."""
    walk = _Walk(graph, contract_of)
    given = walk.node(ROOT, {})
    if given is None or walk.problems:
        return Composition(problems=walk.problems)
    for node_path, node in ((f"nodes.{name}", node) for name, node in graph.nodes.items()):
        walk.problems += _late_conditions(node_path, node, walk.asked)
    size = 0 if 0 in walk.sizes else min(walk.sizes, default=1)
    contract = ModelContract(
        inputs=tuple(walk.asked.values()),
        outputs=tuple(given.specs.values()),
        labels=given.labels,
        max_batch_size=size,
    )
    return Composition(contract=None if walk.problems else contract, problems=walk.problems, given=walk.given)


def combined(node: Node, given: Sequence[Given]) -> Averaged:
    """Which outputs an ensemble combines, and the label it makes of the average, if it can."""
    first = given[0].specs
    shared = [n for n in first if all(n in g.specs and g.specs[n].datatype is first[n].datatype for g in given)]
    floats = tuple(name for name in shared if first[name].datatype.is_float)
    texts = [name for name in shared if first[name].datatype is DataType.BYTES]
    if node.combine is Combine.VOTE:
        return Averaged(tuple(name for name in shared if name not in floats))
    if node.combine is Combine.MAX:
        return Averaged(tuple(name for name in shared if name not in texts))
    labels = given[0].labels
    sources = [name for name in floats if labels and first[name].shape[-1:] == (len(labels),)]
    if len(texts) == 1 and len(sources) == 1 and all(each.labels == labels for each in given):
        return Averaged(floats, (texts[0], sources[0]))
    return Averaged(floats)


def misfit(source: TensorSpec, wanted: TensorSpec) -> str | None:
    """Why `source` cannot be given to an input that is `wanted`; None when it can."""
    if source.datatype is not wanted.datatype and wanted.datatype not in _WIDER.get(source.datatype, frozenset()):
        return f"it is {source.datatype}, the part takes {wanted.datatype}"
    return _shape_misfit(source.shape, wanted.shape)


def _late_conditions(path: str, node: Node, asked: Specs) -> Iterator[Problem]:
    """Elements that no row has."""
    for index, step in enumerate(node.steps):
        spec = None if step.when is None or step.when.input is None else asked.get(step.when.input)
        if spec is None or step.when is None or -1 in spec.shape[1:]:
            continue
        width = 1
        for size in spec.shape[1:]:
            width *= size
        if step.when.element >= width:
            at = f"{path}.steps[{index}].when.element"
            yield Problem(at, f"a row of {quote(spec.name)} has {width} values", f"0 to {width - 1}")


def _shape_misfit(one: Sequence[int], other: Sequence[int]) -> str | None:
    if len(one) != len(other):
        return f"the shapes {list(one)} and {list(other)} differ in rank"
    if any(a != b and -1 not in (a, b) for a, b in zip(one, other, strict=True)):
        return f"the shapes {list(one)} and {list(other)} do not fit"
    return None


def _narrower(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(b if a == -1 else a for a, b in zip(one, other, strict=True))


def _shown(spec: TensorSpec) -> str:
    return f"{spec.datatype} {list(spec.shape)}"


def _listed(specs: Specs) -> str:
    return ", ".join(f"{name} {spec.datatype}" for name, spec in sorted(specs.items()))
