"""safetensors: an 8-byte length, a JSON header, and data that the tensors tile exactly.

Stricter than the reference reader where that accepts what nobody should write: leading spaces, duplicate names, tensors
without number, names that are paths, bytes that no tensor owns (safetensors README, "Format").
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import AuditTimeout, WeightsFormat
from modelyard.inspection.documents.json_text import read_json, require_object
from modelyard.inspection.octets import Cursor, Octets
from modelyard.inspection.policy import InspectionPolicy

ITEM_BITS: Final[Mapping[str, int]] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64,
}  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z0-9_.:/\[\]@ -]{1,512}")
_MAX_EMPTY: Final = 1024
_HINT: Final = "write the file again with the safetensors library"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor; `begin` and `end` are positions in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_safetensors(data: Octets, policy: InspectionPolicy) -> Mapping[str, Tensor]:
    """All tensors by name, in the order of their bytes.

    Raises:
        WeightsFormat: the file breaks the format anywhere.
        AuditTimeout: more tensors than an audit looks at.
    """
    cursor = Cursor(data, "safetensors")
    length = cursor.u64()
    if length > policy.safetensors_header_bytes or length > cursor.left:
        raise WeightsFormat(
            f"the header states {length} bytes, {cursor.left} follow, "
            f"at most {policy.safetensors_header_bytes} are read",
            hint=_HINT,
        )
    header = cursor.take(length)
    if not header.startswith(b"{"):
        raise WeightsFormat("the header does not begin with {", hint=_HINT)
    _require_countable(header, policy)
    value = read_json(header.rstrip(b" "), what="the header", policy=policy, refused=WeightsFormat)
    entries = require_object(value, what="the header", refused=WeightsFormat)
    _require_metadata(entries.pop("__metadata__", {}))
    tensors = [_tensor(name, entry, cursor.pos, policy) for name, entry in entries.items()]
    _require_tiling(tensors, cursor.pos, len(data))
    return {tensor.name: tensor for tensor in sorted(tensors, key=lambda one: (one.begin, one.end))}


def _require_countable(header: bytes, policy: InspectionPolicy) -> None:
    count = header.count(b'"data_offsets"')
    if count > policy.tensors:
        raise AuditTimeout(f"{count} tensors are more than the {policy.tensors} that an audit looks at", hint=_HINT)


def _require_metadata(value: object) -> None:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise WeightsFormat("__metadata__ must map text to text", hint=_HINT)


def _tensor(name: str, entry: object, base: int, policy: InspectionPolicy) -> Tensor:
    if not _NAME.fullmatch(name) or ".." in name.split("/") or name.startswith("/"):
        raise WeightsFormat(f"{quote(name)} is not a tensor name", hint="use letters, digits and . _ : / -")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise WeightsFormat(f"tensor {quote(name)} needs dtype, shape and data_offsets, and nothing else", hint=_HINT)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        raise WeightsFormat(f"tensor {quote(name)} has the unknown dtype {quote(dtype)}", hint=_HINT)
    if not _are_counts(shape) or len(shape) > policy.rank:
        raise WeightsFormat(f"tensor {quote(name)} has no valid shape of at most {policy.rank} sizes", hint=_HINT)
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:  # noqa: PLR2004
        raise WeightsFormat(f"tensor {quote(name)} has no valid data_offsets", hint=_HINT)
    bits = prod(shape) * ITEM_BITS[dtype]
    if bits % 8 or bits // 8 != offsets[1] - offsets[0]:
        raise WeightsFormat(
            f"tensor {quote(name)}: {dtype} {shape} needs {-(-bits // 8)} bytes, "
            f"its range has {offsets[1] - offsets[0]}",
            hint=_HINT,
        )
    return Tensor(name, dtype, tuple(shape), base + offsets[0], base + offsets[1])


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _require_tiling(tensors: list[Tensor], begin: int, end: int) -> None:
    """No hole, no overlap, no byte before, between or after the tensors."""
    spans = sorted((tensor.begin, tensor.end) for tensor in tensors)
    if not spans:
        raise WeightsFormat("the file holds no tensors", hint=_HINT)
    if sum(first == last for first, last in spans) > _MAX_EMPTY:
        raise WeightsFormat(f"more than {_MAX_EMPTY} tensors are empty", hint=_HINT)
    if spans[0][0] != begin or any(one[1] != two[0] for one, two in pairwise(spans)):
        raise WeightsFormat("tensors overlap, or bytes lie between them", hint=_HINT)
    if spans[-1][1] != end:
        raise WeightsFormat(f"the tensors end at byte {spans[-1][1]}, the file at {end}", hint=_HINT)
