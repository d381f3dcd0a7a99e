"""Spaces: every mistake is told with its path when the job is submitted, and a grid is what it says."""

from typing import Any

import pytest

from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.job_kinds import check_job, find_kind
from modelyard.domain.job_kinds.space import grid, read_space, size
from modelyard.domain.job_kinds.tune import direction

X = {"x": {"low": 0, "high": 1}}
RECIPE = {"target": "y", "estimator": "forest"}


def refused(parameters: dict[str, Any], *inputs: str) -> list[Any]:
    with pytest.raises(InvalidRequest) as error:
        check_job(find_kind("tune"), parameters, {name: {} for name in inputs})
    return [(each["field"].removeprefix("parameters."), str(each["expected"])) for each in error.value.details]


@pytest.mark.parametrize(
    ("space", "path", "expected"),
    [
        ({}, "space", "at least one parameter"),
        ({"x": 3}, "space.x", "an object"),
        ({"x": {}}, "space.x.low", "a number"),
        ({"x": {"low": 0, "high": True}}, "space.x.high", "a number"),
        ({"x": {"low": 2, "high": 1}}, "space.x.high", "more than low"),
        ({"x": {"low": 0, "high": 1, "log": True}}, "space.x.low", "logarithm"),
        ({"x": {"low": 0, "high": 1, "step": 3}}, "space.x.step", "at most 1"),
        ({"x": {"low": 1, "high": 2, "step": 1, "log": True}}, "space.x.step", "nothing beside log"),
        ({"x": {"low": 0.5, "high": 2, "whole": True}}, "space.x", "whole numbers"),
        ({"x": {"low": 0, "high": 1, "steps": 1}}, "space.x.steps", "one of high"),
        ({"x": {"low": 0, "high": 1, "log": 1}}, "space.x.log", "true or false"),
        ({"x": {"choices": []}}, "space.x.choices", "a list"),
        ({"x": {"choices": "ab"}}, "space.x.choices", "a list"),
        ({"x": {"choices": [1, 1]}}, "space.x.choices", "different values"),
        ({"x": {"choices": [1], "low": 1}}, "space.x.low", "nothing beside choices"),
        ({f"x{number}": {"choices": [1]} for number in range(51)}, "space", "at most 50"),
    ],
)
def test_a_mistake_in_a_space_is_told_with_its_path(space, path, expected) -> None:
    [(field, said), *_] = refused({"space": space, "metrics": ["score"]}, "script")
    assert field == path
    assert expected in said


@pytest.mark.parametrize(
    ("parameters", "inputs", "path"),
    [
        ({"space": X, "metrics": ["score"]}, (), "inputs.script"),
        ({"space": X, "metrics": ["a b"]}, ("script",), "metrics.0"),
        ({"space": X, "metrics": ["a:best"]}, ("script",), "metrics.0"),
        ({"space": X, "metrics": []}, ("script",), "metrics"),
        ({"space": X, "metrics": ["a", "a:minimise"]}, ("script",), "metrics"),
        ({"space": X, "metrics": ["a", "b"], "pruning": "median"}, ("script",), "pruning"),
        ({"space": X, "metrics": ["a"], "method": "grid"}, ("script",), "space.x"),
        (
            {"space": {"x": {"choices": [1, 2, 3]}}, "metrics": ["a"], "method": "grid", "trials": 2},
            ("script",),
            "trials",
        ),
        ({"space": X, "metrics": ["accuracy"], "recipe": RECIPE}, ("data",), "space.x"),
        (
            {"space": {"parameters.C": X["x"]}, "metrics": ["accuracy"], "recipe": RECIPE},
            ("data",),
            "space.parameters.C",
        ),
        (
            {"space": {"parameters.max_depth": {"low": 0, "high": 3}}, "metrics": ["accuracy"], "recipe": RECIPE},
            ("data",),
            "space.parameters.max_depth",
        ),
        (
            {"space": {"estimator": {"choices": ["oracle"]}}, "metrics": ["r2"], "recipe": RECIPE},
            ("data",),
            "space.estimator",
        ),
        (
            {"space": {"imbalance.method": {"choices": ["weights"]}}, "metrics": ["luck"], "recipe": RECIPE},
            ("data",),
            "metrics.0",
        ),
        (
            {"space": {"imbalance.method": {"choices": ["weights"]}}, "metrics": ["f1"], "recipe": RECIPE},
            (),
            "inputs.data",
        ),
        (
            {"space": {"imbalance.method": {"choices": ["weights"]}}, "metrics": ["f1"], "recipe": {}},
            ("data",),
            "recipe.target",
        ),
    ],
)
def test_a_study_that_cannot_be_is_refused_when_it_is_submitted(parameters, inputs, path) -> None:
    assert path in [field for field, _ in refused(parameters, *inputs)]


def test_a_recipe_and_a_script_are_not_given_together() -> None:
    space = {"parameters.max_depth": {"low": 1, "high": 3, "whole": True}}
    wrong = refused({"space": space, "metrics": ["accuracy"], "recipe": RECIPE}, "data", "script")
    assert "inputs.script" in [field for field, _ in wrong]


def test_a_grid_is_every_combination() -> None:
    space = read_space({"a": {"choices": ["x", "y"]}, "b": {"low": 0, "high": 1, "step": 0.25}})
    made = grid(space)
    assert made is not None
    assert len(made) == size(space) == 10
    assert made[0] == {"a": "x", "b": 0}
    assert made[-1] == {"a": "y", "b": 1.0}
    assert grid(read_space({"a": {"low": 0, "high": 1}})) is None
    assert [each["n"] for each in grid(read_space({"n": {"low": 2, "high": 5, "whole": True}})) or []] == [2, 3, 4, 5]


def test_which_way_a_metric_is_better_is_known_or_said() -> None:
    assert direction("accuracy") == ("accuracy", "maximise")
    assert direction("log_loss") == ("log_loss", "minimise")
    assert direction("size_bytes") == ("size_bytes", "minimise")
    assert direction("luck:minimise") == ("luck", "minimise")
