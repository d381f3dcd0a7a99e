"""Tensors in an ONNX file: sizes against what is there, and external data against the bundle's files."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import BundleMismatch, PathUnsafe, WeightsFormat
from modelyard.inspection.names import fully_decoded, points_elsewhere
from modelyard.inspection.octets import Octets
from modelyard.inspection.weights.onnx.operators import ITEM_BITS, STRING
from modelyard.inspection.weights.onnx.wire import Field, content, fields, integers

_RANK: Final = 32
_SMALL: Final = 64
_INT64: Final = 7
_EXTERNAL: Final = 1
_KEYS: Final = frozenset({"location", "offset", "length", "checksum"})
_DIGITS: Final = 15
_HINT: Final = "export the model again; external data lies in one file beside it"


@dataclass(slots=True)
class TensorFacts:
    """A tensor: its name, its size, the numbers in it when it is a small int64 one, the file that holds its data."""

    name: bytes = b""
    bytes: int = 0
    numbers: list[int] | None = None
    external: str | None = None


@dataclass(slots=True)
class _Read:
    dims: list[int] = field(default_factory=list)
    kind: int = 0
    name: bytes = b""
    raw: tuple[int, int] | None = None
    strings: int = 0
    int64: list[int] = field(default_factory=list)
    entries: list[tuple[str, str]] = field(default_factory=list)
    location: int = 0


def read_tensor(data: Octets, start: int, end: int, files: Mapping[str, int]) -> TensorFacts:
    """The TensorProto in [start, end); `files` are the bundle's files with their sizes.

    Raises:
        WeightsFormat: it promises more than is there, or its external data is not described by the four known keys.
        PathUnsafe: external data outside the bundle.
        BundleMismatch: external data in a file that did not come along.
    """
    read = _fields(data, start, end)
    if read.kind != STRING and read.kind not in ITEM_BITS:
        raise WeightsFormat(f"tensor {_shown(read)} has the unknown element type {read.kind}", hint=_HINT)
    if any(size < 0 for size in read.dims) or len(read.dims) > _RANK:
        raise WeightsFormat(f"tensor {_shown(read)} has no valid shape", hint=_HINT)
    count = prod(read.dims)
    size = count if read.kind == STRING else -(-count * ITEM_BITS[read.kind] // 8)
    facts = TensorFacts(name=read.name, bytes=size)
    if read.location == _EXTERNAL or read.entries:
        facts.external = _external(read, size, files)
        return facts
    _require_present(read, count, size, end - start)
    facts.numbers = _numbers(data, read, count)
    return facts


def _fields(data: Octets, start: int, end: int) -> _Read:
    """The fields of a TensorProto that say how large it is and where its data lies."""
    read = _Read()
    for one in fields(data, start, end):
        match (one.number, one.wire):
            case (1, _):
                read.dims += integers(data, one, limit=_RANK)
            case (2, 0):
                read.kind = one.value
            case (6, _):
                read.strings += 1
            case (7, _) if len(read.int64) <= _SMALL and one.end - one.value <= _SMALL * 10:
                read.int64 += integers(data, one, limit=_SMALL * 10)
            case (8, _):
                read.name = content(data, one)
            case (9, 2):
                read.raw = (one.value, one.end)
            case (13, 2):
                read.entries.append(_entry(data, one))
            case (14, 0):
                read.location = one.value
        _require_few(read)
    return read


def _require_few(read: _Read) -> None:
    if len(read.dims) > _RANK or len(read.entries) > _SMALL:
        raise WeightsFormat("a tensor has too many dimensions or external-data keys", hint=_HINT)


def _entry(data: Octets, span: Field) -> tuple[str, str]:
    texts = {1: b"", 2: b""}
    for one in fields(data, span.value, span.end):
        if one.number in texts:
            texts[one.number] = content(data, one)
    return texts[1].decode("utf-8", "replace"), texts[2].decode("utf-8", "replace")


def _external(read: _Read, size: int, files: Mapping[str, int]) -> str:
    """The name of the sibling file; its range must be in it and must be the tensor's size."""
    entries = dict(read.entries)
    if len(entries) != len(read.entries) or not entries.keys() <= _KEYS or "location" not in entries:
        raise WeightsFormat(f"tensor {_shown(read)} describes its external data by other keys than it may", hint=_HINT)
    location = entries["location"]
    if points_elsewhere(fully_decoded(location)) or not location:
        raise PathUnsafe(f"tensor {_shown(read)} has its data at {quote(location)}, outside the bundle", hint=_HINT)
    if location not in files:
        raise BundleMismatch(
            f"tensor {_shown(read)} has its data in {quote(location)}, which did not come along", hint=_HINT
        )
    offset, length = _count(entries.get("offset", "0"), read), _count(entries.get("length", str(size)), read)
    if length != size or offset + length > files[location]:
        raise WeightsFormat(
            f"tensor {_shown(read)} needs {size} bytes and is said to be {length} from byte {offset} of a file of "
            f"{files[location]}",
            hint=_HINT,
        )
    return location


def _count(text: str, read: _Read) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS:
        raise WeightsFormat(f"tensor {_shown(read)} has no valid offset or length", hint=_HINT)
    return int(text)


def _require_present(read: _Read, count: int, size: int, span: int) -> None:
    if read.kind == STRING:
        present = read.strings == count
    elif read.raw is not None:
        present = read.raw[1] - read.raw[0] == size
    else:
        present = count <= span * 2  # a packed varint takes a byte at least, two 4-bit values share one
    if not present:
        raise WeightsFormat(
            f"tensor {_shown(read)} of shape {read.dims[:8]} promises data that is not there", hint=_HINT
        )


def _numbers(data: Octets, read: _Read, count: int) -> list[int] | None:
    if read.kind != _INT64 or count > _SMALL:
        return None
    if read.raw is not None:
        return list(struct.unpack(f"<{count}q", data[read.raw[0] : read.raw[1]]))
    return read.int64 if len(read.int64) == count else None


def _shown(read: _Read) -> str:
    return quote(read.name.decode("utf-8", "replace"))
