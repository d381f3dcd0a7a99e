"""A student as an ONNX graph, with the teacher's inputs and one output under the teacher's name."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.integrations.distilling.heads import Head, HeadKind
from modelyard.integrations.distilling.students import Body, Layers, Trees

if TYPE_CHECKING:
    import numpy as np

    from modelyard.inspection.children.builders.graph import Graph

    Array = np.ndarray[Any, Any]

_TREES_OPSET: Final = 3
"""The last version with the operator whose leaves hold several numbers."""
_LEAST_SUM: Final = 1e-9


def write(target: Path, body: Body, *, head: Head, inputs: Sequence[TensorSpec], temperature: float = 1.0) -> None:
    """Write the student; `temperature` is the one its answers were softened with, and is taken back."""
    import onnx

    from modelyard.inspection.children.builders.graph import Graph

    graph = Graph("student")
    rows = _joined(graph, inputs)
    raw = _layers(graph, rows, body) if isinstance(body, Layers) else _trees(graph, rows, body)
    graph.output(_finished(graph, raw, head, temperature), head.output.name, head.output.datatype, head.output.shape)
    made = graph.model({}, ml_opset=_TREES_OPSET)
    onnx.checker.check_model(made)
    onnx.save(made, str(target))


def _joined(graph: "Graph", inputs: Sequence[TensorSpec]) -> str:
    """All inputs side by side: FP32 [rows, numbers]."""
    import numpy as np

    parts = []
    for spec in inputs:
        name = graph.input(spec.name, spec.datatype, spec.shape)
        if spec.datatype is not DataType.FP32:
            name = graph.cast(name, DataType.FP32)
        if len(spec.shape) != 2:  # noqa: PLR2004  (rows and columns)
            width = int(np.prod(spec.shape[1:], dtype=int))
            name = graph.add("Reshape", name, graph.constant([-1, width], np.int64))
        parts.append(name)
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)


def _layers(graph: "Graph", rows: str, body: Layers) -> str:
    for place, (weight, bias) in enumerate(body.weights):
        if place:
            rows = graph.add("Relu", rows)
        rows = graph.add("Gemm", rows, graph.constant(weight, "f4"), graph.constant(bias, "f4"))
    return rows


def _trees(graph: "Graph", rows: str, body: Trees) -> str:
    return graph.add("TreeEnsembleRegressor", rows, domain="ai.onnx.ml", **_ensemble(body))


def _finished(graph: "Graph", raw: str, head: Head, temperature: float) -> str:
    """What is learned as the head gives it."""
    import numpy as np

    if head.kind is HeadKind.LABEL:
        return graph.add("ArgMax", raw, axis=1, keepdims=0)
    if head.kind is HeadKind.SHARES:
        shares = graph.add("Clip", raw, graph.scalar(_LEAST_SUM, "f4"), graph.scalar(1.0, "f4"))
        if temperature != 1:
            shares = graph.add("Pow", shares, graph.scalar(temperature, "f4"))
        total = graph.add("ReduceSum", shares, graph.constant([1], np.int64), keepdims=1)
        raw = graph.add("Div", shares, total)
    if len(head.output.shape) == 1:
        raw = graph.add("Reshape", raw, graph.constant([-1], np.int64))
    return raw if head.output.datatype is DataType.FP32 else graph.cast(raw, head.output.datatype)


def _ensemble(body: Trees) -> dict[str, Any]:
    """The attributes of the operator."""
    import numpy as np

    tables: dict[str, list[Array]] = {}

    def put(name: str, values: "Array") -> None:
        tables.setdefault(name, []).append(np.asarray(values))

    for number, tree in enumerate(body.trees):
        ids, is_leaf = np.arange(len(tree.left)), tree.left < 0
        put("nodes_treeids", np.full(len(ids), number))
        put("nodes_nodeids", ids)
        put("nodes_featureids", np.where(is_leaf, 0, tree.feature))
        put("nodes_values", np.where(is_leaf, 0.0, _rounded_down(tree.limit)))
        put("nodes_modes", np.where(is_leaf, "LEAF", "BRANCH_LEQ"))
        put("nodes_truenodeids", np.where(is_leaf, 0, tree.left))
        put("nodes_falsenodeids", np.where(is_leaf, 0, tree.right))
        leaves, width = ids[is_leaf], tree.value.shape[1]
        put("target_treeids", np.full(len(leaves) * width, number))
        put("target_nodeids", np.repeat(leaves, width))
        put("target_ids", np.tile(np.arange(width) + tree.output, len(leaves)))
        put("target_weights", tree.value[is_leaf].reshape(-1))
    whole = {name: np.concatenate(parts).tolist() for name, parts in tables.items()}
    return {**whole, "n_targets": len(body.base), "base_values": body.base.tolist(), "aggregate_function": "SUM"}


def _rounded_down(limits: "Array") -> "Array":
    """The largest 32-bit number that is not above: a 32-bit value is at most the one where it is at most the other."""
    import numpy as np

    near = limits.astype(np.float32)
    return np.where(near.astype(np.float64) > limits, np.nextafter(near, np.float32(-np.inf)), near)
