"""Several answers as one: averages, votes, maxima, by row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelyard.domain.composing import Averaged, Given, combined
from modelyard.domain.errors.inference import RunFailed
from modelyard.domain.graph import Combine, Node

Array = np.ndarray[Any, Any]
Outputs = dict[str, Array]


def combine(node: Node, answers: Sequence[Outputs], given: Sequence[Given]) -> Outputs:
    """The answer of an ensemble. `given` says what its parts promise.

    Raises:
        RunFailed: the parts' answers have different shapes.
    """
    if node.combine is Combine.MERGE:
        return {name: array for answer in answers for name, array in answer.items()}
    chosen = combined(node, given)
    weights = [step.weight if node.combine in (Combine.WEIGHTED, Combine.VOTE) else 1 for step in node.steps]
    out: Outputs = {}
    for name in chosen.names:
        arrays = [answer[name] for answer in answers]
        if any(array.shape != arrays[0].shape for array in arrays):
            raise RunFailed(f"the parts give {name} in different shapes", hint="the owner of the graph has to look")
        out[name] = _one(node.combine, arrays, weights)
    return out | _label(chosen, out, given)


def _one(how: Combine, arrays: Sequence[Array], weights: Sequence[int]) -> Array:
    if how is Combine.MAX:
        return np.asarray(np.maximum.reduce(arrays))
    if how is Combine.VOTE:
        return _vote(arrays, weights)
    total = sum(weights)
    summed = sum((array.astype("f8") * weight for array, weight in zip(arrays, weights, strict=True)), start=0.0)
    return np.asarray(summed / total).astype(arrays[0].dtype)


def _vote(arrays: Sequence[Array], weights: Sequence[int]) -> Array:
    """The value with the most weight, element by element; of equal ones the one that stands first."""
    stacked = np.stack([_comparable(array) for array in arrays])
    votes = np.stack(
        [
            sum((stacked[other] == stacked[mine]) * weights[other] for other in range(len(arrays)))
            for mine in range(len(arrays))
        ]
    )
    winner = votes.argmax(axis=0)
    return np.asarray(np.take_along_axis(stacked, winner[None], axis=0)[0])


def _comparable(array: Array) -> Array:
    """BYTES elements as bytes throughout, so that equal texts are equal."""
    if array.dtype != object:
        return array
    flat = np.empty(array.size, dtype=object)
    flat[:] = [value.encode() if isinstance(value, str) else bytes(value) for value in array.ravel().tolist()]
    return flat.reshape(array.shape)


def _label(chosen: Averaged, out: Mapping[str, Array], given: Sequence[Given]) -> Outputs:
    if chosen.label is None:
        return {}
    name, source = chosen.label
    scores = out[source]
    labels = np.empty(len(given[0].labels), dtype=object)
    labels[:] = [label.encode() for label in given[0].labels]
    return {name: labels[scores.argmax(axis=-1)].reshape(_label_shape(scores, given[0].specs[name].shape))}


def _label_shape(scores: Array, promised: Sequence[int]) -> tuple[int, ...]:
    return (*scores.shape[:-1], 1) if len(promised) == scores.ndim else scores.shape[:-1]
