"""Features and estimators by their names in a recipe, as scikit-learn pipelines that the intake can convert."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.job_kinds.estimators import ESTIMATORS, NUMBERS, STEPS, TEXTS
from modelyard.domain.job_kinds.recipe import Group, Recipe, Step
from modelyard.integrations.training.tables import Table

FEATURES, MODEL = "features", "model"
_MOST_VALUES: Final = 100
_SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "one-hot": {"handle_unknown": "infrequent_if_exist", "sparse_output": False},
    "ordinal": {"handle_unknown": "use_encoded_value", "unknown_value": -1},
    "bins": {"encode": "onehot-dense", "quantile_method": "averaged_inverted_cdf"},
    "polynomial": {"include_bias": False},
    "words": {"max_features": 5000},
    "pca": {"random_state": 0},
}


def features_of(recipe: Recipe, table: Table, task: str) -> Any | None:  # noqa: ANN401  (a pipeline; None: as they are)
    """Unfitted steps that make numbers of the table's columns.

    Raises:
        InvalidRequest: a group names a column that is not there, or a column of texts has no group.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    groups = recipe.groups or tuple(_usual_groups(recipe, table))
    taken = {column for group in groups if not isinstance(group.columns, str) for column in group.columns}
    parts: list[tuple[str, Any, Any]] = []
    for place, group in enumerate(groups):
        columns = _columns(group, table, taken, place)
        if columns:
            parts += _parts(f"group-{place}", group.steps, columns, table)
    if not parts:
        raise _wrong("features", "no group has a column", "groups that name columns of the data")
    after = [(f"then-{place}", _step(each, task)) for place, each in enumerate(recipe.then)]
    if not recipe.groups and not after and all(each == "passthrough" for _, each, _ in parts):
        return None
    joined = ColumnTransformer(parts, sparse_threshold=0, verbose_feature_names_out=False)
    return Pipeline([("columns", joined), *after]) if after else joined


def estimator_of(recipe: Recipe, task: str, seed: int) -> Any:  # noqa: ANN401  (an estimator)
    """The unfitted estimator.

    Raises:
        InvalidRequest: it is not for this task.
    """
    form = ESTIMATORS[recipe.estimator]
    if task not in form.classes:
        fitting = ", ".join(name for name, each in ESTIMATORS.items() if task in each.classes)
        raise _wrong("estimator", f"{recipe.estimator} is not for {task}", f"one of {fitting}")
    kind = _loaded(form.classes[task])
    given = {name: tuple(each) if isinstance(each, list) else each for name, each in recipe.parameters.items()}
    if recipe.estimator == "sgd" and "loss" in kind().get_params() and task == "classification":
        given["loss"] = "log_loss"
    if recipe.estimator == "sgd" and given.get("learning_rate") in {"constant", "adaptive", "invscaling"}:
        given.setdefault("eta0", 0.01)
    made = kind()
    known = made.get_params()
    return made.set_params(**given, **({"random_state": seed} if "random_state" in known else {}))


def _usual_groups(recipe: Recipe, table: Table) -> Sequence[Group]:
    """What the estimator wants: one spread where it needs one, nothing missing, texts as columns of 0 and 1."""
    numbers = [column for column in table.rows.columns if not table.is_text(column)]
    has_gaps = bool(numbers) and bool(table.rows[numbers].isna().any(axis=None))
    steps = [Step("impute", {"strategy": "median"})] if has_gaps and recipe.estimator != "boosted" else []
    if ESTIMATORS[recipe.estimator].scaled:
        steps.append(Step("scale"))
    for column in table.rows.columns:
        if table.is_text(column) and table.rows[column].nunique() > _MOST_VALUES:
            raise _wrong(
                "features",
                f"the column {quote(column)} holds {table.rows[column].nunique()} different texts",
                f'what becomes of it, such as {{"columns": [{quote(column)}], "steps": ["words"]}}, beside'
                f' {{"columns": "{NUMBERS}", "steps": ["scale"]}}; a column without a group is left out',
            )
    return [Group(NUMBERS, tuple(steps)), Group(TEXTS, (Step("one-hot"),))]


def _columns(group: Group, table: Table, taken: set[str], place: int) -> list[Any]:
    if isinstance(group.columns, str):
        wants_text = group.columns == TEXTS
        return [each for each in table.rows.columns if table.is_text(each) == wants_text and each not in taken]
    named = {str(each): each for each in table.rows.columns}
    for column in group.columns:
        if column not in named:
            raise _wrong(
                f"features.{place}.columns",
                f"there is no column {quote(column)}",
                f"columns of the data: {', '.join(list(named)[:8])}",
            )
        wanted = TEXTS if table.is_text(named[column]) else NUMBERS
        if group.steps and STEPS[group.steps[0].name].takes != wanted:
            raise _wrong(
                f"features.{place}.steps",
                f"{group.steps[0].name} does not take the {wanted} of {quote(column)}",
                f"a first step for {wanted}: {', '.join(name for name, each in STEPS.items() if each.takes == wanted)}",
            )
        if not group.steps and wanted == TEXTS:
            raise _wrong(f"features.{place}.steps", f"{quote(column)} holds texts", "a step that makes numbers of them")
    return [named[column] for column in group.columns]


def _parts(name: str, steps: Sequence[Step], columns: list[Any], table: Table) -> list[tuple[str, Any, Any]]:
    from sklearn.pipeline import make_pipeline

    del table
    if not steps:
        return [(name, "passthrough", columns)]
    if steps[0].name == "words":  # reads one column, not a table of them
        return [(f"{name}-{each}", _made(steps, make_pipeline), each) for each in columns]
    return [(name, _made(steps, make_pipeline), columns)]


def _made(steps: Sequence[Step], join: Any) -> Any:  # noqa: ANN401
    made = [_step(each, "") for each in steps]
    return made[0] if len(made) == 1 else join(*made)


def _step(step: Step, task: str) -> Any:  # noqa: ANN401  (a transformer)
    kind = _loaded(STEPS[step.name].kind)
    settings = {**_SETTINGS.get(step.name, {}), **step.parameters}
    if step.name == "select" and task == "regression":
        from sklearn.feature_selection import f_regression

        settings["score_func"] = f_regression
    return kind(**settings)


def _loaded(path: str) -> Any:  # noqa: ANN401  (a class)
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _wrong(where: str, what: str, expected: str) -> InvalidRequest:
    field = f"parameters.recipe.{where}"
    return InvalidRequest(what, details=[{"field": field, "expected": expected}])
