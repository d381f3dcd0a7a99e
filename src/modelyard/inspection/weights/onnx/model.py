"""The ModelProto: one graph, its opsets, its own functions, nothing else that runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import WeightsFormat, WeightsUnsafe
from modelyard.inspection.octets import Octets
from modelyard.inspection.policy import InspectionPolicy
from modelyard.inspection.weights.onnx.graph import Operator, Walk, node_operator, walk_function, walk_graph
from modelyard.inspection.weights.onnx.wire import BYTES, Field, content, fields

_HINT: Final = "export the model again with the library that made it"
_GRAPH, _TRAINING, _FUNCTION, _OPSET, _IR = 7, 20, 25, 8, 1
_MAX_IR: Final = 1000
_FUNCTIONS: Final = 10_000


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    """What was counted: nodes, tensors and their bytes, operators by name, files that hold external data."""

    nodes: int
    tensors: int
    tensor_bytes: int
    operators: tuple[str, ...]
    external: frozenset[str]


@dataclass(slots=True)
class _Function:
    name: Operator = (b"", b"")
    inputs: list[bytes] = field(default_factory=list)
    nodes: list[Field] = field(default_factory=list)
    calls: list[Operator] = field(default_factory=list)


def read_onnx(data: Octets, files: Mapping[str, int], policy: InspectionPolicy) -> OnnxFacts:
    """Walk the whole model; `files` are the bundle's files with their sizes, for external data.

    Raises:
        WeightsFormat: damaged, not in order, or larger than the limits.
        WeightsUnsafe: an operator outside the standard, or training graphs.
        PathUnsafe, BundleMismatch: external data that is not a sibling file of the bundle.
    """
    graphs, functions, has_opset = _top(data)
    if len(graphs) != 1:
        raise WeightsFormat("the file holds no ONNX graph" if not graphs else "the file holds two graphs", hint=_HINT)
    names = frozenset(function.name for function in functions)
    walk = Walk(data=data, files=files, policy=policy, functions=names)
    outputs = walk_graph(walk, graphs[0].value, graphs[0].end)
    for function in functions:
        walk_function(walk, function.nodes, function.inputs)
    _require_finite(functions, policy)
    if not outputs or not has_opset:
        raise WeightsFormat("the graph has no output, or the model names no operator set", hint=_HINT)
    shown = sorted({b".".join(filter(None, operator)).decode("utf-8", "replace") for operator in walk.operators})
    return OnnxFacts(walk.nodes, walk.tensors, walk.tensor_bytes, tuple(shown), frozenset(walk.external))


def _top(data: Octets) -> tuple[list[Field], list[_Function], bool]:
    graphs: list[Field] = []
    functions: list[_Function] = []
    has_opset = False
    for one in fields(data, 0, len(data)):
        if one.number == _TRAINING:
            raise WeightsUnsafe("the file holds training graphs, which serving does not need", hint=_HINT)
        if one.number in (_GRAPH, _FUNCTION, _OPSET) and one.wire != BYTES:
            raise WeightsFormat("a part of the ONNX file has the wrong type", hint=_HINT)
        if one.number == _GRAPH:
            graphs.append(one)
        elif one.number == _FUNCTION:
            functions.append(_function(data, one))
        has_opset = has_opset or one.number == _OPSET
        if (one.number == _IR and one.value > _MAX_IR) or len(functions) > _FUNCTIONS:
            raise WeightsFormat("the file is not an ONNX model of a known version", hint=_HINT)
    return graphs, functions, has_opset


def _function(data: Octets, span: Field) -> _Function:
    """A FunctionProto: name 1, input 4, node 7, domain 10."""
    found = _Function()
    name = domain = b""
    for one in fields(data, span.value, span.end):
        if one.number == 1:
            name = content(data, one)
        elif one.number == 4:  # noqa: PLR2004
            found.inputs.append(content(data, one))
        elif one.number == 7:  # noqa: PLR2004
            found.nodes.append(one)
            found.calls.append(node_operator(data, one))
        elif one.number == 10:  # noqa: PLR2004
            domain = content(data, one)
    found.name = (domain, name)
    return found


def _require_finite(functions: list[_Function], policy: InspectionPolicy) -> None:
    """Functions must not call themselves in any way, nor grow beyond the node limit when they are written out."""
    by_name = {function.name: function for function in functions}
    sizes: dict[Operator, int] = {}
    for start in by_name:
        stack: list[tuple[Operator, int]] = [(start, 0)]
        open_: set[Operator] = set()
        while stack:
            name, visited = stack.pop()
            if name in sizes:
                continue
            calls = [call for call in by_name[name].calls if call in by_name]
            if visited == 0:
                if name in open_:
                    raise WeightsFormat(
                        f"the function {quote(name[1].decode('utf-8', 'replace'))} calls itself", hint=_HINT
                    )
                open_.add(name)
                stack.append((name, 1))
                stack.extend((call, 0) for call in calls)
                continue
            if any(call not in sizes for call in calls):
                raise WeightsFormat("functions call each other in a circle", hint=_HINT)
            sizes[name] = len(by_name[name].calls) + sum(sizes[call] for call in calls)
            if sizes[name] > policy.onnx_nodes:
                raise WeightsFormat(f"functions write out to more than {policy.onnx_nodes} nodes", hint=_HINT)
