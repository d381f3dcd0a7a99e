"""How good a model is on rows that it has not seen: the usual measures, each from scikit-learn, with an interval."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.job_kinds.estimators import CLASSIFICATION
from modelyard.domain.job_kinds.recipe import BINARY_METRICS, CLASSIFICATION_METRICS, REGRESSION_METRICS
from modelyard.integrations.training.tables import Table

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_ROUNDS: Final = 200
_TWO: Final = 2
_SHOWN_CLASSES: Final = 50


class Answers:
    """What a model says of a table: `chosen`, and, where it has them, `scores` [rows, classes]."""

    def __init__(self, model: Any, table: Table, task: str) -> None:  # noqa: ANN401  (a fitted model)
        self.task, self.right = task, table.target
        self._rare = rarer(table.target) if task == CLASSIFICATION else None
        self.chosen = model.predict(table.features())
        self.classes: list[Any] = list(getattr(model, "classes_", []))
        self.scores: Any = None
        if task == CLASSIFICATION and hasattr(model, "predict_proba"):
            self.scores = model.predict_proba(table.features())

    def figures(self, places: "Array | None" = None) -> dict[str, float]:
        """Every measure that applies, on all rows or those at `places`."""
        import numpy as np

        here = np.arange(len(self.right)) if places is None else places
        right, chosen = self.right[here], self.chosen[here]
        if self.task != CLASSIFICATION:
            return _of_numbers(right, chosen)
        scores = None if self.scores is None else self.scores[here]
        return _of_classes(right, chosen, scores, self.classes, rare=self._rare)


def figures_of(model: Any, table: Table, task: str, *, metric: str, seed: int) -> dict[str, Any]:  # noqa: ANN401
    """All measures, the one that counts with its 95 % interval (bootstrap of the rows), and what was mistaken for what.

    Raises:
        InvalidRequest: the metric is not for these classes.
    """
    import numpy as np

    answers = Answers(model, table, task)
    found = answers.figures()
    require_metric(metric, found)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(_ROUNDS):
        some = answers.figures(rng.integers(0, len(table), len(table)))
        if metric in some:
            drawn.append(some[metric])
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (found[metric], found[metric])
    made: dict[str, Any] = {
        "metric": metric,
        "value": found[metric],
        "low": round(float(low), 6),
        "high": round(float(high), 6),
        "rows": len(table),
        "figures": found,
    }
    if task == CLASSIFICATION and len(answers.classes) <= _SHOWN_CLASSES:
        made["classes"] = _by_class(answers)
    return made


def require_metric(metric: str, found: Mapping[str, float]) -> None:
    """Refuse a metric that these rows have no value of."""
    if metric in found:
        return
    reason = "is of two classes" if metric in BINARY_METRICS else "needs probabilities"
    raise InvalidRequest(
        f"{metric} {reason}, and there is none here",
        hint=f"one of {', '.join(found)}",
        details=[{"field": "parameters.recipe.metric", "expected": sorted(found), "received": metric}],
    )


def usual_metric(task: str) -> str:
    """The measure where none is asked for."""
    return CLASSIFICATION_METRICS[0] if task == CLASSIFICATION else REGRESSION_METRICS[0]


def rarer(target: "Array") -> Any:  # noqa: ANN401  (a class)
    """The class with the fewest rows."""
    import numpy as np

    classes, counts = np.unique(target, return_counts=True)
    return classes[counts.argmin()].item() if hasattr(classes[counts.argmin()], "item") else classes[counts.argmin()]


def _of_numbers(right: "Array", chosen: "Array") -> dict[str, float]:
    from sklearn import metrics

    return {
        "r2": _rounded(metrics.r2_score(right, chosen)),
        "mean_absolute_error": _rounded(metrics.mean_absolute_error(right, chosen)),
        "root_mean_squared_error": _rounded(metrics.root_mean_squared_error(right, chosen)),
    }


def _of_classes(
    right: "Array",
    chosen: "Array",
    scores: Any,  # noqa: ANN401
    classes: list[Any],
    *,
    rare: Any,  # noqa: ANN401
) -> dict[str, float]:
    import numpy as np
    from sklearn import metrics

    here = set(np.unique(right).tolist())
    found = {
        "accuracy": metrics.accuracy_score(right, chosen),
        "balanced_accuracy": _mean_recall(right, chosen),
        "f1_macro": metrics.f1_score(right, chosen, average="macro", zero_division=0),
    }
    if len(classes) == _TWO:
        found["f1"] = metrics.f1_score(right == rare, chosen == rare, zero_division=0)
    if scores is not None and here == set(classes) and len(here) > 1:
        found["log_loss"] = metrics.log_loss(right, scores, labels=classes)
        if len(classes) == _TWO:
            place = classes.index(rare)
            found["average_precision"] = metrics.average_precision_score(right == rare, scores[:, place])
            found["roc_auc"] = metrics.roc_auc_score(right == rare, scores[:, place])
        else:
            found["roc_auc"] = metrics.roc_auc_score(right, scores, multi_class="ovr", labels=classes)
    return {name: _rounded(value) for name, value in found.items()}


def _mean_recall(right: "Array", chosen: "Array") -> float:
    import numpy as np

    return float(np.mean([(chosen[right == each] == each).mean() for each in np.unique(right)]))


def _by_class(answers: Answers) -> list[dict[str, Any]]:
    from sklearn import metrics

    precision, recall, f1, rows = metrics.precision_recall_fscore_support(
        answers.right, answers.chosen, labels=answers.classes, zero_division=0
    )
    return [
        {
            "class": str(name),
            "rows": int(rows[place]),
            "precision": _rounded(precision[place]),
            "recall": _rounded(recall[place]),
            "f1": _rounded(f1[place]),
        }
        for place, name in enumerate(answers.classes)
    ]


def _rounded(value: Any) -> float:  # noqa: ANN401  (a number of numpy)
    return round(float(value), 6)
