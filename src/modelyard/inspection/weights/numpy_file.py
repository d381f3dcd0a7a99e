"""`.npy` and `.npz` (numpy.lib.format): headers without evaluating them, sizes, and no object arrays.

As weights they are not accepted: arrays without names or architecture say too little. They are read to give the right
reason, as samples, and as members of skops files.
"""

import ast
import re
from math import prod
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import TypeNotAllowed, UploadRefused, WeightsFormat, WeightsUnsafe
from modelyard.inspection.archives.zip_directory import ZipMember, read_directory
from modelyard.inspection.archives.zip_file import require_bounded, unpacked
from modelyard.inspection.octets import Cursor, Octets
from modelyard.inspection.policy import InspectionPolicy

_MAGIC: Final = b"\x93NUMPY"
_HEADER_BYTES: Final = 64 * 1024
_HEAD_LIMIT: Final = _HEADER_BYTES + 16
_PLAIN: Final = re.compile(r"[<>|=]?([bBiufcSUVmM?])([0-9]{0,9})(\[[a-zA-Z0-9]+\])?")
_SHAPE: Final = re.compile(r"\(\s*(\d{1,19}L?\s*(,\s*\d{1,19}L?\s*)*,?\s*)?\)")


def read_npy(head: Octets, size: int, *, what: str) -> tuple[tuple[int, ...], int]:
    """(shape, item size in bytes) of an array file of `size` bytes that begins with `head`.

    Raises:
        WeightsFormat: damaged, or the size is not what the header promises.
        WeightsUnsafe: elements are Python objects, that is, a pickle.
    """
    cursor = Cursor(head, what)
    if cursor.take(6) != _MAGIC:
        raise WeightsFormat(f"{what} is not a numpy file")
    major, _ = cursor.u8(), cursor.u8()
    if major not in (1, 2, 3):
        raise WeightsFormat(f"{what} has the unknown numpy format version {major}")
    length = cursor.u16() if major == 1 else cursor.u32()
    if length > _HEADER_BYTES:
        raise WeightsFormat(f"{what} has a header of {length} bytes, at most {_HEADER_BYTES} are read")
    header = _fields(cursor.take(length), what)
    shape, item = _shape(header.get("shape"), what), _item_bytes(header.get("descr"), what)
    if prod(shape) * item != size - cursor.pos:
        raise WeightsFormat(f"{what}: shape {shape} needs {prod(shape) * item} bytes, {size - cursor.pos} follow")
    return shape, item


def _fields(raw: bytes, what: str) -> dict[str, object]:
    """The header's dictionary; `literal_eval` takes literals only, and the text was bounded."""
    try:
        text = raw.decode("utf-8")
        if not text.lstrip().startswith("{") or text.count("(") + text.count("[") > 200:  # noqa: PLR2004
            raise WeightsFormat(f"{what} has a header that is not one")
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise WeightsFormat(f"{what} has a header that is not a literal") from error
    if not isinstance(value, dict) or value.keys() != {"descr", "fortran_order", "shape"}:
        raise WeightsFormat(f"{what} has a header with other fields than descr, fortran_order and shape")
    return value


def _shape(value: object, what: str) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > 64 or not all(type(n) is int and n >= 0 for n in value):  # noqa: PLR2004
        raise WeightsFormat(f"{what} has no valid shape")
    return value


def _item_bytes(descr: object, what: str) -> int:
    if isinstance(descr, list):
        return sum(_field_bytes(field, what) for field in descr)
    if isinstance(descr, str) and re.fullmatch(r"[<>|=]?O[0-9]*", descr):
        raise WeightsUnsafe(
            f"{what} holds Python objects, which are a pickle and can run code",
            hint="save numbers only: numpy.save(..., allow_pickle=False)",
        )
    match = _PLAIN.fullmatch(descr) if isinstance(descr, str) else None
    if match is None:
        raise WeightsFormat(f"{what} has the unknown element type {quote(descr)}")
    count = int(match[2] or 1)
    return count * 4 if match[1] == "U" else count


def _field_bytes(field: object, what: str) -> int:
    if not isinstance(field, tuple) or len(field) not in (2, 3):
        raise WeightsFormat(f"{what} has a damaged record type")
    return _item_bytes(field[1], what) * (prod(_shape(field[2], what)) if len(field) == 3 else 1)  # noqa: PLR2004


def require_npy_member(data: Octets, member: ZipMember) -> None:
    """Hold a member of a zip file against the rules of `read_npy`, without unpacking more than its header."""
    head = b""
    for chunk in unpacked(data, member):
        head += chunk[: _HEAD_LIMIT - len(head)]
        if len(head) >= _HEAD_LIMIT:
            break
    read_npy(head, member.size, what=f"member {quote(member.name)}")


def refuse_numpy(data: Octets, policy: InspectionPolicy) -> UploadRefused:
    """The refusal of arrays as weights; raises a more precise one where the file is damaged or a pickle."""
    if data[:6] == _MAGIC:
        read_npy(data[:_HEAD_LIMIT], len(data), what="the numpy file")
    else:
        members = read_directory(data, max_members=policy.tensors)
        require_bounded(members, policy)
        for member in members:
            require_npy_member(data, member)
    return TypeNotAllowed(
        "numpy arrays alone are not a model",
        hint="save them as safetensors with an architecture in config.json, or export the model to ONNX",
    )
