"""What every layer of an `architecture` stands on: the flow of shapes, its options, and errors that name the layer.

A layer function takes a `Place` (where it stands and what it may use) and the `Flow` that comes in, and gives the flow
that goes out. Shapes have the batch axis first; -1 is a size that each request chooses.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import BundleMismatch, ConfigInvalid
from modelyard.domain.tensors import VARIABLE, DataType
from modelyard.inspection.children.builders.graph import Graph
from modelyard.inspection.children.builders.safetensors_file import FloatArray, SafetensorsFile

LAYER_LIMIT: Final = 2_000
DEPTH_LIMIT: Final = 8
SIZE_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A value on its way through the layers; `is_index` while it still holds integers (for an embedding)."""

    value: str
    shape: tuple[int, ...]
    is_index: bool = False


@dataclass(slots=True, kw_only=True)
class Build:
    """What all layers of one model share: the graph that grows, the tensors, and which of them were used."""

    graph: Graph
    tensors: SafetensorsFile
    compute: DataType
    used: set[str] = field(default_factory=set)
    layers: int = 0

    @property
    def dtype(self) -> type[np.floating[Any]]:
        """The type of the arithmetic, as numpy knows it."""
        return np.float64 if self.compute is DataType.FP64 else np.float32


class Place:
    """One layer: its path for messages (`architecture[2].linear`), its options, and the build it belongs to."""

    def __init__(self, build: Build, path: str, options: Mapping[str, object], depth: int) -> None:
        self.build = build
        self.path = path
        self.depth = depth
        self._options = dict(options)
        self._read: set[str] = set()

    @property
    def graph(self) -> Graph:
        """The graph that grows."""
        return self.build.graph

    def wrong(self, text: str, *, hint: str = "") -> ConfigInvalid:
        """The error for an option that is not one."""
        return ConfigInvalid(f"{self.path}: {text}", hint=hint)

    def mismatch(self, text: str, *, hint: str = "") -> BundleMismatch:
        """The error for tensors or shapes that do not fit together."""
        return BundleMismatch(f"{self.path}: {text}", hint=hint)

    def option(self, key: str) -> object:
        """The raw option, None when absent."""
        self._read.add(key)
        return self._options.get(key)

    def finish(self) -> None:
        """Refuse options that the layer does not know."""
        for key in self._options:
            if key not in self._read:
                known = ", ".join(sorted(self._read)) or "none"
                raise self.wrong(f"there is no option {quote(key)}", hint=f"options of this layer: {known}")

    def number(self, key: str, default: float) -> float:
        """A finite number."""
        value = self.option(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.wrong(f"{key} must be a finite number")
        return float(value)

    def integer(self, key: str, default: int) -> int:
        """A whole number of modest size."""
        value = self.option(key)
        if value is None:
            return default
        if type(value) is not int or abs(value) > SIZE_LIMIT:
            raise self.wrong(f"{key} must be a whole number, at most {SIZE_LIMIT}")
        return value

    def flag(self, key: str) -> bool:
        """A boolean, false when absent."""
        value = self.option(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(f"{key} must be true or false")
        return value is True

    def sizes(self, key: str, count: int, default: int | None, *, least: int) -> tuple[int, ...]:
        """`count` whole numbers ≥ `least`; a single one stands for all of them. None as default: required."""
        value = self.option(key)
        if value is None:
            if default is None:
                raise self.wrong(f"{key} is needed")
            return (default,) * count
        items: Sequence[object] = value if isinstance(value, list) else [value] * count
        if len(items) != count:
            raise self.wrong(f"{key} needs {count} numbers, {len(items)} are given")
        return tuple(self._size(key, item, least) for item in items)

    def _size(self, key: str, item: object, least: int) -> int:
        if type(item) is not int or not least <= item <= SIZE_LIMIT:
            raise self.wrong(f"{key} must be whole numbers from {least} to {SIZE_LIMIT}")
        return item

    def tensor(self, key: str, shape: Sequence[int | None], *, hint: str = "") -> FloatArray:
        """The tensor that option `key` names; its shape must be `shape` (None: any size on that axis)."""
        found = self.optional_tensor(key, shape, hint=hint)
        if found is None:
            raise self.wrong(f"{key} must name a tensor of the weights file")
        return found

    def optional_tensor(self, key: str, shape: Sequence[int | None], *, hint: str = "") -> FloatArray | None:
        """As `tensor`; None when the option is absent."""
        name = self.option(key)
        if name is None:
            return None
        actual = self.shape_of(key, name)
        if len(actual) != len(shape) or any(w is not None and w != a for w, a in zip(shape, actual, strict=True)):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise self.mismatch(f"tensor {quote(name)} has shape {list(actual)}, needed is [{wanted}]", hint=hint)
        if 0 in actual:
            raise self.mismatch(f"tensor {quote(name)} is empty")
        self.build.used.add(str(name))
        return self.build.tensors.floats(str(name)).astype(self.build.dtype, copy=False)

    def shape_of(self, key: str, name: object) -> tuple[int, ...]:
        """Shape of the tensor `name`, or an error that lists what the file holds."""
        if not isinstance(name, str):
            raise self.wrong(f"{key} must be a tensor's name")
        if name not in self.build.tensors:
            known = ", ".join(quote(other) for other in list(self.build.tensors)[:8])
            raise self.mismatch(f"the weights hold no tensor {quote(name)}", hint=f"they hold {known}")
        return self.build.tensors[name]


Layer = Callable[[Place, Flow], Flow]


def rank_of(place: Place, flow: Flow, *ranks: int) -> int:
    """The rank of `flow`, which must be one of `ranks`."""
    if len(flow.shape) in ranks:
        return len(flow.shape)
    wanted = " or ".join(str(rank) for rank in ranks)
    raise place.mismatch(f"what comes in has shape {list(flow.shape)}; this layer needs rank {wanted}, batch first")


def axis_of(place: Place, key: str, flow: Flow, default: int) -> int:
    """A non-negative axis from an option that may count from the end; the batch axis is not for layers."""
    axis = place.integer(key, default)
    rank = len(flow.shape)
    positive = axis + rank if axis < 0 else axis
    if not 1 <= positive < rank:
        raise place.mismatch(f"{key} {axis} is not an axis after the batch axis of shape {list(flow.shape)}")
    return positive


def product(sizes: Sequence[int]) -> int:
    """Product of sizes, -1 as soon as one of them is variable."""
    return VARIABLE if VARIABLE in sizes else math.prod(sizes)
