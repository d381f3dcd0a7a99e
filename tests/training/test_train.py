"""Recipes on real rows: what comes out is served as ONNX, judged on rows it has not seen, and better than guessing."""

import numpy as np
import pandas as pd
import pytest
from training_tables import CANCER, DIABETES, SMALL, customers, images, rare

from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.job_kinds.estimators import CLASSIFICATION, ESTIMATORS, REGRESSION
from modelyard.foundation.documents import read_package


@pytest.mark.parametrize(
    ("estimator", "task"), [(name, task) for name, form in ESTIMATORS.items() for task in form.classes]
)
def test_every_estimator_learns_and_is_served_as_onnx(run, estimator, task) -> None:
    table = CANCER if task == CLASSIFICATION else DIABETES
    done = run(
        {"target": "target", "estimator": estimator, "task": task, "parameters": SMALL.get(estimator, {})}, table
    )
    held = done.result["held_out"]
    assert held["low"] <= held["value"] <= held["high"]
    least = {CLASSIFICATION: done.result["baseline"]["value"] + 0.1, REGRESSION: 0.1}[task]
    assert held["value"] > least
    assert done.result["rows"]["held_out"] + done.result["rows"]["given"] == len(table)
    package = read_package(done.version / "package")
    assert package.runtime == "onnxruntime"
    assert [each.name for each in package.contract.inputs] == [each for each in table.columns if each != "target"]


def test_the_same_seed_makes_the_same_model(run) -> None:
    recipe = {
        "target": "target",
        "estimator": "forest",
        "parameters": SMALL["forest"],
        "augment": {"copies": 1, "noise": 0.1},
    }
    first, second, third = (run(recipe, CANCER, seed=seed).result["held_out"] for seed in (1, 1, 2))
    assert first == second
    assert first != third


def test_features_travel_inside_the_model_and_stay_as_they_were_declared(run, contract, answers) -> None:
    recipe = {
        "target": "bought",
        "estimator": "logistic",
        "features": [
            {"columns": ["age"], "steps": [{"impute": {"strategy": "median"}}, {"bins": {"n_bins": 6}}]},
            {"columns": ["city"], "steps": ["one-hot"]},
            {"columns": ["note"], "steps": ["words"]},
        ],
        "then": [{"select": {"k": 8}}],
    }
    done = run(recipe, customers())
    assert done.result["held_out"]["value"] > 0.8
    assert {each.name: each.datatype.value for each in contract(done.version).inputs} == {
        "age": "FP32",
        "city": "BYTES",
        "note": "BYTES",
    }
    rows = {"age": [[60.0], [20.0]], "city": [["lima"], ["oslo"]], "note": [["bad rain"], ["a good day"]]}
    inputs = {name: np.array(each, dtype=np.float32 if name == "age" else object) for name, each in rows.items()}
    found = answers(done.version, inputs)["probabilities"]
    assert [contract(done.version).labels[place] for place in found.argmax(axis=1)] == ["y", "n"]
    kept = done.attempt.offered[0].config["training_data"]["recipe"]
    assert kept == recipe
    assert done.result["recipe"]["document"] == recipe


def test_columns_prepare_themselves_where_the_recipe_says_nothing(run) -> None:
    assert run({"target": "bought", "estimator": "logistic"}, customers()).result["held_out"]["value"] > 0.7


@pytest.mark.parametrize("method", ["weights", "oversample", "undersample", "smote"])
def test_a_rare_class_is_found_more_often_when_it_is_evened_out(run, method) -> None:
    def recall(chosen: str) -> float:
        recipe = {
            "target": "target",
            "estimator": "forest",
            "parameters": {"n_estimators": 30, "max_depth": 2},
            "imbalance": {"method": chosen},
            "validation": {"held_out": 0.5},
        }
        classes = run(recipe, rare(20)).result["held_out"]["classes"]
        return next(each["recall"] for each in classes if each["class"] == "0")

    assert recall(method) > recall("none")


def test_a_threshold_is_chosen_by_rows_that_were_not_learned_from_and_is_served(run, contract, answers) -> None:
    recipe = {
        "target": "target",
        "estimator": "forest",
        "parameters": {"n_estimators": 30, "max_depth": 2},
        "imbalance": {"threshold": "f1"},
        "metric": "f1",
        "validation": {"held_out": 0.5},
    }
    done = run(recipe, rare())
    threshold = done.result["threshold"]
    assert threshold["class"] == "0"
    assert 0 < threshold["value"] < 0.5
    columns = [each for each in CANCER.columns if each != "target"]
    found = answers(done.version, {name: rare()[[name]].to_numpy("f4") for name in columns})
    chosen = found["class_index"] == 0
    assert (chosen == (found["probabilities"][:, 0] >= np.float32(threshold["value"]))).all()
    assert (chosen != (found["probabilities"][:, 0] >= 0.5)).any()
    assert contract(done.version).labelling.source == "class_index"


