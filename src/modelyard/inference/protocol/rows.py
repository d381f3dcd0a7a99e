"""Rows and columns as inputs: what V1, MLflow and CSV have in common.

A model with one input takes each row whole. A model with an input a column takes rows by column name, or plain lists in
the order of its inputs.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.inference import BadData, BadDatatype, BadShape, ShapeMismatch
from modelyard.domain.tensors import DataType
from modelyard.inference.protocol.careful import check_names, common_rows
from modelyard.inference.protocol.options import kind_of
from modelyard.inference.protocol.request import InferRequest
from modelyard.inference.protocol.signature import Input, Signature, count_of
from modelyard.inference.protocol.values import values_array

Array = np.ndarray[Any, Any]
_MAX_RANK: Final = 32


def from_instances(instances: object, signature: Signature) -> InferRequest:
    """One entry a row: the value of the only input, or an object by input name.

    Raises:
        BadData: not a list, or values that do not fit.
        BadShape: no rows at all.
        ShapeMismatch: rows of another width.
    """
    rows = _list(instances, "instances", signature)
    if isinstance(rows[0], dict) and not (signature.single is not None and "b64" in rows[0]):
        return from_records(rows, signature, extra_allowed=False)
    one = signature.single
    if one is not None:
        return from_columns({one.name: rows}, signature)
    names = list(signature.inputs)
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            got = f"{len(row)} values" if isinstance(row, list) else kind_of(row)
            raise signature.refusal(
                ShapeMismatch,
                f"row {number} is {got}; the model needs {len(names)}: {', '.join(map(quote, names[:8]))}",
                row=number,
                expected=names[:32],
                received=got,
            )
    return from_columns({name: [row[at] for row in rows] for at, name in enumerate(names)}, signature)


def from_records(records: Sequence[Any], signature: Signature, *, extra_allowed: bool) -> InferRequest:
    """Objects by column name, one a row; columns the model does not know are dropped where `extra_allowed`."""
    first = records[0]
    for number, record in enumerate(records):
        if not isinstance(record, dict) or record.keys() != first.keys():
            raise signature.refusal(
                BadData,
                f"row {number} is not an object with the same columns as row 0",
                row=number,
                expected=[quote(name) for name in list(first)[:32]] if isinstance(first, dict) else "an object",
                received=kind_of(record),
            )
    return from_frame({name: [record[name] for record in records] for name in first}, signature, extra_allowed)


def from_frame(frame: Mapping[str, list[Any]], signature: Signature, extra_allowed: bool) -> InferRequest:  # noqa: FBT001
    """Columns by name. With one input that is no column of its own, all columns side by side are its rows."""
    one = signature.single
    if one is not None and one.name not in frame:
        width = count_of(one.shape[signature.batched :])
        if len(frame) > 1 or (len(frame) == width and one.rank > 1):
            return from_columns({one.name: [list(row) for row in zip(*frame.values(), strict=True)]}, signature)
    if extra_allowed and all(name in frame for name in signature.inputs):
        frame = {name: frame[name] for name in signature.inputs}
    return from_columns(frame, signature)


def from_columns(columns: Mapping[str, list[Any]], signature: Signature) -> InferRequest:
    """Values by input name, one entry a row, each entry nested as deep as the input is."""
    check_names(list(columns), signature)
    arrays = {name: _array(columns[name], one, signature) for name, one in signature.inputs.items()}
    return InferRequest(arrays, common_rows(arrays, signature))


def _array(rows: object, one: Input, signature: Signature) -> Array:
    if one.kind is DataType.BF16:
        raise signature.refusal(
            BadDatatype, f"{quote(one.name)} is BF16, which JSON cannot carry", hint="use V2 binary tensor data"
        )
    values = _list(rows, one.name, signature)
    shape = _shape_of(values)
    fitted = one.fit(shape)
    if fitted is None:
        raise signature.refusal(
            ShapeMismatch,
            f"{quote(one.name)} has the shape {list(shape)}, the model takes {list(one.shape)} (-1: any size)",
            input=one.name,
            expected=list(one.shape),
            received=list(shape),
        )
    return values_array(_flat(values, shape, one, signature), fitted, one, signature)


def _shape_of(values: list[Any]) -> tuple[int, ...]:
    shape: list[int] = []
    level: Any = values
    while isinstance(level, list) and len(shape) < _MAX_RANK:
        shape.append(len(level))
        level = level[0] if level else None
    return tuple(shape)


def _flat(values: list[Any], shape: tuple[int, ...], one: Input, signature: Signature) -> list[Any]:
    """Flattened; rows are numbered at the first level, which is where a ragged one is named."""
    level = values
    per_row = 1
    for size in shape[1:]:
        for position, value in enumerate(level):
            if not isinstance(value, list) or len(value) != size:
                row = position // per_row
                got = f"{len(value)} values" if isinstance(value, list) else kind_of(value)
                raise signature.refusal(
                    ShapeMismatch,
                    f"row {row} of {quote(one.name)} has {got} where row 0 has {size} values",
                    input=one.name,
                    row=row,
                    expected=f"{size} values",
                    received=got,
                )
        level = [item for value in level for item in value]
        per_row *= size
    return [_element(value, one) for value in level]


def _element(value: object, one: Input) -> object:
    """V1 writes bytes as `{"b64": …}`; a float column may write whole numbers for an integer input."""
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        return _decoded(value["b64"])
    if isinstance(value, float) and value.is_integer() and not one.kind.is_float:
        return int(value)
    return value


def _decoded(text: str) -> object:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return {}


def _list(value: object, what: str, signature: Signature) -> list[Any]:
    if not isinstance(value, list):
        raise signature.refusal(
            BadData, f"{quote(what)} must be a list, not {kind_of(value)}", field=quote(what), expected="a list"
        )
    if not value:
        raise signature.refusal(
            BadShape, f"{quote(what)} has no rows; at least one is needed", field=quote(what), expected="rows"
        )
    return value
