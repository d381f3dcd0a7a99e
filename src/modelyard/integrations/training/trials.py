"""One try at a recipe: split, folds, threshold, fit. What `train` does once and a search does often."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.job_kinds.estimators import CLASSIFICATION
from modelyard.domain.job_kinds.recipe import LOWER_IS_BETTER, NONE, Recipe
from modelyard.integrations.training.figures import Answers, rarer, require_metric, usual_metric
from modelyard.integrations.training.fitting import fit, with_threshold
from modelyard.integrations.training.pipelines import estimator_of
from modelyard.integrations.training.splitting import folds, split
from modelyard.integrations.training.tables import Table, task_of

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Report = Callable[[float, str], None]
_FOLDS_OF_THRESHOLD: Final = 5
_TWO: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A fitted model and the rows that it has not seen. `folds` holds the metric's values on folds of the others."""

    model: Any
    task: str
    metric: str
    known: Table
    held: Table
    rows: int
    folds: Mapping[str, Any] | None
    threshold: Mapping[str, Any] | None
    warnings: tuple[str, ...]


def run_trial(recipe: Recipe, table: Table, seed: int, *, report: Report) -> Trial:
    """Fit the recipe.

    Raises:
        InvalidRequest: it does not fit the rows.
    """
    task = task_of(table, recipe.task)
    metric = recipe.metric or usual_metric(task)
    is_choice = task == CLASSIFICATION
    require_fitting(recipe, task)
    known, held = split(table, float(recipe.validation["held_out"]), seed, is_choice=is_choice)
    spread = _spread(recipe, known, task, metric, seed, report) if recipe.validation["folds"] > 1 else None
    report(0.5, f"learning from {len(known)} rows")
    made = fit_whole(recipe, known, task, seed)
    return Trial(
        model=made.model,
        task=task,
        metric=metric,
        known=known,
        held=held,
        rows=made.rows,
        folds=spread,
        threshold={**made.threshold, "class": str(made.threshold["class"])} if made.threshold else None,
        warnings=made.warnings,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A model with the threshold that its recipe asks for."""

    model: Any
    rows: int
    warnings: tuple[str, ...]
    threshold: Mapping[str, Any] | None


def fit_whole(recipe: Recipe, known: Table, task: str, seed: int) -> Made:
    """Fit the recipe, and find its threshold by folds of the same rows where it has one."""
    chosen = _threshold(recipe, known, task, seed) if recipe.imbalance["threshold"] != NONE else None
    fitted = fit(recipe, known, task, seed)
    model = with_threshold(fitted.model, chosen["value"], chosen["class"]) if chosen else fitted.model
    return Made(model=model, rows=fitted.rows, warnings=fitted.warnings, threshold=chosen)


def baseline(trial: Trial, seed: int) -> dict[str, Any]:
    """What the most frequent class, or the mean, would reach: whoever is not better has learned nothing."""
    from sklearn.dummy import DummyClassifier, DummyRegressor

    is_choice = trial.task == CLASSIFICATION
    dummy = DummyClassifier(strategy="prior", random_state=seed) if is_choice else DummyRegressor()
    dummy.fit(trial.known.features(), trial.known.target)
    found = Answers(dummy, trial.held, trial.task).figures()
    return {"value": found.get(trial.metric), "figures": found}


def _spread(recipe: Recipe, known: Table, task: str, metric: str, seed: int, report: Report) -> dict[str, Any]:
    import numpy as np

    count = int(recipe.validation["folds"])
    values = []
    for number, (_, found) in enumerate(on_folds(recipe, known, task, count, seed)):
        report(0.5 * (number + 1) / count, f"fold {number + 1} of {count}")
        require_metric(metric, found)
        values.append(found[metric])
    return {
        "metric": metric,
        "values": values,
        "mean": round(float(np.mean(values)), 6),
        "spread": round(float(np.std(values, ddof=1)), 6),
    }


def on_folds(recipe: Recipe, known: Table, task: str, count: int, seed: int) -> Iterator[tuple[Any, dict[str, float]]]:
    """Fold by fold, the model that learned from the others, and all its measures."""
    for learn, judge in folds(known, count, seed, is_choice=task == CLASSIFICATION):
        model = fit_whole(recipe, known.picked(learn), task, seed).model
        yield model, Answers(model, known.picked(judge), task).figures()


def _threshold(recipe: Recipe, known: Table, task: str, seed: int) -> dict[str, Any]:
    """The probability of the rarer class from which on it is chosen, by answers to rows that were not learned from."""
    import numpy as np
    from sklearn import metrics

    rare = rarer(known.target)
    if len(np.unique(known.target)) != _TWO:
        raise _no_threshold("a threshold is between two classes", "two classes")
    scores = np.zeros(len(known))
    for learn, judge in folds(known, _FOLDS_OF_THRESHOLD, seed, is_choice=True):
        model = fit(recipe, known.picked(learn), task, seed).model
        if not hasattr(model, "predict_proba"):
            raise _no_threshold(f"{recipe.estimator} gives no probabilities", "an estimator with probabilities")
        place = list(model.classes_).index(rare)
        scores[judge] = model.predict_proba(known.picked(judge).features())[:, place]
    measure = recipe.imbalance["threshold"]
    right = known.target == rare
    tried = np.unique(np.quantile(scores, np.linspace(0.005, 0.995, 199)))
    of = metrics.f1_score if measure == "f1" else metrics.balanced_accuracy_score
    reached = [float(of(right, scores >= each)) for each in tried]
    best = int(np.argmax(reached))
    return {
        "class": rare,
        "value": round(float(tried[best]), 6),
        "measure": measure,
        "reached": round(reached[best], 6),
    }


def is_better(metric: str, one: float, other: float) -> bool:
    """Whether the first value of a metric is better."""
    return one < other if metric in LOWER_IS_BETTER else one > other


def require_fitting(recipe: Recipe, task: str) -> None:
    """Refuse, before anything long begins, a recipe that is not for this task."""
    estimator_of(recipe, task, 0)
    if task != CLASSIFICATION and any(value != NONE for value in recipe.imbalance.values()):
        raise InvalidRequest(
            "the target holds numbers, which have no rare classes",
            hint="leave imbalance out, or set the task to classification",
            details=[{"field": "parameters.recipe.imbalance", "expected": "nothing"}],
        )


def _no_threshold(what: str, expected: str) -> InvalidRequest:
    field = "parameters.recipe.imbalance.threshold"
    return InvalidRequest(what, hint="leave the threshold out", details=[{"field": field, "expected": expected}])
