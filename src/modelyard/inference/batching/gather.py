"""Arrays of several calls as one batch, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelyard.inference.batching.call import Call

Array = np.ndarray[Any, Any]


def gather(calls: Sequence[Call]) -> dict[str, Array]:
    """The inputs of `calls`, joined along the batch axis; those of a single call as they are."""
    first = calls[0].inputs
    if len(calls) == 1:
        return first
    return {name: np.concatenate([call.inputs[name] for call in calls]) for name in first}


def is_scatterable(outputs: Mapping[str, Array], rows: int) -> bool:
    """Whether every output has one entry a row."""
    return all(array.ndim > 0 and len(array) == rows for array in outputs.values())


def join(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The outputs of runs over parts of one request, in order."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
