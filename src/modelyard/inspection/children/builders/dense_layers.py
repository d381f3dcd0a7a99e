"""Layers without a notion of space: linear, activations, normalisation over features, embedding, shape changes."""

from collections.abc import Mapping
from functools import partial
from typing import Final

import numpy as np

from modelyard.domain.tensors import VARIABLE
from modelyard.inspection.children.builders.layers import Flow, Layer, Place, axis_of, product


def linear(place: Place, flow: Flow) -> Flow:
    """Gives x W^T + b with W [out, in] as PyTorch keeps it; `transposed: true` takes W [in, out]."""
    if len(flow.shape) < 2:  # noqa: PLR2004 (batch and features)
        raise place.mismatch(f"what comes in has shape {list(flow.shape)}; batch and features are needed")
    width = flow.shape[-1]
    transposed = place.flag("transposed")
    expected = (width if width != VARIABLE else None, None)
    weight = place.tensor("weight", expected if transposed else expected[::-1], hint=_orientation(place, width))
    weight = weight if transposed else weight.T
    bias = place.optional_tensor("bias", (weight.shape[1],))
    graph = place.graph
    if len(flow.shape) == 2:  # noqa: PLR2004
        inputs = [flow.value, graph.constant(weight), *([] if bias is None else [graph.constant(bias)])]
        value = graph.add("Gemm", *inputs)
    else:
        value = graph.add("MatMul", flow.value, graph.constant(weight))
        value = value if bias is None else graph.add("Add", value, graph.constant(bias))
    return Flow(value=value, shape=(*flow.shape[:-1], weight.shape[1]))


def _orientation(place: Place, width: int) -> str:
    """What to change when the weight would fit the other way round."""
    name = place.option("weight")
    if isinstance(name, str) and name in place.build.tensors:
        shape = place.build.tensors[name]
        if len(shape) == 2 and shape[1 if place.flag("transposed") else 0] == width:  # noqa: PLR2004
            turned = "leave out" if place.flag("transposed") else "add"
            return f'it would fit the other way round: {turned} "transposed": true if it is kept as [in, out]'
    return f"the layer before gives {width} values a row" if width != VARIABLE else ""


def activation(operator: str, place: Place, flow: Flow) -> Flow:
    """An activation without options."""
    return Flow(value=place.graph.add(operator, flow.value), shape=flow.shape)


def gelu(place: Place, flow: Flow) -> Flow:
    """Gelu; `approximate` is "none" or "tanh" (ONNX Gelu-20)."""
    given = place.option("approximate")
    approximate = "none" if given is None else given
    if approximate not in ("none", "tanh"):
        raise place.wrong('approximate must be "none" or "tanh"')
    return Flow(value=place.graph.add("Gelu", flow.value, approximate=approximate), shape=flow.shape)


def leaky_relu(place: Place, flow: Flow) -> Flow:
    """Gives x, and `negative_slope` · x below zero (default 0.01)."""
    alpha = place.number("negative_slope", 0.01)
    return Flow(value=place.graph.add("LeakyRelu", flow.value, alpha=alpha), shape=flow.shape)


def elu(place: Place, flow: Flow) -> Flow:
    """Gives x, and `alpha` · (e^x - 1) below zero (default 1)."""
    return Flow(value=place.graph.add("Elu", flow.value, alpha=place.number("alpha", 1.0)), shape=flow.shape)


def softmax(operator: str, place: Place, flow: Flow) -> Flow:
    """(Log-)softmax along `dim` (default the last axis)."""
    axis = axis_of(place, "dim", flow, -1)
    return Flow(value=place.graph.add(operator, flow.value, axis=axis), shape=flow.shape)


def dropout(place: Place, flow: Flow) -> Flow:
    """Nothing: dropout is for training. `p` is read so that a copied layer list is accepted."""
    place.number("p", 0.5)
    return flow


def flatten(place: Place, flow: Flow) -> Flow:
    """All axes from `start_dim` (default 1) become one."""
    start = axis_of(place, "start_dim", flow, 1)
    merged = product(flow.shape[start:])
    kept = flow.shape[:start]
    # 0 copies a size, -1 takes what is left (ONNX Reshape-14)
    target = place.graph.constant([*([0] * len(kept)), merged], np.int64)
    return Flow(value=place.graph.add("Reshape", flow.value, target), shape=(*kept, merged))


def reshape(place: Place, flow: Flow) -> Flow:
    """The axes after the batch axis become `shape`."""
    wanted = place.option("shape")
    if not isinstance(wanted, list) or not 1 <= len(wanted) <= 7 or any(type(n) is not int or n < 1 for n in wanted):  # noqa: PLR2004
        raise place.wrong("shape must be a list of 1 to 7 sizes, without the batch axis")
    have = product(flow.shape[1:])
    if have not in {VARIABLE, product(wanted)}:
        raise place.mismatch(f"{have} values a row do not fill the shape {wanted}")
    target = place.graph.constant([0, *wanted], np.int64)
    return Flow(value=place.graph.add("Reshape", flow.value, target), shape=(flow.shape[0], *wanted))


def layer_norm(place: Place, flow: Flow) -> Flow:
    """Normalised over the last axes, as many as `weight` has (ONNX LayerNormalization-17)."""
    name = place.option("weight")
    count = max(1, len(place.shape_of("weight", name)))
    if count >= len(flow.shape):
        raise place.mismatch(f"the weight has {count} axes, what comes in has shape {list(flow.shape)}")
    tail = [size if size != VARIABLE else None for size in flow.shape[-count:]]
    weight = place.tensor("weight", tail)
    bias = place.optional_tensor("bias", weight.shape)
    inputs = [place.graph.constant(values) for values in (weight, bias) if values is not None]
    value = place.graph.add("LayerNormalization", flow.value, *inputs, axis=-count, epsilon=place.number("eps", 1e-5))
    return Flow(value=value, shape=flow.shape)


def embedding(place: Place, flow: Flow) -> Flow:
    """Rows of `weight` [count, width] by index; indices outside are refused by the runtime (ONNX Gather-13)."""
    if not flow.is_index:
        raise place.mismatch("an embedding takes whole numbers", hint='declare the input as "datatype": "INT64"')
    weight = place.tensor("weight", (None, None))
    value = place.graph.add("Gather", place.graph.constant(weight), flow.value)
    return Flow(value=value, shape=(*flow.shape, weight.shape[1]))


def _plain(operator: str) -> Layer:
    return partial(activation, operator)


DENSE_LAYERS: Final[Mapping[str, Layer]] = {
    "linear": linear,
    "relu": _plain("Relu"),
    "sigmoid": _plain("Sigmoid"),
    "tanh": _plain("Tanh"),
    "gelu": gelu,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "softmax": partial(softmax, "Softmax"),
    "log_softmax": partial(softmax, "LogSoftmax"),
    "dropout": dropout,
    "flatten": flatten,
    "reshape": reshape,
    "layer_norm": layer_norm,
    "embedding": embedding,
}

EXACT_IN_FLOAT64: Final = frozenset(
    {"linear", "relu", "sigmoid", "tanh", "softmax", "log_softmax", "dropout", "flatten", "reshape", "layer_norm",
     "embedding", "residual", "ignore"}
)  # fmt: skip
"""Layers for which onnxruntime's CPU provider has float64 kernels."""
