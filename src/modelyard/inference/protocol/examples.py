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


def example_instances(example: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The same request in the V1 dialect: rows of the only input, or objects by input name."""
    if example is None:
        return None
    inputs = example["inputs"]
    columns = {tensor["name"]: _rows(tensor) for tensor in inputs}
    if len(columns) == 1:
        return {"instances": next(iter(columns.values()))}
    return {"instances": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def _rows(tensor: Mapping[str, Any]) -> list[Any]:
    """The rows of a flat tensor, nested, where a row of one value is that value."""
    level: list[Any] = list(tensor["data"])
    sizes = list(tensor["shape"])
    if len(sizes) == 2 and sizes[1] == 1:  # noqa: PLR2004  (a column)
        sizes.pop()
    for size in reversed(sizes[1:]):
        level = [level[at : at + size] for at in range(0, len(level), size)]
    return level


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
