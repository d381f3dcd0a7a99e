"""A network in ONNX as a PyTorch function of its weights, so that it can be taught and written back into its graph.

Only what leads to one output is run: rows go in, the output comes out, and gradients reach every weight. The graph
stays as it is; `write` exchanges the numbers of its initialisers, and their shapes where units were taken out.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.errors.platform import MissingExtra, NotSupported

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

WEIGHTED: Final = frozenset({"MatMul", "Gemm", "Conv"})
BENT: Final = frozenset({"Relu", "Tanh", "Sigmoid", "LeakyRelu", "Elu", "Gelu", "HardSigmoid", "Clip"})
"""Operators between layers, element by element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A weighted node: the names of its weight and bias, and which axis of the weight its units lie on."""

    node: str
    weight: str
    bias: str | None
    unit_axis: int


class Network:
    """See the module. `weights` holds every initialiser by name, as NumPy arrays.

    Raises:
        NotSupported: something on the way to the output is not known here, or nothing on it has weights.
    """

    def __init__(self, path: Path, output: str) -> None:
        import onnx
        from onnx import numpy_helper

        self._model = onnx.load(str(path))
        self.output = output
        self.weights: dict[str, Array] = {
            each.name: numpy_helper.to_array(each).copy() for each in self._model.graph.initializer
        }
        self._inputs = [each.name for each in self._model.graph.input if each.name not in self.weights]
        self.nodes = self._leading_to(output)
        unknown = sorted({node.op_type for node in self.nodes} - _OPERATORS.keys())
        if unknown:
            raise NotSupported(
                f"networks with {', '.join(unknown)} are not taught here",
                hint=f"known: {', '.join(sorted(_OPERATORS))}",
            )
        self.layers = list(self._find_layers())
        if not self.layers:
            raise NotSupported(
                "this model has no layers with weights", hint="it is for networks; trees and distil are for others"
            )

    def run(self, inputs: Mapping[str, Any], weights: Mapping[str, Any], *, dropout: float = 0.0) -> Any:  # noqa: ANN401  (a tensor)
        """The output for rows, as a tensor; `dropout` blanks that part of what lies between layers."""
        import torch

        values: dict[str, Any] = {**self._constants(), **weights, **inputs}
        last = max(index for index, node in enumerate(self.nodes) if node.op_type in WEIGHTED)
        for index, node in enumerate(self.nodes):
            given = [values[name] if name else None for name in node.input]
            made = _OPERATORS[node.op_type](_attributes(node), *given)
            if dropout and node.op_type in BENT and index < last:
                made = torch.nn.functional.dropout(made, dropout)
            values[node.output[0]] = made
        return values[self.output]

    def trainable(self) -> list[str]:
        """Names of the weights and biases of all layers, from the input on."""
        return [name for layer in self.layers for name in (layer.weight, layer.bias) if name]

    def write(self, path: Path, weights: Mapping[str, "Array"]) -> None:
        """The same graph with these numbers; the shapes of values in between are left to the runtime."""
        import onnx
        from onnx import numpy_helper

        made = onnx.ModelProto()
        made.CopyFrom(self._model)
        del made.graph.value_info[:]
        for each in made.graph.initializer:
            if each.name in weights:
                old = numpy_helper.to_array(each)
                each.CopyFrom(numpy_helper.from_array(weights[each.name].astype(old.dtype), each.name))
        onnx.checker.check_model(made)
        onnx.save(made, str(path))

    def _leading_to(self, output: str) -> list[Any]:
        """The nodes that the output needs, in their order."""
        needed, kept = {output}, []
        for node in reversed(self._model.graph.node):
            if needed & set(node.output):
                kept.append(node)
                needed |= set(node.input)
        return kept[::-1]

    def _find_layers(self) -> Iterator[Layer]:
        for node in self.nodes:
            if node.op_type not in WEIGHTED or node.input[1] not in self.weights:
                continue
            weight = node.input[1]
            if self.weights[weight].dtype.kind != "f" or (node.op_type == "MatMul" and self.weights[weight].ndim != 2):  # noqa: PLR2004
                continue
            bias = node.input[2] if node.op_type != "MatMul" and len(node.input) > 2 else self._added(node)  # noqa: PLR2004
            flipped = node.op_type == "Conv" or bool(_attributes(node).get("transB", 0))
            yield Layer(node=node.output[0], weight=weight, bias=bias or None, unit_axis=0 if flipped else 1)

    def _added(self, node: Any) -> str | None:  # noqa: ANN401
        """The constant that is added to a node's output."""
        for other in self.nodes:
            if other.op_type == "Add" and node.output[0] in other.input:
                for name in other.input:
                    if name in self.weights and self.weights[name].size == self.weights[node.input[1]].shape[1]:
                        return str(name)
        return None

    def _constants(self) -> dict[str, Any]:
        import torch

        return {
            name: torch.from_numpy(value) if value.dtype.kind in "fiub" else value
            for name, value in self.weights.items()
        }


