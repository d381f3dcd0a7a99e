"""Targets of one spread for estimators that learn by steps, and the way back, folded into their last weights."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_FOLDABLE = frozenset({"MLPRegressor", "SGDRegressor", "SVR"})


def is_foldable(estimator: Any) -> bool:  # noqa: ANN401
    """Whether its answers can be moved and stretched by its own weights."""
    return type(estimator).__name__ in _FOLDABLE


def spread_of(target: "Array") -> tuple[float, float]:
    """Mean and standard deviation, the latter never 0."""
    return float(target.mean()), float(target.std()) or 1.0


def stretch(estimator: Any, factor: float, shift: float) -> None:  # noqa: ANN401
    """Make a fitted estimator answer `factor * answer + shift` from now on."""
    if type(estimator).__name__ == "MLPRegressor":
        estimator.coefs_[-1] = estimator.coefs_[-1] * factor
        estimator.intercepts_[-1] = estimator.intercepts_[-1] * factor + shift
        return
    weights = ("dual_coef_", "_dual_coef_") if type(estimator).__name__ == "SVR" else ("coef_",)
    constants = ("intercept_", "_intercept_") if type(estimator).__name__ == "SVR" else ("intercept_",)
    for name in weights:
        setattr(estimator, name, getattr(estimator, name) * factor)
    for name in constants:
        setattr(estimator, name, getattr(estimator, name) * factor + shift)
