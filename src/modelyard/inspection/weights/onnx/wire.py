"""The protobuf wire format (protobuf.dev, "Encoding"), field by field, within bounds that the caller gives.

Groups are refused: ONNX has none. A field is given as its number, its wire type and a span; nothing is copied before
the caller asks.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from modelyard.domain.errors.uploads import WeightsFormat
from modelyard.inspection.octets import Octets

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED: Final = {FIXED64: 8, FIXED32: 4}
_MAX_SHIFT: Final = 63
_HINT: Final = "the file is damaged or not ONNX: export it again"


class Field(NamedTuple):
    """One field. `value` is the number of a varint, else where the content begins; `end` is behind it."""

    number: int
    wire: int
    value: int
    end: int


def fields(data: Octets, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in [start, end)."""
    pos = start
    while pos < end:
        tag, pos = varint(data, pos, end)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise WeightsFormat(f"byte {pos} of the ONNX file has the field number 0", hint=_HINT)
        if wire == VARINT:
            value, pos = varint(data, pos, end)
            yield Field(number, wire, value, pos)
            continue
        if wire == BYTES:
            length, pos = varint(data, pos, end)
        else:
            length = _FIXED.get(wire, -1)
        if length < 0 or length > end - pos:
            raise WeightsFormat(f"byte {pos} of the ONNX file promises more than is there", hint=_HINT)
        yield Field(number, wire, pos, pos + length)
        pos += length


def varint(data: Octets, pos: int, end: int) -> tuple[int, int]:
    """(value, position behind it) of a base-128 number of at most 64 bits."""
    value = shift = 0
    while pos < end and shift <= _MAX_SHIFT:
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return value & 0xFFFF_FFFF_FFFF_FFFF, pos
        shift += 7
    raise WeightsFormat(f"byte {pos} of the ONNX file is no number", hint=_HINT)


def signed(value: int) -> int:
    """A 64-bit two's complement number."""
    return value - (1 << 64) if value >> 63 else value


def integers(data: Octets, field: Field, *, limit: int) -> list[int]:
    """The numbers of a repeated int64 field, packed or not; at most `limit`."""
    if field.wire == VARINT:
        return [signed(field.value)]
    if field.wire != BYTES:
        raise WeightsFormat("a number of the ONNX file has the wrong type", hint=_HINT)
    found, pos = [], field.value
    while pos < field.end:
        value, pos = varint(data, pos, field.end)
        found.append(signed(value))
        if len(found) > limit:
            raise WeightsFormat(f"a list of the ONNX file has more than {limit} numbers", hint=_HINT)
    return found


def content(data: Octets, field: Field, *, limit: int = 4096) -> bytes:
    """The bytes of a text field; more than `limit` are refused."""
    if field.wire != BYTES or field.end - field.value > limit:
        raise WeightsFormat(f"a text of the ONNX file is longer than {limit} bytes or no text", hint=_HINT)
    return data[field.value : field.end]
