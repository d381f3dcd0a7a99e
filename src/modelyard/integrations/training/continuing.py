"""Go on with a model that was trained before: further rows, some of the earlier ones again, and what was forgotten."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import NotSupported
from modelyard.domain.job_kinds.estimators import CLASSIFICATION, ESTIMATORS
from modelyard.domain.job_kinds.recipe import wrong_in
from modelyard.integrations.training.fitting import refusals
from modelyard.integrations.training.pipelines import FEATURES, MODEL
from modelyard.integrations.training.spread import is_foldable, spread_of, stretch
from modelyard.integrations.training.tables import Table, wrong

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MODEL_FILE: Final = "model.skops"
_BINS: Final = 10
_LEAST_PART: Final = 1e-4


def recipe_of(version: Path) -> dict[str, Any]:
    """The recipe that a version was trained by, which travels in its `config.json`.

    Raises:
        NotSupported: it was not trained by one.
    """
    try:
        config = json.loads((version / "files" / "config.json").read_bytes())
        document: dict[str, Any] = config["training_data"]["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        document = {}
    if not document or wrong_in(document) or not (version / "files" / MODEL_FILE).is_file():
        raise NotSupported(
            "the version was not made by train, so nothing is known of how to go on with it",
            hint="train it anew with a recipe, on earlier and new rows together",
        )
    return document


def model_of(version: Path) -> Any:  # noqa: ANN401  (a fitted model)
    """The model of such a version, read as the intake reads it: known types only."""
    from modelyard.inspection.children.skops_file import read_skops

    return read_skops(version / "files" / MODEL_FILE).model


def require_same_form(model: Any, table: Table, name: str) -> None:  # noqa: ANN401
    """Refuse rows with other columns, or classes that the model does not know."""
    import numpy as np

    names = [str(each) for each in getattr(model, "feature_names_in_", ())]
    missing = [each for each in names if each not in table.rows.columns]
    if missing:
        raise wrong(name, f"it has no column {quote(missing[0])}", f"the model's columns: {', '.join(names[:8])}")
    if table.is_matrix and len(table.rows.columns) != model.n_features_in_:
        raise wrong(name, f"its rows have {len(table.rows.columns)} numbers", f"{model.n_features_in_} numbers a row")
    known = getattr(model, "classes_", None)
    if known is None:
        return
    new = [each for each in np.unique(table.target) if each not in set(known.tolist())]
    if new:
        raise wrong(
            name,
            f"it holds the class {quote(str(new[0]))}, which the model does not know",
            "known classes only; train anew to add one",
        )


def like(model: Any, table: Table) -> Table:  # noqa: ANN401
    """The table with the model's columns in the model's order."""
    names = list(getattr(model, "feature_names_in_", ()))
    return Table(table.rows[names], table.target, table.is_matrix) if names else table


def with_replay(table: Table, earlier: Table | None, part: float, seed: int) -> tuple[Table, int]:
    """The new rows and `part` as many of the earlier ones, mixed; how many those are."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    count = 0 if earlier is None else min(round(part * len(table)), len(earlier))
    if earlier is None or not count:
        return table, 0
    again = earlier.picked(rng.permutation(len(earlier))[:count])
    rows = pd.concat([table.rows, again.rows], ignore_index=True)
    whole = Table(rows, np.concatenate([table.target, again.target]), table.is_matrix)
    return whole.picked(rng.permutation(len(whole))), count


def go_on(model: Any, estimator: str, table: Table, *, rounds: int, seed: int) -> str:  # noqa: ANN401
    """Teach a model further rows in place; what was done, in words.

    Raises:
        NotSupported: this estimator learns from all rows at once only.
    """
    form = ESTIMATORS[estimator]
    inner = model.estimator_ if type(model).__name__ == "FixedThresholdClassifier" else model
    steps = dict(inner.steps) if hasattr(inner, "steps") else {MODEL: inner}
    rows = steps[FEATURES].transform(table.features()) if FEATURES in steps else table.features()
    last = steps[MODEL]
    if form.goes_on:
        with refusals(estimator):
            _pass_over(last, rows, table.target, rounds, seed)
        return f"{rounds} passes over {len(table)} rows"
    if form.grows:
        before = getattr(last, form.grows)
        last.set_params(**{form.grows: before + rounds, "warm_start": True})
        with refusals(estimator):
            last.fit(rows, table.target)
        last.set_params(warm_start=False)
        return f"{rounds} more on top of {before}, from {len(table)} rows"
    fitting = ", ".join(name for name, each in ESTIMATORS.items() if each.goes_on or each.grows)
    raise NotSupported(
        f"{estimator} learns from all rows at once, and cannot go on",
        hint=f"train it anew on earlier and new rows together, or take one of {fitting}",
    )


def _pass_over(estimator: Any, rows: Any, target: "Array", rounds: int, seed: int) -> None:  # noqa: ANN401
    import numpy as np

    rng = np.random.default_rng(seed)
    mean, spread = spread_of(target) if is_foldable(estimator) else (0.0, 1.0)
    if is_foldable(estimator):
        target = (target - mean) / spread
        stretch(estimator, 1 / spread, -mean / spread)
    stops = estimator.get_params().get("early_stopping", False)
    if stops:  # it would keep rows back in every pass
        estimator.set_params(early_stopping=False)
        if getattr(estimator, "best_loss_", 0.0) is None:  # a network's, which counts scores instead while it stops
            estimator.best_loss_ = estimator.loss_
    for _ in range(rounds):
        order = rng.permutation(len(target))
        estimator.partial_fit(rows.iloc[order] if hasattr(rows, "iloc") else rows[order], target[order])
    if stops:
        estimator.set_params(early_stopping=True)
    if is_foldable(estimator):
        stretch(estimator, spread, mean)


def drift(earlier: Table, later: Table, *, task: str) -> dict[str, float]:
    """The population stability index of each column, and of the target as `(target)`: 0 is alike, above 0.2 is much."""
    found = {
        str(column): _stability(earlier.rows[column].to_numpy(), later.rows[column].to_numpy())
        for column in earlier.rows.columns
    }
    is_choice = task == CLASSIFICATION
    found["(target)"] = _stability(*(each.target.astype(object if is_choice else float) for each in (earlier, later)))
    return found


def most(found: Mapping[str, float], count: int = 10) -> dict[str, float]:
    """The columns that changed most."""
    return dict(sorted(found.items(), key=lambda each: -each[1])[:count])


def _stability(before: "Array", after: "Array") -> float:
    """Σ (a - b) ln(a / b) over bins: tenths of `before`, or values; missing ones are a bin."""
    import numpy as np

    if before.dtype == object:
        values = np.unique(np.concatenate([before, after]).astype(str))
        counts = [np.array([(each.astype(str) == value).sum() for value in values]) for each in (before, after)]
    else:
        known = before[~np.isnan(before)]
        edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(known) else np.empty(0)
        counts = []
        for each in (before, after):
            whole = each[~np.isnan(each)]
            inside = np.bincount(np.searchsorted(edges, whole, side="right"), minlength=len(edges) + 1)
            counts.append(np.append(inside, len(each) - len(whole)))
    first, second = (np.maximum(each / each.sum(), _LEAST_PART) for each in counts)
    return round(float(((second - first) * np.log(second / first)).sum()), 4)
