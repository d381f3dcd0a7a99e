"""Fit what a recipe describes: features on given rows only, the estimator on changed and balanced ones as well."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest, MissingExtra
from modelyard.domain.job_kinds.estimators import CLASSIFICATION
from modelyard.domain.job_kinds.recipe import RESAMPLING, Recipe
from modelyard.integrations.training.augment import augmented
from modelyard.integrations.training.pipelines import FEATURES, MODEL, estimator_of, features_of
from modelyard.integrations.training.spread import is_foldable, spread_of, stretch
from modelyard.integrations.training.tables import Table

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_NEIGHBOURS: Final = 5


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted model, how many rows it learned from, and what the library warned of."""

    model: Any
    rows: int
    warnings: tuple[str, ...]


def fit(recipe: Recipe, table: Table, task: str, seed: int) -> Fitted:
    """The model of a recipe.

    Raises:
        InvalidRequest: the recipe does not fit the rows.
    """
    from sklearn.pipeline import Pipeline

    features, estimator = features_of(recipe, table, task), estimator_of(recipe, task, seed)
    more, weight = augmented(table, recipe.augment, seed, is_choice=task == CLASSIFICATION)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with refusals(recipe.estimator):
            rows = more.features()
            if features is not None:
                rows = features.fit(table.features(), table.target).transform(rows)
            learned = learn(recipe, estimator, rows, more.target, weight, seed=seed)
    model = estimator if features is None else Pipeline([(FEATURES, features), (MODEL, estimator)])
    return Fitted(model, learned, tuple(sorted({str(each.message).split("\n", 1)[0][:200] for each in heard}))[:5])


@contextmanager
def refusals(estimator: str) -> Iterator[None]:
    """What scikit-learn says of rows that it does not take, as an error about the recipe."""
    try:
        yield
    except ValueError as error:
        raise InvalidRequest(
            f"{estimator} cannot learn from these rows: {quote(error, limit=300)}",
            hint="look at the features and the parameters of the recipe",
            details=[{"field": "parameters.recipe", "expected": "features and parameters that fit the data"}],
        ) from error


def learn(
    recipe: Recipe,
    estimator: Any,  # noqa: ANN401
    rows: Any,  # noqa: ANN401
    target: "Array",
    weight: "Array",
    *,
    seed: int,
) -> int:
    """Fit the estimator on rows of numbers, evened out as the recipe says; how many rows it was given."""
    from sklearn.utils.class_weight import compute_sample_weight

    method = recipe.imbalance["method"]
    if method in RESAMPLING:
        rows, target, weight = _resampled(rows, target, weight, method, seed)
    if method == "weights":
        weight = weight * compute_sample_weight("balanced", target)
    mean, spread = spread_of(target) if is_foldable(estimator) else (0.0, 1.0)
    wanted = (target - mean) / spread if is_foldable(estimator) else target
    try:
        if (weight == 1).all():
            estimator.fit(rows, wanted)
        else:
            estimator.fit(rows, wanted, sample_weight=weight)
    except TypeError as error:
        raise InvalidRequest(
            f"{recipe.estimator} takes no weights",
            hint="use oversample in place of weights, and no mixup; or another estimator",
            details=[{"field": "parameters.recipe.estimator", "expected": "an estimator that takes weights"}],
        ) from error
    if is_foldable(estimator):
        stretch(estimator, spread, mean)
    return len(target)


def with_threshold(model: Any, threshold: float, rare: Any) -> Any:  # noqa: ANN401
    """The model with a threshold on the probability of the class `rare`."""
    from sklearn.model_selection import FixedThresholdClassifier

    made = FixedThresholdClassifier(model, threshold=threshold, pos_label=rare, response_method="predict_proba")
    made.estimator_ = model
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(model, name):
            setattr(made, name, getattr(model, name))
    return made


def _resampled(
    rows: Any,  # noqa: ANN401
    target: "Array",
    weight: "Array",
    method: str,
    seed: int,
) -> "tuple[Any, Array, Array]":
    import numpy as np

    try:
        from imblearn.over_sampling import SMOTE, RandomOverSampler
        from imblearn.under_sampling import RandomUnderSampler
    except ImportError as error:
        raise MissingExtra("resampling needs a library", hint="pip install 'modelyard[train]'") from error
    if method != "smote":
        sampler = {"oversample": RandomOverSampler, "undersample": RandomUnderSampler}[method](random_state=seed)
        made, right = sampler.fit_resample(rows, target)
        return made, right, weight[sampler.sample_indices_]
    least = min(np.unique(target, return_counts=True)[1])
    if least < 2:  # noqa: PLR2004  (two rows to lie between)
        raise InvalidRequest(
            "smote makes rows between two of a class, and one class has a single row",
            hint="use oversample, or give more rows",
            details=[{"field": "parameters.recipe.imbalance.method", "expected": "oversample"}],
        )
    made, right = SMOTE(k_neighbors=min(_NEIGHBOURS, int(least) - 1), random_state=seed).fit_resample(rows, target)
    return made, right, np.concatenate([weight, np.ones(len(right) - len(weight))])
