"""Writing the answers of a lot of requests that ask the same: the numbers of all at once, then cut apart.

The bytes of each answer are those that `write_infer` writes for it alone. What is the same for all answers of a form is
made once and kept with it (`_Plan`).
"""

from collections.abc import Mapping
from itertools import repeat
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from modelyard.domain.tensors import DataType
from modelyard.inference.protocol.answers import binary_opening, head_of, json_opening, texts
from modelyard.inference.protocol.datatypes import MEMORY, to_raw
from modelyard.inference.protocol.forms import Form
from modelyard.inference.protocol.signature import Signature

Array = np.ndarray[Any, Any]
_NUMPY: Final = orjson.OPT_SERIALIZE_NUMPY


class Written(NamedTuple):
    """Answers that differ in the middle; `json_size` as in `Encoded`."""

    opening: bytes
    middles: list[bytes]
    closing: bytes
    json_size: int | None = None


class _Column(NamedTuple):
    """One output that all ask for: its shape behind the rows, and what stands before its values."""

    name: str
    kind: DataType
    tail: tuple[int, ...]
    before: bytes


class _Plan(NamedTuple):
    """How the answers of one form look. `of` is what it was made for."""

    of: tuple[str, str]
    columns: tuple[_Column, ...]
    is_binary: bool

    def fits(self, outputs: Mapping[str, Array], rows: int) -> bool:
        """Whether the outputs have the shapes that the plan was made for."""
        return all(outputs[column.name].shape == (rows, *column.tail) for column in self.columns)


def write_together(
    form: Form, outputs: Mapping[str, Array], count: int, *, signature: Signature, version: str, model_name: str
) -> Written | None:
    """The answers to `count` requests of `form`, whose rows `outputs` holds in order; None: write each by itself.

    Raises:
        KeyError: the model gave no output that its contract promises.
        BadDatatype: an answer holds bytes that are no text; which, only writing each by itself tells.
    """
    plan: Any = form.plan
    rows = count * form.rows
    if plan is None or plan.of != (model_name, version) or not plan.fits(outputs, rows):
        plan = form.plan = _made(form, outputs, signature, of=(model_name, version))
        if plan is None or not plan.fits(outputs, rows):
            return None
    first = plan.columns[0]
    array = outputs[first.name]
    if plan.is_binary:
        raw = to_raw(array, first.kind)
        size = len(raw) // count
        return Written(first.before, [raw[at : at + size] for at in range(0, len(raw), size)], b"", len(first.before))
    middles = _cut(array, first, count)
    if len(plan.columns) > 1:
        parts: list[Any] = [middles]
        for column in plan.columns[1:]:
            parts += (repeat(column.before), _cut(outputs[column.name], column, count))
        middles = [b"".join(one) for one in zip(*parts, strict=False)]
    return Written(first.before, middles, b"]}]}")


def _made(form: Form, outputs: Mapping[str, Array], signature: Signature, *, of: tuple[str, str]) -> _Plan | None:
    """The plan for outputs of these shapes; None where answers of this form are not alike enough."""
    request = form.request
    if request.wanted is None:
        asked = [(name, request.binary_default) for name in signature.outputs]
    else:
        asked = [(one.name, one.binary) for one in request.wanted]
    is_binary = any(binary for _, binary in asked)
    kinds = [signature.outputs[name].datatype for name, _ in asked]
    if (is_binary and (len(asked) > 1 or kinds[0] is DataType.BYTES)) or (not is_binary and DataType.BF16 in kinds):
        return None
    columns: list[_Column] = []
    before = head_of(signature, *of) + b',"outputs":['
    for (name, _), kind in zip(asked, kinds, strict=True):
        tail = outputs[name].shape[1:]
        shape = (form.rows, *tail)
        if is_binary:
            size = form.rows * int(np.prod(tail, dtype=int)) * (kind.item_bytes or 0)
            if not size:
                return None
            before += binary_opening(signature, name, shape, size=size) + b"]}"
        else:
            before += json_opening(signature, name, shape) + b"["
        columns.append(_Column(name, kind, tail, before))
        before = b"]},"
    return _Plan(of, tuple(columns), is_binary)


def _cut(array: Array, column: _Column, count: int) -> list[bytes]:
    """The values of each request as JSON, without the brackets."""
    if column.kind is DataType.BYTES:
        plain = texts(array, column.name)
        each = len(plain) // count
        return (
            [orjson.dumps(plain[at : at + each])[1:-1] for at in range(0, len(plain), each)] if each else [b""] * count
        )
    memory = MEMORY[column.kind]
    flat = (array if array.dtype == memory else array.astype(memory)).reshape(count, -1)
    return orjson.dumps(np.ascontiguousarray(flat), option=_NUMPY)[2:-2].split(b"],[")
