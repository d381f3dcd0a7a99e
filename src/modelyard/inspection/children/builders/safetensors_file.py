"""Tensors of a `.safetensors` file, mapped, without the safetensors package.

Format: a little-endian u64 header length, a JSON header `{name: {dtype, shape, data_offsets}}`, then the data
(safetensors README, "Format"). The static checks have judged the file before; the reader checks what it uses again,
because it must not depend on who called it.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import WeightsFormat, WeightsValues

HEADER_LIMIT: Final = 16 * 1024 * 1024
LENGTH_BYTES: Final = 8
RANK_LIMIT: Final = 8
_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}

FloatArray = npt.NDArray[np.floating[Any]]


class SafetensorsFile(Mapping[str, tuple[int, ...]]):
    """Names and shapes of the tensors in a file; `floats` gives the values."""

    def __init__(self, path: Path) -> None:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            if size < LENGTH_BYTES or length > min(HEADER_LIMIT, size - LENGTH_BYTES):
                raise WeightsFormat("the safetensors header is longer than the file or the limit")
            header = _header(file.read(length))
        self._start = LENGTH_BYTES + length
        self._size = size
        self._path = path
        self._entries = {name: _entry(name, value) for name, value in header.items() if name != "__metadata__"}

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self._entries[name][1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def dtype(self, name: str) -> str:
        """The dtype as the file writes it, such as "F32"."""
        return self._entries[name][0]

    def floats(self, name: str) -> FloatArray:
        """The values as float32 (F16 and BF16 widened exactly) or float64; `WeightsValues` when not finite."""
        dtype, shape, begin, end = self._entries[name]
        if dtype not in {"F16", "BF16", "F32", "F64"}:
            raise WeightsFormat(f"tensor {quote(name)} is {dtype}; a layer needs F16, BF16, F32 or F64")
        expected = math.prod(shape) * _DTYPES[dtype].itemsize
        if begin < 0 or end - begin != expected or self._start + end > self._size:
            raise WeightsFormat(f"the data of tensor {quote(name)} does not fit its shape {list(shape)}")
        if expected == 0:
            return np.zeros(shape, np.float32)
        raw = np.memmap(self._path, dtype=_DTYPES[dtype], mode="r", offset=self._start + begin, shape=shape)
        values: FloatArray
        if dtype == "BF16":
            values = (np.asarray(raw, np.uint32) << np.uint32(16)).view(np.float32)
        else:
            values = np.asarray(raw, np.float64 if dtype == "F64" else np.float32)
        if not np.isfinite(values).all():
            raise WeightsValues(f"tensor {quote(name)} holds NaN or infinity", hint="save finite weights")
        return values


def _header(data: bytes) -> dict[str, object]:
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WeightsFormat("the safetensors header is not JSON") from error
    if not isinstance(header, dict):
        raise WeightsFormat("the safetensors header is not a JSON object")
    return header


def _entry(name: str, value: object) -> tuple[str, tuple[int, ...], int, int]:
    """The dtype, the shape and the two offsets of one header entry."""
    if isinstance(value, dict):
        dtype, shape, offsets = value.get("dtype"), _counts(value.get("shape")), _counts(value.get("data_offsets"))
        if isinstance(dtype, str) and dtype in _DTYPES and shape is not None and offsets is not None:
            match offsets:
                case (begin, end):
                    return dtype, shape, begin, end
    raise WeightsFormat(f"the safetensors entry {quote(name)} is not valid or of a dtype that is not known")


def _counts(value: object) -> tuple[int, ...] | None:
    if isinstance(value, list) and len(value) <= RANK_LIMIT and all(type(n) is int and n >= 0 for n in value):
        return tuple(value)
    return None
