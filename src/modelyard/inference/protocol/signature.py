"""What a loaded model takes and gives, compiled once so that reading and writing a request look nothing up.

Also where every refusal gets its example: a request for this very model that succeeds when pasted.
"""

import difflib
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from modelyard.domain.contract import Golden, ModelContract
from modelyard.domain.errors.base import ModelyardError, quote
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.inference.protocol.datatypes import MEMORY
from modelyard.inference.protocol.examples import example_request
from modelyard.inference.protocol.wire import RAW, element_type, list_type, request_decoder

Array = np.ndarray[Any, Any]
Error = TypeVar("Error", bound=ModelyardError)

_PACK: Final[Mapping[DataType, str]] = {
    DataType.BOOL: "?",
    DataType.UINT8: "B",
    DataType.UINT16: "H",
    DataType.UINT32: "I",
    DataType.UINT64: "Q",
    DataType.INT8: "b",
    DataType.INT16: "h",
    DataType.INT32: "i",
    DataType.INT64: "q",
    DataType.FP16: "e",
    DataType.FP32: "f",
    DataType.FP64: "d",
}
_KEPT_PACKERS: Final = 64


class Input:
    """One input, ready to check. `allowed` holds the categories in the form their elements have in memory."""

    __slots__ = (
        "_code",
        "_packers",
        "allowed",
        "allows_nan",
        "counts",
        "datatype",
        "dtype",
        "flat",
        "is_column",
        "is_finite",
        "is_plain",
        "kind",
        "name",
        "nested",
        "rank",
        "shape",
        "spec",
    )

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.kind = spec.datatype
        self.datatype = spec.datatype.value
        self.dtype = MEMORY[spec.datatype]
        self.shape = spec.shape
        self.rank = len(spec.shape)
        self.is_column = self.rank == 2 and spec.shape[1] == 1  # noqa: PLR2004  (rows, one value each)
        self.allows_nan = spec.allows_nan
        self.allowed = _categories(spec)
        element = element_type(spec.datatype)
        self.flat = msgspec.json.Decoder(list_type(element, 1))
        self.nested = msgspec.json.Decoder(list_type(element, self.rank))
        self._code = _PACK.get(spec.datatype, "")
        self._packers: dict[int, struct.Struct] = {}
        self.is_finite = spec.datatype.is_float and not spec.allows_nan
        self.is_plain = bool(self._code) and self.allowed is None
        self.counts: dict[tuple[int, ...], int] = {}

    def fit(self, shape: Sequence[int]) -> tuple[int, ...] | None:
        """`shape` as the model takes it, with -1 filled in; None when it does not fit. [n] fits a column [-1, 1]."""
        if len(shape) != self.rank:
            if self.is_column and len(shape) == 1:
                shape = (shape[0], 1)
            else:
                return None
        for got, want in zip(shape, self.shape, strict=True):
            if got != want and (want >= 0 or got <= 0):
                return None
        return tuple(shape)

    def remember(self, shape: tuple[int, ...], count: int) -> None:
        """Note that `shape` fits and has `count` elements; bounded."""
        if len(self.counts) < _KEPT_PACKERS:
            self.counts[shape] = count

    def pack(self, values: list[Any], shape: tuple[int, ...]) -> Array:
        """Checked Python values as an array; `OverflowError` or `struct.error` when one is out of range.

        Packing is twice as fast as `numpy.array` on a list, and refuses what does not fit.
        """
        count = len(values)
        packer = self._packers.get(count)
        if packer is None:
            packer = struct.Struct(f"<{count}{self._code}")
            if len(self._packers) < _KEPT_PACKERS:
                self._packers[count] = packer
        return np.ndarray(shape, self.dtype, packer.pack(*values))


class Signature:
    """A model as its callers see it. Compile once a loaded model; safe to share between threads."""

    def __init__(self, service: str, contract: ModelContract, golden: Golden | None = None) -> None:
        self.service = service
        self.contract = contract
        self.example = example_request(contract, golden)
        self.inputs = {spec.name: Input(spec) for spec in contract.inputs}
        self.single = next(iter(self.inputs.values())) if len(self.inputs) == 1 else None
        self.outputs = {spec.name: spec for spec in contract.outputs}
        self.batched = contract.max_batch_size != 0
        self.has_bf16_output = any(spec.datatype is DataType.BF16 for spec in contract.outputs)
        self.labels = tuple(contract.labels)
        self.varies = any(-1 in spec.shape[self.batched :] for spec in contract.inputs)
        self.heads: dict[tuple[str, str], bytes] = {}
        self.openings: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self.binary_openings: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self.brackets = {
            spec.name: b'{"name":' + msgspec.json.encode(spec.name) + b',"datatype":"' + spec.datatype.encode() + b'"'
            for spec in contract.outputs
        }
        self._compile()

    def _compile(self) -> None:
        kinds = {one.kind for one in self.inputs.values()}
        ranks = {one.rank for one in self.inputs.values()}
        self.is_text = kinds == {DataType.BYTES}
        if len({element_type(kind) for kind in kinds}) == 1 and len(ranks) == 1:
            element, rank = element_type(next(iter(kinds))), next(iter(ranks))
            self.flat = request_decoder(list_type(element, 1))
            self.nested = request_decoder(list_type(element, rank))
            self.is_raw = False
        else:
            self.flat = self.nested = RAW
            self.is_raw = True

    def rows_of(self, shape: tuple[int, ...]) -> int:
        """Rows of an input of `shape`."""
        return shape[0] if self.batched and shape else 1

    def shape_key(self, inputs: Mapping[str, Array]) -> tuple[tuple[int, ...], ...] | None:
        """What must be equal for two requests to share a run; None where the model has no variable dimension."""
        if not self.varies:
            return None
        return tuple(array.shape[1:] if self.batched else array.shape for array in inputs.values())

    def refusal(self, kind: type[Error], detail: str, *, hint: str = "", **culprit: object) -> Error:
        """An error of `kind` with its culprit and the example. Give texts of the caller quoted."""
        error = kind(detail, hint=hint or self._hint())
        error.details = (culprit,) if culprit else ()
        error.example = self.example
        return error

    def _hint(self) -> str:
        return "the example succeeds when sent as it stands" if self.example else "see the model's metadata"


def closest(name: object, known: Iterable[str]) -> str:
    """A sentence that lists what there is, and names the nearest first when one is near."""
    names = list(known)
    near = difflib.get_close_matches(name[:128], names[:256], n=1) if isinstance(name, str) else []
    listed = ", ".join(quote(one) for one in names[:8]) + (", …" if len(names) > 8 else "")  # noqa: PLR2004
    return f"did you mean {quote(near[0])}? there are: {listed}" if near else f"there are: {listed}"


def count_of(shape: Iterable[int]) -> int:
    """Elements of a tensor of `shape`."""
    return math.prod(shape)


def _categories(spec: TensorSpec) -> frozenset[object] | None:
    if spec.categories is None:
        return None
    if spec.datatype is DataType.BYTES:
        return frozenset(one.encode() for one in spec.categories)
    if spec.datatype.is_float:
        return frozenset(float(one) for one in spec.categories)
    return frozenset(int(one) for one in spec.categories)
