"""Which step of a switch or a splitter answers."""

import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from modelyard.domain.graph import ALL, Comparison, Condition, Node

Array = np.ndarray[Any, Any]
Choice = int | Array
"""A step for the whole request, or one for each row."""
_COMPARE: Final[Mapping[Comparison, Callable[[Any, Any], Any]]] = {
    Comparison.EQ: operator.eq,
    Comparison.NE: operator.ne,
    Comparison.LT: operator.lt,
    Comparison.LE: operator.le,
    Comparison.GT: operator.gt,
    Comparison.GE: operator.ge,
}


def choose_switch(node: Node, tensors: Mapping[str, Array], parameters: Mapping[str, Any], *, rows: int) -> Choice:
    """The first step whose condition holds, row by row where one looks at a tensor; the last step is the default."""
    chosen = np.full(rows, len(node.steps) - 1)
    open_rows = np.ones(rows, dtype=bool)
    for index, step in enumerate(node.steps[:-1]):
        assert step.when is not None
        holds = _holds(step.when, tensors, parameters, rows=rows) & open_rows
        chosen[holds] = index
        open_rows &= ~holds
    first = int(chosen[0])
    return first if (chosen == first).all() else chosen


def choose_share(value: object, node: Node, name: str) -> int:
    """The step whose share of all values this one falls into: the same for the same value, on every server."""
    digest = hashlib.blake2b(f"{name}\0{value}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") % ALL
    for index, step in enumerate(node.steps):
        place -= step.weight
        if place < 0:
            return index
    return len(node.steps) - 1


def _holds(when: Condition, tensors: Mapping[str, Array], parameters: Mapping[str, Any], *, rows: int) -> Array:
    if when.input is None:
        value = parameters.get(when.parameter or "")
        return np.full(rows, value is not None and _compare(when, value))
    array = tensors[when.input]
    cells = array.reshape(rows, -1)
    if when.element >= cells.shape[1]:
        return np.zeros(rows, dtype=bool)
    return np.array([_compare(when, value) for value in cells[:, when.element].tolist()], dtype=bool)


def _compare(when: Condition, value: object) -> bool:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    wanted: Sequence[object] = when.value if isinstance(when.value, tuple) else (when.value,)
    if when.op is Comparison.IN:
        return any(_same(value, one) for one in wanted)
    if when.op in (Comparison.EQ, Comparison.NE):
        return _same(value, wanted[0]) is (when.op is Comparison.EQ)
    if isinstance(value, str) is not isinstance(wanted[0], str):
        return False
    return bool(_COMPARE[when.op](value, wanted[0]))


def _same(one: object, other: object) -> bool:
    return isinstance(one, str) is isinstance(other, str) and one == other