def test_copies_of_images_are_moved_and_mixed_and_help_where_rows_are_few(run) -> None:
    recipe = {
        "target": "target",
        "estimator": "network",
        "parameters": {"hidden_layer_sizes": [64], "max_iter": 100},
        "validation": {"held_out": 0.9},
    }
    plain = run(recipe, images(1000))
    augmented = run({**recipe, "augment": {"copies": 8, "image": [8, 8], "shift": 1, "mixup": 0.2}}, images(1000))
    assert augmented.result["held_out"]["value"] > plain.result["held_out"]["value"]
    assert augmented.result["rows"]["learned"] > 8 * plain.result["rows"]["learned"]
    assert augmented.result["rows"]["held_out"] == plain.result["rows"]["held_out"]


def test_folds_show_the_spread_and_a_picture_is_kept(run) -> None:
    recipe = {"target": "target", "estimator": "ridge", "validation": {"folds": 4}}
    done = run(recipe, DIABETES)
    assert len(done.result["folds"]["values"]) == 4
    assert done.result["folds"]["spread"] > 0
    assert done.attempt.kept["report.svg"].read_text().startswith("<?xml")
    assert [each.done for each in done.attempt.reports] == sorted(each.done for each in done.attempt.reports)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"target": "price", "estimator": "tree"}, "no column 'price'"),
        ({"target": "bought", "estimator": "ridge"}, "ridge is not for classification"),
        ({"target": "bought", "estimator": "tree", "features": [{"columns": ["agee"], "steps": []}]}, "'agee'"),
        (
            {"target": "bought", "estimator": "tree", "features": [{"columns": ["age"], "steps": ["one-hot"]}]},
            "of 'age'",
        ),
        ({"target": "bought", "estimator": "tree", "features": [{"columns": ["city"], "steps": []}]}, "holds texts"),
        ({"target": "age", "estimator": "tree", "imbalance": {"method": "weights"}}, "no rare classes"),
        ({"target": "bought", "estimator": "neighbours", "imbalance": {"method": "weights"}}, "takes no weights"),
        ({"target": "bought", "estimator": "svm", "imbalance": {"threshold": "f1"}}, "gives no probabilities"),
        ({"target": "bought", "estimator": "svm", "metric": "log_loss"}, "needs probabilities"),
        ({"target": "city", "estimator": "tree", "metric": "f1"}, "of two classes"),
        ({"target": "city", "estimator": "tree", "imbalance": {"threshold": "f1"}}, "between two classes"),
        ({"target": "bought", "estimator": "tree", "augment": {"copies": 1, "image": [8, 8], "flip": True}}, "8 x 8"),
        ({"target": "age", "estimator": "tree", "task": "classification"}, "fractions"),
        ({"target": "bought", "estimator": "tree", "task": "regression"}, "texts"),
    ],
)
def test_what_does_not_fit_the_rows_is_refused_with_what_would(run, recipe, words) -> None:
    with pytest.raises(InvalidRequest, match=words) as refused:
        run(recipe, customers())
    assert refused.value.details


def test_a_column_of_many_texts_is_not_guessed_at(run) -> None:
    table = customers().assign(name=[f"person {number}" for number in range(400)])
    with pytest.raises(InvalidRequest, match=r"'name' holds \d+ different texts"):
        run({"target": "bought", "estimator": "tree"}, table)


def test_a_class_with_too_few_rows_and_a_table_that_is_too_small_are_told(run) -> None:
    table = customers()
    table.loc[0, "bought"] = "maybe"
    with pytest.raises(InvalidRequest, match="'maybe' has 1 rows"):
        run({"target": "bought", "estimator": "tree"}, table)
    with pytest.raises(InvalidRequest, match="12 rows"):
        run({"target": "bought", "estimator": "tree"}, customers(12))


def test_equal_rows_stay_on_one_side(run) -> None:
    table = pd.concat([customers(60)] * 6)
    done = run({"target": "bought", "estimator": "tree"}, table)
    assert done.result["rows"]["held_out"] % 6 == 0
