"""Graphs of an ONNX file: order, names, operators, subgraphs, and outputs of a stated size.

Nodes must stand in an order in which each uses only what is there already (ONNX IR, "Graphs"), so there is no cycle;
each name is given once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import WeightsFormat, WeightsUnsafe
from modelyard.inspection.octets import Octets
from modelyard.inspection.policy import MIB, InspectionPolicy
from modelyard.inspection.weights.onnx.operators import SHAPE_ATTRIBUTE, SHAPE_INPUT, is_operator
from modelyard.inspection.weights.onnx.tensors import TensorFacts, read_tensor
from modelyard.inspection.weights.onnx.wire import BYTES, Field, content, fields, integers

_HINT: Final = "export the model again with the library that made it"
_NAMES_PER_NODE: Final = 65_536

Operator = tuple[bytes, bytes]


@dataclass(slots=True)
class Walk:
    """What one walk over a model shares: bounds, the bundle's files, and what was counted."""

    data: Octets
    files: Mapping[str, int]
    policy: InspectionPolicy
    functions: frozenset[Operator] = frozenset()
    nodes: int = 0
    tensors: int = 0
    tensor_bytes: int = 0
    operators: set[Operator] = field(default_factory=set)
    external: set[str] = field(default_factory=set)

    def tensor(self, span: Field) -> TensorFacts:
        """Read and count one tensor."""
        self.tensors += 1
        if self.tensors > self.policy.onnx_nodes:
            raise WeightsFormat(f"more than {self.policy.onnx_nodes} tensors", hint=_HINT)
        facts = read_tensor(self.data, span.value, span.end, self.files)
        self.tensor_bytes += facts.bytes
        if facts.external is not None:
            self.external.add(facts.external)
        return facts


@dataclass(slots=True)
class _Scope:
    """Names that are defined so far, here and around, and the small shapes among them."""

    around: "_Scope | None" = None
    names: set[bytes] = field(default_factory=set)
    numbers: dict[bytes, list[int]] = field(default_factory=dict)

    def knows(self, name: bytes) -> bool:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.names:
                return True
            scope = scope.around
        return False

    def shape(self, name: bytes) -> list[int] | None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.numbers.get(name)
            scope = scope.around
        return None

    def define(self, name: bytes, numbers: list[int] | None = None) -> None:
        if name in self.names:
            raise WeightsFormat(f"the name {_shown(name)} is given twice", hint=_HINT)
        self.names.add(name)
        if numbers is not None:
            self.numbers[name] = numbers


@dataclass(slots=True)
class _Node:
    inputs: list[bytes] = field(default_factory=list)
    outputs: list[bytes] = field(default_factory=list)
    operator: bytes = b""
    domain: bytes = b""
    attributes: list[Field] = field(default_factory=list)


def walk_graph(walk: Walk, start: int, end: int, *, depth: int = 0, around: "_Scope | None" = None) -> int:
    """Check the GraphProto in [start, end); how many outputs it has."""
    _require_depth(walk, depth)
    scope = _Scope(around)
    nodes: list[Field] = []
    outputs: list[bytes] = []
    inputs: set[bytes] = set()
    for one in fields(walk.data, start, end):
        if one.number == 1:
            _count_node(walk, one)
            nodes.append(one)
        elif one.number == 5:  # noqa: PLR2004  (GraphProto.initializer)
            facts = walk.tensor(one)
            scope.define(facts.name, facts.numbers)
        elif one.number == 15:  # noqa: PLR2004  (GraphProto.sparse_initializer)
            scope.define(_sparse(walk, one))
        elif one.number == 11:  # noqa: PLR2004  (GraphProto.input)
            inputs.add(_value_name(walk, one))
        elif one.number == 12:  # noqa: PLR2004  (GraphProto.output)
            outputs.append(_value_name(walk, one))
    scope.names |= inputs  # an initializer may give an input its default
    walk_nodes(walk, nodes, scope, depth)
    for name in outputs:
        if not scope.knows(name):
            raise WeightsFormat(f"the output {_shown(name)} is made by no node", hint=_HINT)
    return len(outputs)


def walk_function(walk: Walk, nodes: list[Field], inputs: list[bytes]) -> None:
    """Check the nodes of a FunctionProto, which see its inputs only."""
    scope = _Scope()
    scope.names.update(inputs)
    for one in nodes:
        _count_node(walk, one)
    walk_nodes(walk, nodes, scope, 1)


def walk_nodes(walk: Walk, nodes: list[Field], scope: _Scope, depth: int) -> None:
    """Check nodes in their order."""
    for span in nodes:
        node = _read_node(walk.data, span)
        operator = (node.domain, node.operator)
        if operator not in walk.functions and not is_operator(*operator):
            raise WeightsUnsafe(
                f"the operator {_shown(node.operator)} of {_shown(node.domain)} needs native code of its own",
                hint="export with operators of the ONNX standard only",
            )
        walk.operators.add(operator)
        for name in node.inputs:
            if name and not scope.knows(name):
                raise WeightsFormat(
                    f"node {_shown(node.operator)} uses {_shown(name)} before it is made, or in a circle", hint=_HINT
                )
        numbers = _walk_attributes(walk, node, scope, depth)
        _require_moderate(walk, node, scope, numbers)
        for name in node.outputs:
            if name:
                scope.define(name, numbers if node.operator == b"Constant" else None)