def as_tensors(rows: Mapping[str, "Array"]) -> dict[str, Any]:
    """NumPy arrays as tensors.

    Raises:
        MissingExtra: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("networks are taught with PyTorch", hint="pip install 'modelyard[train]'") from error
    return {name: torch.from_numpy(values) for name, values in rows.items()}


def _attributes(node: Any) -> dict[str, Any]:  # noqa: ANN401
    from onnx import helper

    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _gemm(given: Mapping[str, Any], a: Any, b: Any, c: Any = None) -> Any:  # noqa: ANN401
    a = a.T if given.get("transA") else a
    b = b.T if given.get("transB") else b
    made = given.get("alpha", 1.0) * (a @ b)
    return made if c is None else made + given.get("beta", 1.0) * c


def _conv(given: Mapping[str, Any], x: Any, weight: Any, bias: Any = None) -> Any:  # noqa: ANN401
    import torch

    sizes = weight.dim() - 2
    pads = given.get("pads", [0] * 2 * sizes)
    if given.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}:
        raise NotSupported("convolutions that pad by themselves are not taught here", hint="export with explicit pads")
    both = [value for axis in reversed(range(sizes)) for value in (pads[axis], pads[axis + sizes])]
    run = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}[sizes]
    return run(
        torch.nn.functional.pad(x, both),
        weight,
        bias,
        stride=tuple(given.get("strides", [1] * sizes)),
        dilation=tuple(given.get("dilations", [1] * sizes)),
        groups=given.get("group", 1),
    )


def _pool(kind: str) -> Callable[..., Any]:
    def run(given: Mapping[str, Any], x: Any) -> Any:  # noqa: ANN401
        import torch

        pads = given.get("pads", [0, 0, 0, 0])
        if pads[:2] != pads[2:] or len(given["kernel_shape"]) != 2 or given.get("ceil_mode"):  # noqa: PLR2004
            raise NotSupported("pooling is taught over two axes with equal pads on both sides only")
        more = {"count_include_pad": bool(given.get("count_include_pad", 0))} if kind == "avg" else {}
        return getattr(torch.nn.functional, f"{kind}_pool2d")(
            x, tuple(given["kernel_shape"]), tuple(given.get("strides", [1, 1])), tuple(pads[:2]), **more
        )

    return run


def _reshape(given: Mapping[str, Any], x: Any, shape: Any) -> Any:  # noqa: ANN401
    del given
    wanted = [x.shape[axis] if size == 0 else int(size) for axis, size in enumerate(shape.tolist())]
    return x.reshape(wanted)


def _clip(given: Mapping[str, Any], x: Any, low: Any = None, high: Any = None) -> Any:  # noqa: ANN401
    import torch

    low = given.get("min") if low is None else low
    high = given.get("max") if high is None else high
    return x if low is None and high is None else torch.clamp(x, low, high)


def _normed(given: Mapping[str, Any], x: Any, scale: Any, bias: Any, mean: Any, spread: Any) -> Any:  # noqa: ANN401
    """As in inference: with the mean and spread that were learned."""
    import torch

    return torch.nn.functional.batch_norm(x, mean, spread, scale, bias, eps=given.get("epsilon", 1e-5))


def _scaler(given: Mapping[str, Any], x: Any) -> Any:  # noqa: ANN401
    import torch

    return (x.float() - torch.tensor(given["offset"])) * torch.tensor(given["scale"])


def _cast(given: Mapping[str, Any], x: Any) -> Any:  # noqa: ANN401
    import torch
    from onnx import TensorProto

    kinds = {TensorProto.FLOAT: torch.float32, TensorProto.DOUBLE: torch.float64, TensorProto.INT64: torch.int64}
    if given["to"] not in kinds:
        raise NotSupported("this network casts to a type that is not taught here")
    return x.to(kinds[given["to"]])


def _plain(name: str, *, axis: int | None = None) -> Callable[..., Any]:
    """An operator that PyTorch has by this name."""

    def run(given: Mapping[str, Any], x: Any) -> Any:  # noqa: ANN401
        import torch

        return getattr(torch, name)(x) if axis is None else getattr(torch, name)(x, given.get("axis", axis))

    return run


_OPERATORS: Final[Mapping[str, Callable[..., Any]]] = {
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Div": lambda _, a, b: a / b,
    "MatMul": lambda _, a, b: a @ b,
    "Gemm": _gemm,
    "Conv": _conv,
    "MaxPool": _pool("max"),
    "AveragePool": _pool("avg"),
    "GlobalAveragePool": lambda _, x: x.mean(dim=tuple(range(2, x.dim())), keepdim=True),
    "BatchNormalization": _normed,
    "Relu": _plain("relu"),
    "Tanh": _plain("tanh"),
    "Sigmoid": _plain("sigmoid"),
    "LeakyRelu": lambda given, x: x.clamp(min=0) + given.get("alpha", 0.01) * x.clamp(max=0),
    "Clip": _clip,
    "Softmax": _plain("softmax", axis=-1),
    "LogSoftmax": _plain("log_softmax", axis=-1),
    "Flatten": lambda given, x: x.flatten(given.get("axis", 1)),
    "Reshape": _reshape,
    "Concat": lambda given, *parts: __import__("torch").cat(parts, given["axis"]),
    "Identity": lambda _, x: x,
    "Dropout": lambda _, x, *__: x,
    "Cast": _cast,
    "Scaler": _scaler,
}
