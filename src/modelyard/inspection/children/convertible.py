"""Settings under which skl2onnx converts what it otherwise cannot, laid over an estimator and taken back.

Each entry leaves the estimator's answers to any request as they are, and every conversion is compared with the original
afterwards. They can go when the converter needs them no more: tests name the estimator that each is for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
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


def _settings(part: Any) -> dict[str, Any]:  # noqa: ANN401  (any estimator or part of one)
    kind = type(part).__name__
    if kind == "TreePredictor":
        return {"nodes": _signed(part.nodes)}
    if kind == "VotingClassifier":
        return {"flatten_transform": False}  # matters to transform only, which no answer of a classifier uses
    if kind == "SimpleImputer" and _imputes_text(part):
        return {"missing_values": NEVER_SENT}
    return {}


def _signed(nodes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Node fields as types whose elements ONNX's own helper takes for whole numbers (unsigned ones it does not)."""
    fields = nodes.dtype.fields or {}
    kinds = [(name, np.int64 if kind[0].kind == "u" else kind[0]) for name, kind in fields.items()]
    return nodes.astype(kinds)


def _imputes_text(imputer: Any) -> bool:  # noqa: ANN401
    statistics = np.asarray(getattr(imputer, "statistics_", []))
    return statistics.dtype == object and all(isinstance(value, str) for value in statistics)
