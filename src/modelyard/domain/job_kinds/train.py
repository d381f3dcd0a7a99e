"""Training by recipe, and going on with what was trained."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelyard.domain.access import Verb
from modelyard.domain.errors.base import Detail
from modelyard.domain.job_kinds.fields import JobKind, Number, Table, Text
from modelyard.domain.job_kinds.recipe import wrong_in


def _of_recipe(parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> Sequence[Detail]:
    recipe = parameters.get("recipe")
    if recipe is not None:
        named: list[Detail] = (
            [] if "name" in parameters else [{"field": "parameters.name", "expected": "a name for it"}]
        )
        return [*wrong_in(recipe), *named]
    if "model" not in inputs or "parent" not in parameters:
        expected = "a recipe, or a version in the input model to go on with, named in parent"
        return [{"field": "parameters.recipe", "expected": expected, "received": "nothing"}]
    if parameters.get("only_if_drift") is not None and "earlier" not in inputs:
        return [{"field": "inputs.earlier", "expected": "the rows of before, for drift is seen by comparing"}]
    return ()


TRAIN: Final = JobKind(
    name="train",
    text="Trains a model by a recipe, judged on held-out rows, or goes on with one that was, and offers the version.",
    verb=Verb.UPLOAD,
    parameters={
        "recipe": Table(
            text="What is predicted, by which features and estimator: target, estimator, and optionally task, features,"
            " then, parameters, imbalance, augment, validation, metric. Without it, the parent is taught more."
        ),
        "name": Text(text="The model whose version it becomes; without it, the parent's.", longest=63),
        "parent": Text(text="The version that is gone on with, as NAME:VERSION; kept with the new one."),
        "rounds": Number(
            text="Going on: passes over the rows, or trees or rounds that are added.",
            low=1,
            high=10_000,
            default=10,
            whole=True,
        ),
        "replay": Number(
            text="Going on: earlier rows that are learned from again, in parts of the new ones.",
            low=0,
            high=100,
            default=1.0,
        ),
        "only_if_drift": Number(
            text="Going on: end without a version unless a column's population stability index reaches this.",
            low=0,
            high=100,
        ),
    },
    inputs=("data",),
    optional=("model", "earlier"),
    more=_of_recipe,
)
