"""Search: which parameters of a recipe, or of a training script of the user's, do best."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelyard.domain.access import Verb
from modelyard.domain.errors.base import Detail, quote
from modelyard.domain.job_kinds.fields import Choice, Items, JobKind, Number, Table, Text
from modelyard.domain.job_kinds.recipe import (
    CLASSIFICATION_METRICS,
    LOWER_IS_BETTER,
    REGRESSION_METRICS,
    searchable,
    wrong_in,
)
from modelyard.domain.job_kinds.space import Choices, grid, read_space, wrong_in_space

SIZE: Final = "size_bytes"
"""A metric of every recipe: the bytes of the model."""
MAXIMISE, MINIMISE = "maximise", "minimise"
GRID, RANDOM, TPE = "grid", "random", "tpe"
NONE, MEDIAN, HYPERBAND = "none", "median", "hyperband"
_METRIC: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}(:(maximise|minimise))?")


def direction(metric: str) -> tuple[str, str]:
    """The name of a metric, and which way it is better."""
    name, _, way = metric.partition(":")
    return name, way or (MINIMISE if name in {*LOWER_IS_BETTER, SIZE} else MAXIMISE)


def _of_search(parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> Sequence[Detail]:
    wrong = wrong_in_space(parameters["space"])
    recipe = parameters.get("recipe")
    if (recipe is None) == ("script" not in inputs):
        wrong.append({"field": "inputs.script", "expected": "a script, or a recipe: one of the two"})
    if recipe is not None:
        wrong += [*wrong_in(recipe), *_wrong_with_recipe(parameters, recipe, inputs)]
    metrics = parameters["metrics"]
    for place, metric in enumerate(metrics):
        if not _METRIC.fullmatch(metric):
            expected = f"NAME, NAME:{MAXIMISE} or NAME:{MINIMISE}"
            wrong.append(
                {"field": f"parameters.metrics.{place}", "expected": expected, "received": quote(metric, limit=60)}
            )
    if not metrics or len({direction(each)[0] for each in metrics}) != len(metrics):
        wrong.append({"field": "parameters.metrics", "expected": "at least one metric, each once"})
    if len(metrics) > 1 and parameters["pruning"] != NONE:
        wrong.append({"field": "parameters.pruning", "expected": f"{NONE}, where there are several metrics"})
    return wrong or _wrong_grid(parameters)


def _wrong_with_recipe(
    parameters: Mapping[str, Any], recipe: Mapping[str, Any], inputs: Mapping[str, Any]
) -> list[Detail]:
    known = searchable(recipe)
    wrong: list[Detail] = [
        {"field": f"parameters.space.{name}", "expected": f"one of {', '.join(sorted(known))}"}
        for name in parameters["space"]
        if name not in known
    ]
    if not wrong and not wrong_in_space(parameters["space"]):
        for name, each in read_space(parameters["space"]).items():
            values = each.choices if isinstance(each, Choices) else (each.low, each.high)
            wrong += [
                {"field": f"parameters.space.{name}", "expected": known[name].expects(), "received": quote(value)}
                for value in values
                if not known[name].fits(value)
            ][:1]
    if "data" not in inputs:
        wrong.append({"field": "inputs.data", "expected": "the rows that the recipe is trained on"})
    figures = {*CLASSIFICATION_METRICS, *REGRESSION_METRICS, SIZE}
    wrong += [
        {"field": f"parameters.metrics.{place}", "expected": f"one of {', '.join(sorted(figures))}"}
        for place, each in enumerate(parameters["metrics"])
        if direction(each)[0] not in figures
    ]
    if parameters.get("fixed"):
        wrong.append({"field": "parameters.fixed", "expected": "nothing: the recipe holds what is fixed"})
    return wrong


def _wrong_grid(parameters: Mapping[str, Any]) -> list[Detail]:
    if parameters["method"] != GRID:
        return []
    space = read_space(parameters["space"])
    for name, each in space.items():
        if each.values() is None:
            return [{"field": f"parameters.space.{name}", "expected": "choices, or a step: a grid is finite"}]
    made = grid(space) or []
    if len(made) > parameters["trials"]:
        expected = f"at least {len(made)}, which is how many the grid has"
        return [{"field": "parameters.trials", "expected": expected, "received": str(parameters["trials"])}]
    return []


TUNE: Final = JobKind(
    name="tune",
    text="Searches for the parameters of a recipe, or of a training script, that do best, and offers the best model.",
    verb=Verb.UPLOAD,
    parameters={
        "recipe": Table(text="What is trained, as the job train takes it; without it, a script is given."),
        "space": Table(
            text="What each parameter may be: low and high, with log, step or whole; or choices. Of a recipe, by path"
            " such as parameters.max_depth.",
            required=True,
        ),
        "metrics": Items(
            text="What is to be best, as NAME, NAME:maximise or NAME:minimise; of several, all that no other beats in"
            " each.",
            each=Text(text="A metric.", longest=80),
            required=True,
            most=4,
        ),
        "method": Choice(
            text="Every combination, by chance, or by what did well so far (a tree-structured Parzen estimator).",
            choices=(GRID, RANDOM, TPE),
            default=TPE,
        ),
        "trials": Number(text="Trials at most.", low=1, high=10_000, default=30, whole=True),
        "parallel": Number(text="Trials at once.", low=1, high=256, default=1, whole=True),
        "pruning": Choice(
            text="End a trial early that is worse than half of the others at the same step, or by halving.",
            choices=(NONE, MEDIAN, HYPERBAND),
            default=NONE,
        ),
        "trial_seconds": Number(text="How long a trial may take.", low=1, high=86_400, default=600),
        "trial_memory_mb": Number(text="How much memory it may hold.", low=64, high=1 << 20, default=2048),
        "trial_disk_mb": Number(text="How much it may write.", low=1, high=1 << 20, default=256),
        "fixed": Table(text="Further parameters that a script is given as they are."),
        "name": Text(text="The model whose version the best becomes; without it, none is offered.", longest=63),
        "parent": Text(text="The version that it follows, as NAME:VERSION; kept with the new one."),
    },
    optional=("script", "data"),
    more=_of_search,
)
