"""Requests that succeed when pasted: the golden one where intake recorded it, else one made from the contract."""

import math
from collections.abc import Mapping
from typing import Any, Final

from modelyard.domain.contract import Golden, ModelContract
from modelyard.domain.tensors import DataType, TensorSpec

MAX_GOLDEN_VALUES: Final = 2048
MAX_VALUES: Final = 32_768
"""Beyond this many values no example is given: an error must not be larger than what it answers by far."""


def example_request(contract: ModelContract, golden: Golden | None) -> Mapping[str, Any] | None:
    """A V2 request body for `contract`; None where only a huge one, or a binary one, would do."""
    if golden is not None and _values(golden.request) <= MAX_GOLDEN_VALUES:
        return {"inputs": golden.request["inputs"]}
    inputs = [_tensor(spec) for spec in contract.inputs]
    if any(spec.datatype is DataType.BF16 for spec in contract.inputs):
        return None
    return {"inputs": inputs} if sum(len(tensor["data"]) for tensor in inputs) <= MAX_VALUES else None


def _values(request: Mapping[str, Any]) -> int:
    return sum(len(tensor["data"]) for tensor in request["inputs"])


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    shape = [1 if size < 0 else size for size in spec.shape]
    count = min(math.prod(shape), MAX_VALUES + 1)
    return {"name": spec.name, "shape": shape, "datatype": spec.datatype.value, "data": [_value(spec)] * count}


def _value(spec: TensorSpec) -> bool | float | int | str:
    first = spec.categories[0] if spec.categories else None
    match spec.datatype:
        case DataType.BYTES:
            return first if first is not None else "text"
        case DataType.BOOL:
            return False
        case datatype if datatype.is_float:
            return float(first) if first is not None else 0.5
        case _:
            return int(first) if first is not None else 1
