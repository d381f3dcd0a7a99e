"""A small writer of ONNX graphs, so that builders speak of layers and not of protobuf.

Opset 20 (`Gelu`) and `ai.onnx.ml` 5 (`TreeEnsemble`) with IR version 10: what onnxruntime ≥ 1.20 runs.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from onnx import helper, numpy_helper

from modelyard.domain.errors.uploads import FileTooLarge
from modelyard.domain.tensors import DataType
from modelyard.inspection.children.graph_edit import ML_DOMAIN, V2_TO_ONNX
from modelyard.version import __version__

if TYPE_CHECKING:
    import onnx

OPSET: Final = 20
ML_OPSET: Final = 5
IR_VERSION: Final = 10
BYTES_LIMIT: Final = 2_000_000_000  # a protobuf message ends at 2 GiB


class Graph:
    """A graph that grows node by node; value names made here hold a `#`, which no name of a bundle may hold."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._count = 0
        self._bytes = 0

    def input(self, name: str, datatype: DataType, shape: Sequence[int]) -> str:
        """A graph input; -1 in `shape` is variable, the first one is named "batch"."""
        self._inputs.append(_value_info(name, datatype, shape))
        return name

    def output(self, value: str, name: str, datatype: DataType, shape: Sequence[int]) -> None:
        """Publish `value` as the graph output `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(_value_info(name, datatype, shape))

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> str:
        """An initializer; `FileTooLarge` where all of them together pass protobuf's limit."""
        name = self._fresh("c")
        self._bytes += np.asarray(value).nbytes
        if self._bytes > BYTES_LIMIT:
            raise FileTooLarge(
                f"the weights take more than {BYTES_LIMIT >> 20} MiB in 32-bit floats",
                hint="export the model as ONNX with external data instead",
            )
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(np.asarray(value, dtype)), name))
        return name

    def scalar(self, value: float, dtype: npt.DTypeLike) -> str:
        """A constant of rank 0."""
        name = self._fresh("c")
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:  # noqa: ANN401
        """Append a node with one output; its attributes are ONNX's own."""
        name = self._fresh(operator.lower())
        self._nodes.append(helper.make_node(operator, list(inputs), [name], domain=domain, **attributes))
        return name

    def cast(self, value: str, datatype: DataType) -> str:
        """`value` as `datatype`."""
        return self.add("Cast", value, to=V2_TO_ONNX[datatype])

    def model(self, metadata: Mapping[str, str], *, ml_opset: int = ML_OPSET) -> "onnx.ModelProto":
        """The finished model; `metadata` becomes `metadata_props`."""
        graph = helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, self._constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(ML_DOMAIN, ml_opset)],
            ir_version=IR_VERSION,
            producer_name="modelyard",
            producer_version=__version__,
        )
        helper.set_model_props(model, dict(metadata))
        return model

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}#{self._count}"


def _value_info(name: str, datatype: DataType, shape: Sequence[int]) -> "onnx.ValueInfoProto":
    dims = [size if size >= 0 else ("batch" if axis == 0 else f"d{axis}") for axis, size in enumerate(shape)]
    return helper.make_tensor_value_info(name, V2_TO_ONNX[datatype], dims)
