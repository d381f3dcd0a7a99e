"""A student as an ONNX graph, with the teacher's inputs and one output under the teacher's name."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.integrations.distilling.heads import Head, HeadKind
from modelyard.integrations.distilling.students import Body, Layers, Trees

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_OPSETS: Final = (("", 21), ("ai.onnx.ml", 3))
_IR: Final = 10
_TREES_DOMAIN: Final = "ai.onnx.ml"
_LEAST_SUM: Final = 1e-9


def write(target: Path, body: Body, *, head: Head, inputs: Sequence[TensorSpec], temperature: float = 1.0) -> None:
    """Write the student; `temperature` is the one its answers were softened with, and is taken back."""
    import onnx
    from onnx import helper

    graph = _Graph()
    rows = graph.joined(inputs)
    raw = graph.layers(rows, body) if isinstance(body, Layers) else graph.trees(rows, body)
    graph.finish(raw, head, temperature)
    kinds = _kinds()
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "student",
            [helper.make_tensor_value_info(each.name, kinds[each.datatype], _dims(each)) for each in inputs],
            [helper.make_tensor_value_info(head.output.name, kinds[head.output.datatype], _dims(head.output))],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid(*each) for each in _OPSETS],
        ir_version=_IR,
    )
    onnx.checker.check_model(made)
    onnx.save(made, str(target))


class _Graph:
    """Nodes and constants as they come; every method gives the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, inputs: Sequence[str], *, result: str = "", **attributes: Any) -> str:  # noqa: ANN401
        from onnx import helper

        name = result or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=f"n{len(self.nodes)}", **attributes))
        return name

    def constant(self, values: Any, kind: str = "f4") -> str:  # noqa: ANN401
        import numpy as np
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=kind), name))
        return name

    def joined(self, inputs: Sequence[TensorSpec]) -> str:
        """All inputs side by side: FP32 [rows, numbers]."""
        import numpy as np
        from onnx import TensorProto

        parts = []
        for spec in inputs:
            name = spec.name
            if spec.datatype is not DataType.FP32:
                name = self._cast(name, TensorProto.FLOAT)
            if len(spec.shape) != 2:  # noqa: PLR2004  (rows and columns)
                width = int(np.prod(spec.shape[1:], dtype=int))
                name = self.add("Reshape", [name, self.constant([-1, width], "i8")])
            parts.append(name)
        return parts[0] if len(parts) == 1 else self.add("Concat", parts, axis=1)

    def layers(self, rows: str, body: Layers) -> str:
        for place, (weight, bias) in enumerate(body.weights):
            if place:
                rows = self.add("Relu", [rows])
            rows = self.add("Gemm", [rows, self.constant(weight), self.constant(bias)])
        return rows

    def trees(self, rows: str, body: Trees) -> str:
        return self.add("TreeEnsembleRegressor", [rows], domain=_TREES_DOMAIN, **_ensemble(body))

    def finish(self, raw: str, head: Head, temperature: float) -> None:
        from onnx import TensorProto

        out, kind = head.output.name, _kinds()[head.output.datatype]
        if head.kind is HeadKind.LABEL:
            self.add("ArgMax", [raw], result=out, axis=1, keepdims=0)
            return
        if head.kind is HeadKind.SHARES:
            shares = self.add("Clip", [raw, self.constant(_LEAST_SUM), self.constant(1.0)])
            if temperature != 1:
                shares = self.add("Pow", [shares, self.constant(temperature)])
            total = self.add("ReduceSum", [shares, self.constant([1], "i8")], keepdims=1)
            raw = self.add("Div", [shares, total])
        if len(head.output.shape) == 1:
            raw = self.add("Reshape", [raw, self.constant([-1], "i8")])
        if kind != TensorProto.FLOAT:
            raw = self._cast(raw, kind)
        self.add("Identity", [raw], result=out)

    def _cast(self, name: str, kind: int) -> str:
        from onnx import helper

        made = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node("Cast", [name], [made], name=f"n{len(self.nodes)}", to=kind))
        return made


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


def _dims(spec: TensorSpec) -> list[int | None]:
    return [None if size < 0 else size for size in spec.shape]


def _kinds() -> dict[DataType, int]:
    from onnx import TensorProto

    return {
        DataType.BOOL: TensorProto.BOOL,
        DataType.UINT8: TensorProto.UINT8,
        DataType.UINT16: TensorProto.UINT16,
        DataType.UINT32: TensorProto.UINT32,
        DataType.UINT64: TensorProto.UINT64,
        DataType.INT8: TensorProto.INT8,
        DataType.INT16: TensorProto.INT16,
        DataType.INT32: TensorProto.INT32,
        DataType.INT64: TensorProto.INT64,
        DataType.FP16: TensorProto.FLOAT16,
        DataType.FP32: TensorProto.FLOAT,
        DataType.FP64: TensorProto.DOUBLE,
    }
