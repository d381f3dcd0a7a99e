"""How many bytes joblib wrote behind a `NumpyArrayWrapper` (joblib.numpy_pickle, `NumpyArrayWrapper.read_array`).

The number decides which bytes are opcodes, so it is computed only from a description that can be read in one way: made
without arguments, given its state once, with every field of it known. A type's size and whether it holds objects are in
its state too (numpy, `arraydescr_setstate`): they must be what its name says.
"""

import re
from math import prod
from typing import Final

from modelyard.domain.errors.uploads import WeightsFormat
from modelyard.inspection.octets import Octets
from modelyard.inspection.weights.pickle_values import Fields, Global, Made

_DTYPE: Final = re.compile(r"([biufcSUVmMO])([0-9]{1,9})")
_FLEXIBLE: Final = "SUV"
_MAX_RANK: Final = 64
_STATE_ITEMS: Final = 8
_HAS_OBJECTS: Final = 1
_NUMPY_DTYPE: Final = Global("numpy", "dtype")


def array_span(wrapper: Made, data: Octets, pos: int) -> int | None:
    """Bytes from `pos` to the end of the array, padding included; None when the array is a pickle of objects."""
    state = wrapper.state
    if not isinstance(state, Fields) or not state.is_whole or wrapper.args not in ((), None):
        raise WeightsFormat("an array of the file is not described in the plain way")
    shape = state.items.get("shape")
    if not isinstance(shape, tuple) or len(shape) > _MAX_RANK or not all(type(n) is int and n >= 0 for n in shape):
        raise WeightsFormat("an array of the file has no plain shape")
    item = _item_bytes(state.items.get("dtype"))
    if item is None:
        return None
    size = prod(shape) * item
    alignment = state.items.get("numpy_array_alignment_bytes")
    if alignment is None:
        return size
    if type(alignment) is not int or pos >= len(data):
        raise WeightsFormat("the file is cut short before an array, or its padding is not plain")
    return 1 + data[pos] + size


def _item_bytes(dtype: object) -> int | None:
    """Item size of a pickled `numpy.dtype`; None when it holds objects."""
    if (
        not isinstance(dtype, Made)
        or dtype.maker != _NUMPY_DTYPE
        or not isinstance(dtype.args, tuple)
        or not dtype.args
    ):
        raise _no_type()
    match = _DTYPE.fullmatch(str(dtype.args[0]))
    if match is None or not isinstance(dtype.state, tuple) or len(dtype.state) < _STATE_ITEMS:
        raise _no_type()
    kind, count = match[1], int(match[2])
    item = count * 4 if kind == "U" else count
    stated, flags = dtype.state[5], dtype.state[7]
    if type(flags) is not int or stated != (item if kind in _FLEXIBLE else -1):
        raise _no_type()
    has_objects = kind == "O" or (kind == "V" and _has_object_field(dtype.state))
    if has_objects is not bool(flags & _HAS_OBJECTS):
        raise _no_type()
    return None if has_objects else item


def _has_object_field(state: tuple[object, ...]) -> bool:
    """Whether a record type has an object field: `state` is (version, order, subtype, names, fields, size, …)."""
    subtype, fields = state[2], state[4]
    inner: list[object] = []
    if fields is not None:
        if not isinstance(fields, Fields) or not fields.is_whole:
            raise _no_type()
        for part in fields.items.values():
            if not isinstance(part, tuple) or not part:
                raise _no_type()
            inner.append(part[0])
    if subtype is not None:
        if not isinstance(subtype, tuple) or not subtype:
            raise _no_type()
        inner.append(subtype[0])
    return any(_item_bytes(one) is None for one in inner)


def _no_type() -> WeightsFormat:
    return WeightsFormat("an array of the file has no plain element type")
