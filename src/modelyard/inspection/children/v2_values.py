"""Arrays as V2 tensors in plain JSON values, and back: what goldens and probe rows are written in."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.inspection.children.facts import Array

NUMPY: Final[dict[DataType, Any]] = {
    DataType.BOOL: np.bool_,
    DataType.UINT8: np.uint8,
    DataType.UINT16: np.uint16,
    DataType.UINT32: np.uint32,
    DataType.UINT64: np.uint64,
    DataType.INT8: np.int8,
    DataType.INT16: np.int16,
    DataType.INT32: np.int32,
    DataType.INT64: np.int64,
    DataType.FP16: np.float16,
    DataType.FP32: np.float32,
    DataType.FP64: np.float64,
    DataType.BYTES: np.object_,
}
FROM_NUMPY: Final = {np.dtype(kind): datatype for datatype, kind in NUMPY.items()}


def tensor(name: str, array: Array, datatype: DataType) -> dict[str, Any]:
    """One V2 tensor (Open Inference Protocol, "Tensor Data") with flat data; floats as short as they round-trip."""
    flat = array.ravel()
    data: list[Any]
    if datatype is DataType.BYTES:
        data = [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in flat]
    elif datatype in {DataType.FP16, DataType.FP32}:
        data = [float(str(value)) + 0.0 for value in flat]  # no minus before zero
    else:
        data = flat.tolist()
    return {"name": name, "shape": list(array.shape), "datatype": datatype.value, "data": data}


def array_of(value: Mapping[str, Any]) -> Array:
    """The array of a V2 tensor in JSON (flat or nested data)."""
    datatype = DataType(value["datatype"])
    shape = tuple(int(item) for item in value["shape"])
    if datatype is DataType.BYTES:
        return np.array([str(item).encode() for item in value["data"]], dtype=object).reshape(shape)
    return np.asarray(value["data"], dtype=NUMPY[datatype]).reshape(shape)


def document(arrays: Mapping[str, Array], specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    """The tensors of `specs`, in their order."""
    return [tensor(spec.name, arrays[spec.name], spec.datatype) for spec in specs]
