"""The golden answer: a request whose answer intake recorded, asked again before a model takes traffic."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from modelyard.domain.contract import Golden, ModelContract
from modelyard.domain.errors.inference import NotReady
from modelyard.domain.tensors import DataType, TensorSpec

Array = np.ndarray[Any, Any]

RTOL: Final = 1e-4
ATOL: Final = 1e-5
_NUMPY: Final[Mapping[str, str]] = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "u2",
    "UINT32": "u4",
    "UINT64": "u8",
    "INT8": "i1",
    "INT16": "i2",
    "INT32": "i4",
    "INT64": "i8",
    "FP16": "f2",
    "FP32": "f4",
    "FP64": "f8",
}


def golden_inputs(golden: Golden) -> dict[str, Array]:
    """The golden request as arrays."""
    return {tensor["name"]: _array(tensor) for tensor in golden.request["inputs"]}


def neutral_inputs(contract: ModelContract) -> dict[str, Array]:
    """One row of zeros, false or the first category: enough to touch every part of the model once."""
    return {spec.name: _neutral(spec) for spec in contract.inputs}


def check_golden(outputs: Mapping[str, Array], expected: Iterable[Mapping[str, Any]]) -> None:
    """Compare with the recorded answer: text exactly, numbers within `RTOL` and `ATOL`, NaN equal to NaN.

    Raises:
        NotReady: an output is missing or differs; the text names it and the largest difference.
    """
    for tensor in expected:
        name, want = tensor["name"], _array(tensor)
        got = outputs.get(name)
        if got is None or got.size != want.size:
            raise NotReady(f"golden check: the output {name} is missing or has another size")
        if tensor["datatype"] == DataType.BYTES:
            same = got.ravel().tolist() == want.ravel().tolist()
            distance = ""
        else:
            left, right = got.ravel().astype("f8"), want.ravel().astype("f8")
            same = bool(np.allclose(left, right, rtol=RTOL, atol=ATOL, equal_nan=True))
            distance = f" by up to {np.nanmax(np.abs(left - right)):.3g}" if left.size else ""
        if not same:
            raise NotReady(
                f"golden check: the output {name} differs from the recorded answer{distance}",
                hint="the library versions of intake and server may differ; upload the model again",
            )


def _array(tensor: Mapping[str, Any]) -> Array:
    data, shape = tensor["data"], tuple(tensor["shape"])
    if tensor["datatype"] == DataType.BYTES:
        values = np.empty(len(data), dtype=object)
        values[:] = [value.encode() if isinstance(value, str) else value for value in data]
        return values.reshape(shape)
    plain = [float("nan") if value is None else value for value in data]
    return np.array(plain, dtype=_NUMPY[tensor["datatype"]]).reshape(shape)


def _neutral(spec: TensorSpec) -> Array:
    shape = tuple(1 if size < 0 else size for size in spec.shape)
    if spec.datatype is DataType.BYTES:
        value = spec.categories[0] if spec.categories else ""
        array = np.empty(shape, dtype=object)
        array.fill(value.encode())
        return array
    first = int(spec.categories[0]) if spec.categories and not spec.datatype.is_float else 0
    return np.full(shape, first, dtype=_NUMPY[spec.datatype])
