"""GGUF: structure with every count held against the file, then the way out (it is not served here)."""

import struct
from typing import Final

from modelyard.domain.errors.uploads import TypeNotAllowed, UploadRefused, WeightsFormat
from modelyard.inspection.octets import Cursor, Octets
from modelyard.inspection.policy import InspectionPolicy

_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_PAIRS: Final = 65_536
_DEPTH: Final = 4
_RANK: Final = 4
_ITEMS: Final = 2_000_000


def refuse_gguf(data: Octets, policy: InspectionPolicy) -> UploadRefused:
    """The refusal of a GGUF file; raises `WeightsFormat` where it is damaged."""
    cursor = Cursor(data, "GGUF")
    if cursor.take(4) != b"GGUF" or cursor.u32() not in (2, 3):
        raise WeightsFormat("the file is not GGUF version 2 or 3")
    tensors, pairs = cursor.u64(), cursor.u64()
    if tensors > policy.tensors or pairs > _PAIRS or (tensors + pairs) * 12 > cursor.left:
        raise WeightsFormat(f"GGUF: {tensors} tensors and {pairs} values do not fit in {cursor.left} bytes")
    keys = set()
    for _ in range(pairs):
        key = _string(cursor)
        if key in keys:
            raise WeightsFormat("GGUF: a key stands twice")
        keys.add(key)
        kind = cursor.u32()
        if key == b"general.alignment":
            _require_alignment(cursor, kind)
        else:
            _value(cursor, kind, 0)
    for _ in range(tensors):
        _tensor(cursor)
    return TypeNotAllowed(
        "GGUF models are not served here",
        hint="export the model to ONNX; GGUF is for language-model servers",
    )


def _string(cursor: Cursor) -> bytes:
    length = cursor.u64()
    if length > 1 << 20:
        cursor.skip(length)
        return b""
    return cursor.take(length)


def _value(cursor: Cursor, kind: int, depth: int) -> None:
    if kind in _SIZES:
        cursor.skip(_SIZES[kind])
    elif kind == _STRING:
        _string(cursor)
    elif kind == _ARRAY and depth < _DEPTH:
        inner, count = cursor.u32(), cursor.u64()
        if inner in _SIZES:
            cursor.skip(count * _SIZES[inner])
            return
        if count > _ITEMS or count > cursor.left:
            raise WeightsFormat(f"GGUF: an array of {count} values does not fit")
        for _ in range(count):
            _value(cursor, inner, depth + 1)
    else:
        raise WeightsFormat(f"GGUF: unknown value type {kind}")


def _require_alignment(cursor: Cursor, kind: int) -> None:
    if kind != _UINT32:
        raise WeightsFormat("GGUF: the alignment is not a 32-bit number")
    alignment = cursor.u32()
    if alignment == 0 or alignment & (alignment - 1):
        raise WeightsFormat(f"GGUF: the alignment {alignment} is not a power of two")


def _tensor(cursor: Cursor) -> None:
    _string(cursor)
    rank = cursor.u32()
    if rank > _RANK:
        raise WeightsFormat(f"GGUF: a tensor has {rank} dimensions")
    elements = 1
    for size in struct.unpack(f"<{rank}Q", cursor.take(8 * rank)):
        elements *= size
    cursor.skip(4)
    if cursor.u64() > len(cursor.data) or elements > len(cursor.data) * 8:
        raise WeightsFormat("GGUF: a tensor is larger than the file")
