"""JSON values as the array an input needs, or the one sentence that says which value is in the way.

The careful half of reading: it visits each value, so it is used where the quick path stopped, to find the culprit.
"""

import math
import struct
from typing import Any, Final

import numpy as np

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.inference import BadData, SizeMismatch, UnknownCategory
from modelyard.domain.tensors import DataType
from modelyard.inference.protocol.datatypes import MEMORY, objects
from modelyard.inference.protocol.options import kind_of
from modelyard.inference.protocol.signature import Input, Signature, count_of

Array = np.ndarray[Any, Any]
_RANGE_WORDS: Final = {
    DataType.FP16: "65504",
    DataType.FP32: "3.4e38",
    DataType.FP64: "1.8e308",
    DataType.BF16: "3.4e38",
}


def array_of(data: object, shape: tuple[int, ...], one: Input, signature: Signature) -> Array:
    """`data`, nested as `shape` says or flat, as an array of `shape`.

    Raises:
        BadData: ragged, of the wrong type, out of range, null where the model takes no missing value.
        SizeMismatch: another number of values than the shape has.
    """
    if not isinstance(data, list):
        raise signature.refusal(
            BadData,
            f"the data of {quote(one.name)} must be a list, not {kind_of(data)}",
            input=one.name,
            expected="a list",
            received=kind_of(data),
        )
    values = _flatten(data, shape, one, signature)
    if len(values) != count_of(shape):
        raise size_mismatch(one, signature, shape, len(values))
    return values_array(values, shape, one, signature)


def values_array(values: list[Any], shape: tuple[int, ...], one: Input, signature: Signature) -> Array:
    """Flat values, as many as `shape` has, each checked."""
    width = count_of(shape) // signature.rows_of(shape)
    take = _TAKERS.get(one.kind, _integer)
    ready: list[Any] = []
    for position, value in enumerate(values):
        taken = take(value, one)
        if isinstance(taken, _Refusal):
            raise _refuse(one, signature, value, row=position // max(width, 1), why=taken)
        ready.append(taken)
    if one.kind is DataType.BYTES:
        array = objects(ready).reshape(shape)
    else:
        array = np.array(ready, dtype=one.dtype).reshape(shape)
    return check_values(array, one, signature)


def check_values(array: Array, one: Input, signature: Signature) -> Array:
    """`array` if the model can take each value: finite (or NaN, where it is made for that), of a known category."""
    if one.kind.is_float:
        odd = np.isinf(array) if one.allows_nan else ~np.isfinite(array)
        if odd.any():
            index = int(odd.argmax())
            found = "NaN" if np.isnan(array.flat[index]) else "infinity"
            raise _refuse(one, signature, found, row=_row(array, index, signature), why=_Refusal("a finite number"))
    if one.allowed is not None:
        _check_categories(array, one, one.allowed, signature)
    return array


def _check_categories(array: Array, one: Input, allowed: frozenset[object], signature: Signature) -> None:
    for index, value in enumerate(array.ravel().tolist()):
        if value in allowed or (one.allows_nan and value != value):  # noqa: PLR0124  (NaN differs from itself)
            continue
        shown = quote(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
        row = _row(array, index, signature)
        known = [quote(name) for name in (one.spec.categories or ())[:8]]
        raise signature.refusal(
            UnknownCategory,
            f"row {row} of {quote(one.name)} is {shown}, which the model does not know",
            hint=f"it knows: {', '.join(known)}",
            input=one.name,
            row=row,
            expected=known,
            received=shown,
        )


def size_mismatch(one: Input, signature: Signature, shape: tuple[int, ...], count: int) -> SizeMismatch:
    """Another number of values than the shape has."""
    return signature.refusal(
        SizeMismatch,
        f"{quote(one.name)} has {count} values, its shape {list(shape)} needs {count_of(shape)}",
        input=one.name,
        expected=f"{count_of(shape)} values",
        received=f"{count} values",
    )


class _Refusal(str):
    """What was expected instead."""

    __slots__ = ()


def _refuse(one: Input, signature: Signature, value: object, *, row: int, why: _Refusal) -> BadData:
    received = value if value in ("NaN", "infinity") else kind_of(value)
    if isinstance(value, str) and one.kind is not DataType.BYTES and received == "a text":
        received = f"the text {quote(value)}"
    return signature.refusal(
        BadData,
        f"row {row} of {quote(one.name)} holds {received}; {one.datatype} needs {why}",
        input=one.name,
        row=row,
        expected=str(why),
        received=received,
    )


def _row(array: Array, index: int, signature: Signature) -> int:
    rows = signature.rows_of(array.shape)
    return index // max(array.size // rows, 1)


def _flatten(data: list[Any], shape: tuple[int, ...], one: Input, signature: Signature) -> list[Any]:
    if not any(isinstance(value, list) for value in data):
        return data
    level: list[Any] = data
    for depth, size in enumerate(shape):
        if depth:
            for row, value in enumerate(level):
                if not isinstance(value, list) or len(value) != size:
                    got = f"{len(value)} values" if isinstance(value, list) else kind_of(value)
                    raise _ragged(one, signature, shape, f"entry {row} at depth {depth} is {got}, not {size} values")
            level = [item for value in level for item in value]
        elif len(level) != size:
            raise _wrong_length(one, signature, shape, len(level))
    if any(isinstance(value, list) for value in level):
        raise _ragged(one, signature, shape, f"it is nested deeper than {len(shape)}")
    return level


def _wrong_length(one: Input, signature: Signature, shape: tuple[int, ...], entries: int) -> SizeMismatch:
    return signature.refusal(
        SizeMismatch,
        f"the data of {quote(one.name)} has {entries} entries at the top, its shape {list(shape)} needs {shape[0]}",
        input=one.name,
        expected=f"{shape[0]} entries",
        received=f"{entries} entries",
    )


def _ragged(one: Input, signature: Signature, shape: tuple[int, ...], why: str) -> BadData:
    return signature.refusal(
        BadData,
        f"the data of {quote(one.name)} is not nested as its shape {list(shape)} says: {why}",
        input=one.name,
        expected=f"nested as {list(shape)}, or flat",
        received=why,
    )


def _text(value: object, one: Input) -> bytes | _Refusal:
    del one
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else _Refusal("text")


def _boolean(value: object, one: Input) -> bool | _Refusal:
    del one
    return value if isinstance(value, bool) else _Refusal("true or false")


def _real(value: object, one: Input) -> float | _Refusal:
    if value is None and one.allows_nan:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _Refusal("a number")
    limit = _Refusal(f"a number within ±{_RANGE_WORDS[one.kind]}")
    try:
        number = float(value)
        if one.kind is not DataType.FP64 and not math.isnan(number):
            struct.pack("<e" if one.kind is DataType.FP16 else "<f", number)
    except OverflowError:
        return limit
    return limit if math.isinf(number) else number


def _integer(value: object, one: Input) -> int | _Refusal:
    bounds = np.iinfo(MEMORY[one.kind])
    if isinstance(value, bool) or not isinstance(value, int) or not bounds.min <= value <= bounds.max:
        return _Refusal(f"a whole number from {bounds.min} to {bounds.max}")
    return value


_TAKERS: Final[dict[DataType, Any]] = {
    DataType.BYTES: _text,
    DataType.BOOL: _boolean,
    DataType.FP16: _real,
    DataType.FP32: _real,
    DataType.FP64: _real,
    DataType.BF16: _real,
}
