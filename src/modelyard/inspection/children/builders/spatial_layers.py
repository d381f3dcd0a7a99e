"""Layers over space: convolutions, pools, batch normalisation. Channels come right after the batch axis (NCHW)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from modelyard.domain.tensors import VARIABLE
from modelyard.inspection.children.builders.layers import Flow, Layer, Place, rank_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A sliding window: one entry a spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def attributes(self) -> dict[str, Any]:
        """As ONNX attributes; padding is the same on both sides."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.stride),
            "pads": [*self.padding, *self.padding],
            "dilations": list(self.dilation),
        }

    def sizes(self, place: Place, sizes: Sequence[int]) -> tuple[int, ...]:
        """Sizes after the window, floor((n + 2p - d(k-1) - 1) / s) + 1 (ONNX Conv-11)."""
        return tuple(self._size(place, axis, size) for axis, size in enumerate(sizes))

    def _size(self, place: Place, axis: int, size: int) -> int:
        if size == VARIABLE:
            return VARIABLE
        span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        after = (size + 2 * self.padding[axis] - span) // self.stride[axis] + 1
        if after < 1:
            raise place.mismatch(f"a window of {span} does not fit into {size} values")
        return after


def convolution(dims: int, place: Place, flow: Flow) -> Flow:
    """Convolution with weight [out, in / groups, kernel…]."""
    rank_of(place, flow, dims + 2)
    groups = place.sizes("groups", 1, 1, least=1)[0]
    channels = flow.shape[1]
    if channels == VARIABLE or channels % groups:
        raise place.mismatch(f"{channels} channels come in, which {groups} groups cannot share")
    weight = place.tensor("weight", (None, channels // groups, *([None] * dims)))
    if weight.shape[0] % groups:
        raise place.mismatch(f"{weight.shape[0]} filters cannot be shared by {groups} groups")
    bias = place.optional_tensor("bias", (weight.shape[0],))
    window = Window(
        kernel=tuple(weight.shape[2:]),
        stride=place.sizes("stride", dims, 1, least=1),
        padding=place.sizes("padding", dims, 0, least=0),
        dilation=place.sizes("dilation", dims, 1, least=1),
    )
    inputs = [place.graph.constant(values) for values in (weight, bias) if values is not None]
    value = place.graph.add("Conv", flow.value, *inputs, group=groups, **window.attributes())
    return Flow(value=value, shape=(flow.shape[0], weight.shape[0], *window.sizes(place, flow.shape[2:])))


def pool(operator: str, dims: int, place: Place, flow: Flow) -> Flow:
    """Maximum or mean of windows; the stride is the kernel unless given; padding counts in the mean as in PyTorch."""
    rank_of(place, flow, dims + 2)
    kernel = place.sizes("kernel_size", dims, None, least=1)
    given = place.option("stride") is not None
    window = Window(
        kernel=kernel,
        stride=place.sizes("stride", dims, None, least=1) if given else kernel,
        padding=place.sizes("padding", dims, 0, least=0),
        dilation=(1,) * dims,
    )
    if any(2 * pad > size for pad, size in zip(window.padding, kernel, strict=True)):
        raise place.wrong("padding may be half the kernel at most")
    extra: dict[str, Any] = {"count_include_pad": 1} if operator == "AveragePool" else {}
    value = place.graph.add(operator, flow.value, **window.attributes(), **extra)
    return Flow(value=value, shape=(*flow.shape[:2], *window.sizes(place, flow.shape[2:])))


def global_pool(operator: str, place: Place, flow: Flow) -> Flow:
    """Maximum or mean over all of space: [batch, channels, …] becomes [batch, channels]."""
    rank_of(place, flow, 3, 4)
    axes = place.graph.constant(list(range(2, len(flow.shape))), "int64")
    return Flow(value=place.graph.add(operator, flow.value, axes, keepdims=0), shape=flow.shape[:2])


def batch_norm(place: Place, flow: Flow) -> Flow:
    """Normalised with the running statistics of training, axis 1 (ONNX BatchNormalization-15)."""
    rank_of(place, flow, 2, 3, 4)
    channels = flow.shape[1]
    size = (channels if channels != VARIABLE else None,)
    parts = [place.tensor(key, size) for key in ("weight", "bias", "running_mean", "running_var")]
    if (parts[3] < 0).any():
        raise place.mismatch("running_var holds a negative variance")
    inputs = [place.graph.constant(values) for values in parts]
    value = place.graph.add("BatchNormalization", flow.value, *inputs, epsilon=place.number("eps", 1e-5))
    return Flow(value=value, shape=flow.shape)


SPATIAL_LAYERS: Final[Mapping[str, Layer]] = {
    "conv1d": partial(convolution, 1),
    "conv2d": partial(convolution, 2),
    "max_pool1d": partial(pool, "MaxPool", 1),
    "max_pool2d": partial(pool, "MaxPool", 2),
    "avg_pool1d": partial(pool, "AveragePool", 1),
    "avg_pool2d": partial(pool, "AveragePool", 2),
    "global_max_pool": partial(global_pool, "ReduceMax"),
    "global_avg_pool": partial(global_pool, "ReduceMean"),
    "batch_norm": batch_norm,
}
