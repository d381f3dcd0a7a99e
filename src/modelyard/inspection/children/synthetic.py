"""Rows for a graph that tells nothing of its training: small numbers of the right type and shape, always the same."""

from collections.abc import Mapping
from math import prod
from typing import Any, Final

import numpy as np

from modelyard.domain.contract import ModelContract
from modelyard.domain.tensors import VARIABLE, DataType, TensorSpec
from modelyard.inspection.children.v2_values import NUMPY

SEED: Final = 20_250_101
MAX_ELEMENTS: Final = 4_000_000
_FREE_SIZE: Final = 4
_ROWS: Final = 64

Arrays = dict[str, np.ndarray[Any, Any]]


def arrays_for(contract: ModelContract) -> Arrays:
    """One array an input, as many rows as stay small; sizes that each request chooses are 4."""
    per_row = max(1, *(prod(_sizes(item)[1:]) for item in contract.inputs))
    rows = max(1, min(_ROWS, MAX_ELEMENTS // per_row))
    rng = np.random.default_rng(SEED)
    return {item.name: _values(item, rows, rng) for item in contract.inputs}


def as_sent(arrays: Mapping[str, np.ndarray[Any, Any]], contract: ModelContract, *, limit: int) -> Arrays:
    """The contract's datatypes, at most `limit` rows where rows are free."""
    sent = {}
    for item in contract.inputs:
        array = arrays[item.name]
        array = array[:limit] if item.shape and item.shape[0] == VARIABLE else array
        sent[item.name] = array.astype(NUMPY[item.datatype])
    return sent


def _sizes(item: TensorSpec) -> list[int]:
    return [size if size != VARIABLE else _FREE_SIZE for size in item.shape]


def _values(item: TensorSpec, rows: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    sizes = _sizes(item)
    if item.shape and item.shape[0] == VARIABLE:
        sizes[0] = rows
    if item.datatype is DataType.BYTES:
        values = np.empty(prod(sizes), dtype=object)
        values[:] = [f"text {number}".encode() for number in range(len(values))]
        return values.reshape(sizes)
    if item.datatype is DataType.BOOL:
        return rng.integers(0, 2, sizes).astype(np.bool_)
    if not item.datatype.is_float:
        return rng.integers(0, 2, sizes).astype(NUMPY[item.datatype])  # 0 and 1 are positions in any table
    return np.round(rng.uniform(0, 1, sizes), 3).astype(NUMPY[item.datatype])
