"""Settings under which skl2onnx converts what it otherwise cannot, laid over an estimator and taken back.

Each entry leaves the estimator's answers to any request as they are, and every conversion is compared with the original
afterwards. They can go when the converter needs them no more: tests name the estimator that each is for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import numpy as np

from modelyard.inspection.children.bounds import parts_of
from modelyard.inspection.children.facts import Estimator

NEVER_SENT: Final = "\x00missing"
"""Stands for a missing text: V2 has no such value, so that an imputer of text columns never meets one."""


@contextmanager
def convertible_form(estimator: Estimator) -> Iterator[None]:
    """Inside the block the estimator is written so that it converts; afterwards it is as before."""
    before: list[tuple[Any, str, Any]] = []
    for part in parts_of(estimator):
        for name, value in _settings(part).items():
            before.append((part, name, getattr(part, name)))
            setattr(part, name, value)
    try:
        yield
    finally:
        for part, name, value in before:
            setattr(part, name, value)


@cache
def repair_converters() -> None:
    """skl2onnx 1.20 writes True and False where ONNX wants 1 and 0, for histogram boosting; protobuf 7 refuses them."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common._registration import get_converter, get_shape_calculator
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    options = {"zipmap": [True, False, "columns"], "raw_scores": [True, False], "nocl": [True, False],
               "output_class_labels": [False, True]}  # fmt: skip
    for kind in (HistGradientBoostingClassifier, HistGradientBoostingRegressor):
        alias = f"Sklearn{kind.__name__}"
        update_registered_converter(
            kind,
            alias,
            get_shape_calculator(alias),
            _with_whole_numbers(get_converter(alias)),
            overwrite=True,
            options=options if kind is HistGradientBoostingClassifier else None,
        )


def _with_whole_numbers(converter: Callable[..., None]) -> Callable[..., None]:
    def convert(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401  (skl2onnx ships no types)
        converter(scope, operator, _WholeNumbers(container))

    return convert


class _WholeNumbers:
    """skl2onnx's container, with lists of truth values and numpy scalars written as whole numbers."""

    def __init__(self, container: Any) -> None:  # noqa: ANN401
        self._container = container

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._container, name)

    def add_node(self, operator: str, inputs: Any, outputs: Any, **attributes: Any) -> Any:  # noqa: ANN401
        """As the container's own."""
        return self._container.add_node(
            operator, inputs, outputs, **{name: _whole(value) for name, value in attributes.items()}
        )


def _whole(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, list) and value and isinstance(value[0], bool | np.bool_ | np.integer | int):
        return [int(item) for item in value]
    return value


def _settings(part: Any) -> dict[str, Any]:  # noqa: ANN401  (any estimator or part of one)
    kind = type(part).__name__
    if kind == "VotingClassifier":
        return {"flatten_transform": False}  # matters to transform only, which no answer of a classifier uses
    if kind == "SimpleImputer" and _imputes_text(part):
        return {"missing_values": NEVER_SENT}
    return {}


def _imputes_text(imputer: Any) -> bool:  # noqa: ANN401
    statistics = np.asarray(getattr(imputer, "statistics_", []))
    return statistics.dtype == object and all(isinstance(value, str) for value in statistics)
