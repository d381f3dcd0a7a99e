"""Datatypes on the wire: numpy types, raw bytes, BYTES framing (V2 binary tensor data extension).

Raw tensors are little-endian and row-major; a BYTES element is a 4-byte little-endian length and that many bytes. BF16,
which numpy does not have, is float32 in memory: widened exactly when read, rounded to nearest even when written.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from modelyard.domain.tensors import DataType

Array = np.ndarray[Any, Any]
Buffer = bytes | memoryview

MEMORY: Final[Mapping[DataType, np.dtype[Any]]] = {
    DataType.BOOL: np.dtype("?"),
    DataType.UINT8: np.dtype("<u1"),
    DataType.UINT16: np.dtype("<u2"),
    DataType.UINT32: np.dtype("<u4"),
    DataType.UINT64: np.dtype("<u8"),
    DataType.INT8: np.dtype("<i1"),
    DataType.INT16: np.dtype("<i2"),
    DataType.INT32: np.dtype("<i4"),
    DataType.INT64: np.dtype("<i8"),
    DataType.FP16: np.dtype("<f2"),
    DataType.FP32: np.dtype("<f4"),
    DataType.FP64: np.dtype("<f8"),
    DataType.BF16: np.dtype("<f4"),
    DataType.BYTES: np.dtype(object),
}
"""The numpy type that holds a datatype in memory."""

_LENGTH: Final = struct.Struct("<I")


class BadFrame(ValueError):
    """A BYTES element reaches beyond the data."""


def from_raw(data: Buffer, datatype: DataType) -> Array:
    """The elements of a fixed-size datatype in `data`, flat; a view where alignment allows. BOOL is unchecked."""
    if datatype is DataType.BF16:
        return (np.frombuffer(data, dtype="<u2").astype("<u4") << 16).view("<f4")
    array = np.frombuffer(data, dtype=MEMORY[datatype])
    return array if array.flags.aligned else array.copy()


def to_raw(array: Array, datatype: DataType) -> bytes:
    """`array` in raw form, row-major."""
    if datatype is DataType.BYTES:
        return frame(array.ravel().tolist())
    if datatype is DataType.BF16:
        bits = np.ascontiguousarray(array, dtype="<f4").view("<u4")
        rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
        return np.where(np.isnan(array), (bits >> 16) | 0x40, rounded).astype("<u2").tobytes()
    kind = MEMORY[datatype]
    return (array if array.dtype == kind else array.astype(kind)).tobytes()


def frame(elements: Sequence[bytes | str]) -> bytes:
    """BYTES elements, each behind its length."""
    parts: list[bytes] = []
    for element in elements:
        octets = element.encode() if isinstance(element, str) else element
        parts += (_LENGTH.pack(len(octets)), octets)
    return b"".join(parts)


def unframe(data: Buffer) -> list[bytes]:
    """The BYTES elements in `data`; `BadFrame` when a length points beyond the end."""
    octets, end, at = bytes(data), len(data), 0
    elements: list[bytes] = []
    while at < end:
        if at + 4 > end:
            raise BadFrame(f"a length is cut off at byte {at}")
        (size,) = _LENGTH.unpack_from(octets, at)
        at += 4
        if at + size > end:
            raise BadFrame(f"element {len(elements)} claims {size} bytes, {end - at} are left")
        elements.append(octets[at : at + size])
        at += size
    return elements


def objects(values: Sequence[bytes]) -> Array:
    """A flat object array of BYTES elements."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
