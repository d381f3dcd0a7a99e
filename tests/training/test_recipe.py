"""Recipes: every mistake is told with its path before anything runs, and a path names what a search may change."""

from typing import Any

import pytest

from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.job_kinds import check_job, find_kind
from modelyard.domain.job_kinds.recipe import changed, digest, read_recipe, searchable, wrong_in

LEAST: dict[str, Any] = {"target": "y", "estimator": "forest"}


@pytest.mark.parametrize(
    ("more", "path", "expected"),
    [
        ({"estimater": "tree"}, "estimater", "one of"),
        ({"estimator": "oracle"}, "estimator", "one of logistic"),
        ({"target": 3}, "target", "a text"),
        ({"parameters": {"depth": 3}}, "parameters.depth", "n_estimators"),
        ({"parameters": {"max_depth": 0}}, "parameters.max_depth", "from 1 to 64"),
        ({"parameters": [1]}, "parameters", "an object"),
        ({"features": {}}, "features", "a list"),
        ({"features": [{"columns": ["a"]}]}, "features.0", '"steps"'),
        ({"features": [{"columns": "a", "steps": []}]}, "features.0.columns", "a list of names"),
        ({"features": [{"columns": ["a"], "steps": ["polish"]}]}, "features.0.steps.0", "one-hot"),
        ({"features": [{"columns": "numbers", "steps": ["one-hot"]}]}, "features.0.steps.0", "takes numbers"),
        ({"features": [{"columns": ["a"], "steps": [{"bins": {"n": 3}}]}]}, "features.0.steps.0.bins.n", "n_bins"),
        ({"features": [{"columns": ["a"], "steps": []}] * 2}, "features.1.columns", "no other group"),
        ({"then": ["words"]}, "then.0", "takes numbers"),
        ({"imbalance": {"method": "magic"}}, "imbalance.method", "smote"),
        ({"task": "regression", "imbalance": {"method": "weights"}}, "imbalance", "no rare classes"),
        ({"task": "regression", "metric": "f1"}, "metric", "one for regression"),
        ({"task": "regression", "estimator": "logistic"}, "estimator", "one for regression"),
        ({"augment": {"noise": 0.1}}, "augment.copies", "1 or more"),
        ({"augment": {"copies": 1, "flip": True}}, "augment.image", "height and width"),
        ({"augment": {"copies": 1, "image": [8]}}, "augment.image", "height, width"),
        ({"validation": {"held_out": 1}}, "validation.held_out", "from 0.05 to 0.9"),
    ],
)
def test_a_mistake_is_told_with_its_path_when_the_job_is_submitted(more, path, expected) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_job(find_kind("train"), {"recipe": {**LEAST, **more}, "name": "m"}, {"data": {}})
    [first, *_] = refused.value.details
    assert first["field"] == f"parameters.recipe.{path}"
    assert expected in str(first["expected"])


def test_all_mistakes_are_told_at_once() -> None:
    wrong = wrong_in({"estimator": "forest", "parameters": {"a": 1, "max_depth": 99}, "what": 1})
    assert {each["field"].removeprefix("parameters.recipe.") for each in wrong} == {
        "what",
        "target",
        "parameters.a",
        "parameters.max_depth",
    }


def test_a_recipe_or_a_version_to_go_on_with_is_needed() -> None:
    with pytest.raises(InvalidRequest, match="a recipe, or a version"):
        check_job(find_kind("train"), {"name": "m"}, {"data": {}})


def test_a_path_changes_one_value_and_leaves_the_document_as_it_was() -> None:
    made = changed(LEAST, {"parameters.max_depth": 3, "imbalance.method": "weights"})
    assert made == {**LEAST, "parameters": {"max_depth": 3}, "imbalance": {"method": "weights"}}
    assert "parameters" not in LEAST
    assert wrong_in(made) == []
    assert {"parameters.max_depth", "imbalance.method", "augment.noise", "estimator"} <= set(searchable(LEAST))
    assert "parameters.C" not in searchable(LEAST)


def test_the_version_of_a_recipe_does_not_depend_on_the_order_it_is_written_in() -> None:
    other = dict(reversed(list(LEAST.items())))
    assert digest(LEAST) == digest(other)
    assert digest(LEAST) != digest(changed(LEAST, {"parameters.max_depth": 3}))


def test_defaults_are_filled_in_and_steps_keep_their_parameters() -> None:
    document = {**LEAST, "features": [{"columns": ["a"], "steps": ["impute", {"bins": {"n_bins": 4}}]}]}
    recipe = read_recipe(document)
    assert recipe.validation["held_out"] == 0.25
    assert [(each.name, dict(each.parameters)) for each in recipe.groups[0].steps] == [
        ("impute", {}),
        ("bins", {"n_bins": 4}),
    ]
