"""A study as a picture: how the best value grew and what mattered, or, of two metrics, the front."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from modelyard.domain.job_kinds.tune import MAXIMISE
from modelyard.integrations.tuning.study import COMPLETE, Study

_SIZE: Final = (8.0, 3.6)
_POINT, _BEST = "#5b7083", "#1a7f4b"
_TWO: Final = 2


def draw(study: Study, metrics: Sequence[str], path: Path) -> bool:
    """Write an SVG; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=_SIZE, layout="tight")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _history(left, study, metrics[0])
    if len(metrics) >= _TWO:
        _front(right, study, metrics)
    else:
        _importances(right, study.importances())
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
    figure.savefig(path, format="svg", metadata={"Date": None})
    return True


def _history(axes: Any, study: Study, metric: str) -> None:  # noqa: ANN401  (the library's own)
    complete = sorted((each for each in study.tried if each.state == COMPLETE), key=lambda each: each.number)
    numbers, values = [each.number for each in complete], [each.values[0] for each in complete]
    axes.plot(numbers, values, "o", color=_POINT, markersize=3)
    best: list[float] = []
    better = max if study.plan.directions[0] == MAXIMISE else min
    for value in values:
        best.append(value if not best else better(best[-1], value))
    axes.step(numbers, best, where="post", color=_BEST, linewidth=1.2)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("trial", fontsize=8)
    axes.set_ylabel(metric, fontsize=8)


def _importances(axes: Any, found: Mapping[str, float]) -> None:  # noqa: ANN401
    names = sorted(found, key=lambda name: found[name])[-12:]
    axes.barh(names, [found[name] for name in names], color=_POINT)
    axes.set_xlabel("part of the difference" if names else "too few trials to say what mattered", fontsize=8)


def _front(axes: Any, study: Study, metrics: Sequence[str]) -> None:  # noqa: ANN401
    complete = [each for each in study.tried if each.state == COMPLETE]
    axes.plot(
        [each.values[0] for each in complete], [each.values[1] for each in complete], "o", color=_POINT, markersize=3
    )
    front = study.best()
    axes.plot([each.values[0] for each in front], [each.values[1] for each in front], "o-", color=_BEST, markersize=4)
    axes.set_xlabel(metrics[0], fontsize=8)
    axes.set_ylabel(metrics[1], fontsize=8)
