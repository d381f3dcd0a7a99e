"""Do original and conversion give the same answers? Measured on rows, said with figures.

The rule: the same class on at least 99.9 % of the rows, numbers within rtol 1e-4 and atol 1e-5. Rows of a classifier
that differ in class are part of the 0.1 %; a model of numbers has no such allowance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modelyard.inspection.children.facts import Array

RTOL: Final = 1e-4
ATOL: Final = 1e-5
AGREEMENT: Final = 0.999
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was measured. `rows_differ` are positions; `worst` the largest absolute difference of a number."""

    rows: int
    rows_differ: tuple[int, ...]
    classes_agree: float
    worst: float
    worst_relative: float
    where: str
    exact: bool

    @property
    def is_equal(self) -> bool:
        """Whether the rule holds."""
        allowed = 0.0 if self.exact else 1 - AGREEMENT
        return len(self.rows_differ) <= allowed * self.rows and self.classes_agree >= AGREEMENT

    def evidence(self) -> dict[str, Any]:
        """Figures for the report."""
        return {
            "rows": self.rows,
            "rows_differ": len(self.rows_differ),
            "classes_agree": round(self.classes_agree, 6),
            "worst_difference": self.worst,
            "worst_relative_difference": self.worst_relative,
            "output": self.where,
            "rtol": RTOL,
            "atol": ATOL,
            "agreement_wanted": AGREEMENT,
        }


def compare(original: Mapping[str, Array], converted: Mapping[str, Array]) -> Comparison:
    """The outputs that both have, row by row."""
    rows = len(next(iter(original.values())))
    differ = np.zeros(rows, dtype=bool)
    agree, worst, relative, where, exact = 1.0, 0.0, 0.0, "", True
    for name, expected in original.items():
        got = np.asarray(converted[name])
        if got.shape != expected.shape:
            return Comparison(rows=rows, rows_differ=tuple(range(rows)), classes_agree=0.0, worst=float("inf"),
                              worst_relative=float("inf"), where=f"{name}: shape {list(got.shape)}, "
                              f"not {list(expected.shape)}", exact=True)  # fmt: skip
        if expected.dtype.kind in "iu":
            unequal = (got != expected).reshape(rows, -1).any(axis=1)
            agree, exact = min(agree, 1 - float(unequal.mean())), False
            where = name if unequal.any() else where
        else:
            unequal, far, far_relative = _numbers(expected, got, rows)
            if far > worst or (unequal.any() and not where):
                worst, relative, where = far, far_relative, name
        differ |= unequal
    return Comparison(rows=rows, rows_differ=tuple(np.flatnonzero(differ).tolist()), classes_agree=agree, worst=worst,
                      worst_relative=relative, where=where, exact=exact)  # fmt: skip


def _numbers(expected: Array, got: Array, rows: int) -> tuple[Array, float, float]:
    first, second = expected.astype(float).reshape(rows, -1), got.astype(float).reshape(rows, -1)
    close = np.isclose(second, first, rtol=RTOL, atol=ATOL, equal_nan=True)
    with np.errstate(all="ignore"):
        gap = np.nan_to_num(np.abs(first - second), nan=0.0, posinf=np.finfo(float).max)
        share = gap / np.maximum(np.abs(np.nan_to_num(first)), ATOL)
    far = float(gap.max(initial=0.0))
    return ~close.all(axis=1), far, float(share.max(initial=0.0))


def shown(
    comparison: Comparison, original: Mapping[str, Array], converted: Mapping[str, Array]
) -> list[dict[str, Any]]:
    """The first rows that differ, with both answers."""
    return [
        {
            "row": row,
            "original": {name: np.asarray(value)[row].tolist() for name, value in original.items()},
            "converted": {
                name: np.asarray(value)[row].tolist() for name, value in converted.items() if len(value) > row
            },
        }
        for row in comparison.rows_differ[:_SHOWN]
    ]
