"""How a model does on held-out rows, as a picture: what was taken for what, or told against right numbers."""

from pathlib import Path
from typing import Any, Final

from modelyard.domain.job_kinds.estimators import CLASSIFICATION
from modelyard.integrations.training.figures import Answers

_SIZE: Final = (5.0, 4.6)
_MOST_CLASSES, _MOST_POINTS = 30, 5000
_POINT, _LINE = "#5b7083", "#b4412f"


def draw(answers: Answers, path: Path) -> bool:
    """Write an SVG; False where matplotlib is not installed, or there are too many classes to show."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if len(answers.classes) > _MOST_CLASSES:
        return False
    figure = Figure(figsize=_SIZE, layout="tight")
    axes = figure.subplots()
    if answers.task == CLASSIFICATION:
        _table(axes, answers)
    else:
        _points(axes, answers)
    axes.set_title(f"{len(answers.right)} held-out rows", fontsize=10)
    figure.savefig(path, format="svg", metadata={"Date": None})
    return True


def _table(axes: Any, answers: Answers) -> None:  # noqa: ANN401  (the library's own)
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(answers.right, answers.chosen, labels=answers.classes)
    axes.imshow(counts, cmap="Blues")
    half = counts.max() / 2
    for row, line in enumerate(counts):
        for column, count in enumerate(line):
            colour = "white" if count > half else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
    names = [str(each)[:16] for each in answers.classes]
    axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 3 else 0, fontsize=7)  # noqa: PLR2004
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("answered")
    axes.set_ylabel("right")


def _points(axes: Any, answers: Answers) -> None:  # noqa: ANN401
    right, chosen = answers.right[:_MOST_POINTS], answers.chosen[:_MOST_POINTS]
    axes.plot(right, chosen, "o", color=_POINT, markersize=3, alpha=0.6)
    ends = [min(right.min(), chosen.min()), max(right.max(), chosen.max())]
    axes.plot(ends, ends, "--", color=_LINE, linewidth=1)
    axes.set_xlabel("right")
    axes.set_ylabel("answered")
    axes.spines[["top", "right"]].set_visible(False)
