"""How many bytes joblib wrote behind a `NumpyArrayWrapper` (joblib.numpy_pickle, `NumpyArrayWrapper.read_array`)."""

import re
from collections.abc import Mapping
from math import prod
from typing import Any, Final

from modelyard.domain.errors.uploads import WeightsFormat
from modelyard.inspection.octets import Octets

_DTYPE: Final = re.compile(r"([bBiufcSUVmMO?])([0-9]{1,9})")
_MAX_RANK: Final = 64


def array_span(state: Mapping[str, object], data: Octets, pos: int) -> int | None:
    """Bytes from `pos` to the end of the array, padding included; None when the array is a pickle of objects.

    `state` is what the pickle gave the wrapper. Anything in it that is not plain makes the span unknown: refused.
    """
    shape = state.get("shape")
    if not isinstance(shape, tuple) or len(shape) > _MAX_RANK or not all(type(n) is int and n >= 0 for n in shape):
        raise WeightsFormat("an array of the file has no plain shape")
    item = _item_bytes(state.get("dtype"))
    if item is None:
        return None
    size = prod(shape) * item
    if state.get("numpy_array_alignment_bytes") is None:
        return size
    if pos >= len(data):
        raise WeightsFormat("the file is cut short before an array")
    return 1 + data[pos] + size


def _item_bytes(dtype: Any) -> int | None:  # noqa: ANN401  (a stand-in of the machine, told by its attributes)
    """Item size of a pickled `numpy.dtype`; None when it holds objects."""
    if str(getattr(dtype, "maker", "")) != "numpy.dtype" or not isinstance(dtype.args, tuple) or not dtype.args:
        raise WeightsFormat("an array of the file has no plain element type")
    match = _DTYPE.fullmatch(str(dtype.args[0]))
    if match is None:
        raise WeightsFormat("an array of the file has no plain element type")
    kind, count = match[1], int(match[2])
    if kind == "O" or (kind == "V" and _has_objects(dtype.state)):
        return None
    return count * 4 if kind == "U" else count


def _has_objects(state: object) -> bool:
    """Whether a record type has an object field: `state` is (version, order, subtype, names, fields, size, …)."""
    if not isinstance(state, tuple) or len(state) < 6:  # noqa: PLR2004
        raise WeightsFormat("a record type of the file cannot be read")
    subtype, fields = state[2], state[4]
    parts = list(getattr(fields, "items", {}).values()) if fields is not None else []
    inner = [part[0] for part in parts if isinstance(part, tuple) and part]
    if isinstance(subtype, tuple) and subtype:
        inner.append(subtype[0])
    if len(inner) < len(parts):
        raise WeightsFormat("a record type of the file cannot be read")
    return any(_item_bytes(one) is None for one in inner)
