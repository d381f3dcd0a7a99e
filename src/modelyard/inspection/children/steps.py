"""Which step of a pipeline does not survive conversion: found by converting its beginning, longer and longer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelyard.domain.contract import Task
from modelyard.inspection.children import equal, rows
from modelyard.inspection.children.described import TRANSFORMED, Described
from modelyard.inspection.children.facts import Array
from modelyard.inspection.children.session import Session
from modelyard.inspection.children.to_onnx import NotConvertible, to_onnx

_ROWS = 64


def failing_step(described: Described, arrays: Mapping[str, Array]) -> str:
    """The first step that has no ONNX form or answers differently, in words; without steps the estimator itself."""
    estimator = described.estimator
    if type(estimator).__name__ != "Pipeline":
        return _named(described, estimator, "")
    few = {name: array[-_ROWS:] for name, array in arrays.items()}
    for count in range(1, len(estimator.steps)):
        name, step = estimator.steps[count - 1]
        if step is None or isinstance(step, str):
            continue
        trouble = _trouble(_beginning(described, count), few)
        if trouble:
            return f"{_named(described, step, name)} ({trouble})"
    name, step = estimator.steps[-1]
    return _named(described, step, name)


def _beginning(described: Described, count: int) -> Described:
    from sklearn.pipeline import Pipeline

    beginning = Pipeline(described.estimator.steps[:count])
    return replace(described, estimator=beginning, task=Task.TRANSFORMATION, answers=(TRANSFORMED,), classes=[])


def _trouble(beginning: Described, arrays: Mapping[str, Array]) -> str:
    try:
        session = Session(to_onnx(beginning).SerializeToString())
        comparison = equal.compare(beginning.ask(arrays), session.run(rows.as_sent(beginning, arrays)))
    except NotConvertible:
        return "has no ONNX form"
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  (the runtime refuses a graph with errors of its own)
        return "its ONNX form does not run"
    return "" if comparison.is_equal else f"its ONNX form differs by up to {comparison.worst:.3g}"


def _named(described: Described, step: Any, name: str) -> str:  # noqa: ANN401  (an estimator)
    del described
    kind = type(step).__name__
    return f"step {name!r}, {kind}" if name else kind