def node_operator(data: Octets, span: Field) -> Operator:
    """(domain, operator) of the NodeProto in `span`."""
    node = _read_node(data, span)
    return node.domain, node.operator


def _count_node(walk: Walk, span: Field) -> None:
    walk.nodes += 1
    if span.wire != BYTES or walk.nodes > walk.policy.onnx_nodes:
        raise WeightsFormat(f"more than {walk.policy.onnx_nodes} nodes, or a damaged one", hint=_HINT)


def _read_node(data: Octets, span: Field) -> _Node:
    node = _Node()
    for one in _fields_of(data, span):
        if one.number == 1:
            node.inputs.append(content(data, one))
        elif one.number == 2:  # noqa: PLR2004
            node.outputs.append(content(data, one))
        elif one.number == 4:  # noqa: PLR2004
            node.operator = content(data, one)
        elif one.number == 5:  # noqa: PLR2004
            node.attributes.append(one)
        elif one.number == 7:  # noqa: PLR2004
            node.domain = content(data, one)
        if len(node.inputs) + len(node.outputs) + len(node.attributes) > _NAMES_PER_NODE:
            raise WeightsFormat("a node has too many inputs, outputs or attributes", hint=_HINT)
    return node


def _fields_of(data: Octets, span: Field) -> Iterator[Field]:
    if span.wire != BYTES:
        raise WeightsFormat("a part of the ONNX file has the wrong type", hint=_HINT)
    return fields(data, span.value, span.end)


def _walk_attributes(walk: Walk, node: _Node, scope: _Scope, depth: int) -> list[int] | None:
    """Check graphs and tensors in attributes; the small numbers among them (a Constant's value, a shape)."""
    numbers: list[int] | None = None
    for span in node.attributes:
        name, values = b"", []
        for one in _fields_of(walk.data, span):
            if one.number == 1:
                name = content(walk.data, one)
            elif one.number in (6, 11):  # AttributeProto.g, .graphs
                _walk_subgraph(walk, one, scope, depth)
            elif one.number in (5, 10):  # .t, .tensors
                numbers = walk.tensor(one).numbers
            elif one.number in (22, 23):  # .sparse_tensor, .sparse_tensors
                _sparse(walk, one)
            elif one.number == 8 and one.end - one.value <= MIB and name in (b"shape", b"value_ints"):  # noqa: PLR2004
                values += integers(walk.data, one, limit=MIB)
        if values:
            numbers = values
    return numbers


def _walk_subgraph(walk: Walk, span: Field, scope: _Scope, depth: int) -> None:
    if span.wire != BYTES:
        raise WeightsFormat("a graph in an attribute has the wrong type", hint=_HINT)
    walk_graph(walk, span.value, span.end, depth=depth + 1, around=scope)


def _require_moderate(walk: Walk, node: _Node, scope: _Scope, numbers: list[int] | None) -> None:
    """A tensor whose size stands in the file must not be larger than any model needs."""
    shape = None
    if node.operator in SHAPE_INPUT and len(node.inputs) > SHAPE_INPUT[node.operator]:
        shape = scope.shape(node.inputs[SHAPE_INPUT[node.operator]])
    elif node.operator in SHAPE_ATTRIBUTE:
        shape = numbers
    if shape is not None and prod(max(size, 1) for size in shape) > walk.policy.element_count:
        raise WeightsFormat(
            f"node {_shown(node.operator)} makes a tensor of shape {shape[:8]}, "
            f"at most {walk.policy.element_count} elements are allowed",
            hint=_HINT,
        )


def _sparse(walk: Walk, span: Field) -> bytes:
    """The name of a SparseTensorProto, whose two tensors are checked."""
    name = b""
    for one in _fields_of(walk.data, span):
        if one.number in (1, 2):
            facts = walk.tensor(one)
            name = name or facts.name
    return name


def _value_name(walk: Walk, span: Field) -> bytes:
    """The name of a ValueInfoProto; its type is looked through for depth."""
    name = b""
    for one in _fields_of(walk.data, span):
        if one.number == 1:
            name = content(walk.data, one)
        elif one.number == 2:  # noqa: PLR2004
            _require_shallow(walk, one, 0)
    return name


def _require_shallow(walk: Walk, span: Field, depth: int) -> None:
    """TypeProto nests through sequences, maps and optionals; every message in it counts."""
    _require_depth(walk, depth)
    for one in _fields_of(walk.data, span):
        if one.number in (4, 5, 9) and one.wire == BYTES:
            for inner in fields(walk.data, one.value, one.end):
                if inner.wire == BYTES:
                    _require_shallow(walk, inner, depth + 2)


def _require_depth(walk: Walk, depth: int) -> None:
    if depth > walk.policy.protobuf_depth:
        raise WeightsFormat(f"graphs are nested deeper than {walk.policy.protobuf_depth}", hint=_HINT)


def _shown(name: bytes) -> str:
    return quote(name.decode("utf-8", "replace"))
