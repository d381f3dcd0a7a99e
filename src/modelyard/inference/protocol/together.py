"""Writing the answers of a lot of requests that ask the same: the numbers of all at once, then cut apart.

The bytes of each answer are those that `write_infer` writes for it alone.
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


def write_together(
    form: Form, outputs: Mapping[str, Array], count: int, *, signature: Signature, version: str, model_name: str
) -> Written | None:
    """The answers to `count` requests of `form`, whose rows `outputs` holds in order; None: write each by itself.

    Raises:
        KeyError: the model gave no output that its contract promises.
        BadDatatype: an answer holds bytes that are no text; which, only writing each by itself tells.
    """
    request = form.request
    wanted = request.wanted
    if wanted is None:
        asked = [(name, request.binary_default) for name in signature.outputs]
    else:
        asked = [(one.name, one.binary) for one in wanted]
    kinds = [signature.outputs[name].datatype for name, _ in asked]
    if any(len(outputs[name]) != count * form.rows for name, _ in asked):
        return None
    head = head_of(signature, model_name, version) + b',"outputs":['
    if not any(binary for _, binary in asked):
        if DataType.BF16 in kinds:
            return None
        return _json([(name, outputs[name]) for name, _ in asked], form, count, head=head, signature=signature)
    if len(asked) > 1 or kinds[0] is DataType.BYTES:
        return None
    name = asked[0][0]
    array = outputs[name]
    raw = to_raw(array, kinds[0])
    size = len(raw) // count
    document = binary_opening(signature, name, (form.rows, *array.shape[1:]), size=size)
    opening = b"%b%b]}" % (head, document)
    return (
        Written(opening, [raw[at : at + size] for at in range(0, len(raw), size)], b"", len(opening)) if size else None
    )


def _json(asked: list[tuple[str, Array]], form: Form, count: int, *, head: bytes, signature: Signature) -> Written:
    columns: list[Any] = []
    opening = head
    for name, array in asked:
        begin = json_opening(signature, name, (form.rows, *array.shape[1:])) + b"["
        if columns:
            columns.append(repeat(b"]}," + begin))
        else:
            opening += begin
        columns.append(_cut(array, name, signature.outputs[name].datatype, count))
    middles = columns[0] if len(columns) == 1 else [b"".join(parts) for parts in zip(*columns, strict=False)]
    return Written(opening, middles, b"]}]}")


def _cut(array: Array, name: str, kind: DataType, count: int) -> list[bytes]:
    """The values of each request as JSON, without the brackets."""
    if kind is DataType.BYTES:
        plain = texts(array, name)
        each = len(plain) // count
        return (
            [orjson.dumps(plain[at : at + each])[1:-1] for at in range(0, len(plain), each)] if each else [b""] * count
        )
    memory = MEMORY[kind]
    flat = np.ascontiguousarray(array if array.dtype == memory else array.astype(memory)).reshape(count, -1)
    return orjson.dumps(flat, option=_NUMPY)[2:-2].split(b"],[")
