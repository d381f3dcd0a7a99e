"""Training by recipe, and going on with what was trained."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelyard.domain.access import Verb
from modelyard.domain.errors.base import Detail
from modelyard.domain.job_kinds.fields import JobKind, Number, Table, Text
from modelyard.domain.job_kinds.recipe import wrong_in


def _of_recipe(parameters: Mapping[str, Any]) -> Sequence[Detail]:
    recipe = parameters.get("recipe")
    if recipe is not None:
        return wrong_in(recipe)
    if "parent" in parameters:
        return ()
    return [{"field": "parameters.recipe", "expected": "a recipe, or a parent to go on with", "received": "nothing"}]


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
