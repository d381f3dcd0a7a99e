"""Rows that a student learns from: split so that no row is on both sides, and more of them made by mixing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.errors.platform import InvalidRequest, NotSupported
from modelyard.domain.tensors import TensorSpec
from modelyard.foundation.samples import LEAST_ROWS, Sample

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_SWAPPED: Final = 0.15


def matrix(sample: Sample, specs: Sequence[TensorSpec]) -> "Array":
    """All inputs side by side: FP32 [rows, numbers of a row].

    Raises:
        NotSupported: a value is missing.
    """
    import numpy as np

    parts = [sample.inputs[spec.name].reshape(sample.rows, -1).astype(np.float32) for spec in specs]
    whole = np.concatenate(parts, axis=1)
    if not np.isfinite(whole).all():
        raise NotSupported("values are missing in the rows, and students take whole rows only")
    return whole


def as_sample(rows: "Array", specs: Sequence[TensorSpec], like: Sample) -> Sample:
    """The matrix as the model's inputs again, in the types of `like`."""
    import numpy as np

    inputs, begin = {}, 0
    for spec in specs:
        shape, kind = like.inputs[spec.name].shape[1:], like.inputs[spec.name].dtype
        width = int(np.prod(shape, dtype=int))
        inputs[spec.name] = rows[:, begin : begin + width].reshape(len(rows), *shape).astype(kind)
        begin += width
    return Sample(inputs, None, len(rows))


def picked(sample: Sample, places: "Array") -> Sample:
    """The rows at these places."""
    target = None if sample.target is None else sample.target[places]
    return Sample({name: values[places] for name, values in sample.inputs.items()}, target, len(places))


def split(rows: "Array", part: float, seed: int) -> "tuple[Array, Array]":
    """Places of rows to learn from, and of held-out ones, about `part` of all; equal rows stay on one side.

    Raises:
        InvalidRequest: too few are left on a side.
    """
    import numpy as np

    _, group = np.unique(rows, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.random.default_rng(seed).permutation(int(group.max()) + 1)
    is_held = np.isin(group, order[: round(part * len(order))])
    known, held = np.flatnonzero(~is_held), np.flatnonzero(is_held)
    if min(len(known), len(held)) < LEAST_ROWS:
        raise InvalidRequest(
            f"{len(known)} rows to learn from and {len(held)} held-out ones are too few",
            hint=f"at least {LEAST_ROWS} of each: give a larger sample, or held rows of their own",
            details=[{"field": "inputs.sample", "expected": "more rows"}],
        )
    return known, held


def mixed(rows: "Array", count: int, seed: int) -> "Array":
    """`count` new rows within the range of `rows`: half lie between two, half take some values from another.

    Columns of whole numbers stay whole.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    first, second = rows[rng.integers(0, len(rows), count)], rows[rng.integers(0, len(rows), count)]
    share = rng.uniform(0, 0.5, (count, 1)).astype(np.float32)
    between = first + share * (second - first)
    exchanged = np.where(rng.random(first.shape) < _SWAPPED, second, first)
    made = np.where(rng.random((count, 1)) < 0.5, between, exchanged)  # noqa: PLR2004  (halves)
    is_whole = (rows == np.round(rows)).all(axis=0)
    return np.where(is_whole, np.round(made), made).astype(np.float32)
