"""Going on with a version: further rows are learned, earlier ones again, and only where something has changed."""

import json

import pytest
from training_tables import CANCER, DIABETES, SMALL, customers

from modelyard.domain.errors.platform import InvalidRequest, NotSupported


@pytest.mark.parametrize("estimator", ["sgd", "naive-bayes", "network", "forest", "boosted"])
def test_further_rows_are_learned_on_top_of_what_was(run, contract, estimator) -> None:
    recipe = {"target": "target", "estimator": estimator, "parameters": SMALL.get(estimator, {})}
    first = run(recipe, CANCER.iloc[::2])
    second = run(None, CANCER.iloc[1::2], version=first.version, earlier=CANCER.iloc[::2], rounds=5)
    assert second.result["trained"] is True
    assert second.result["rows"]["replayed"] > 0
    assert second.result["after"]["new"] >= second.result["before"]["new"] - 0.05
    [offered] = second.attempt.offered
    assert (offered.name, offered.parent) == ("m", "m:1")
    assert contract(second.version).inputs == contract(first.version).inputs
    assert contract(second.version).outputs == contract(first.version).outputs
    third = run(None, CANCER.iloc[1::2], version=second.version)
    assert third.result["rows"]["replayed"] == 0


@pytest.mark.parametrize("estimator", ["sgd", "network"])
def test_numbers_are_learned_on_in_their_own_spread(run, estimator) -> None:
    recipe = {"target": "target", "estimator": estimator, "parameters": SMALL.get(estimator, {})}
    first = run(recipe, DIABETES.iloc[::2])
    second = run(None, DIABETES.iloc[1::2], version=first.version, rounds=20)
    assert second.result["after"]["new"] > 0.2


def test_replay_keeps_what_would_be_forgotten(run) -> None:
    recipe = {"target": "bought", "estimator": "network", "parameters": {"hidden_layer_sizes": [32], "max_iter": 300}}
    before, later = customers(600), customers(400, shift=25.0, seed=1)
    first = run(recipe, before)
    replayed, forgot = (
        run(None, later, version=first.version, earlier=before, replay=replay, rounds=40) for replay in (2.0, 0.0)
    )
    for done in (replayed, forgot):
        assert done.result["after"]["new"] > done.result["before"]["new"]
    assert replayed.result["after"]["earlier"] > forgot.result["after"]["earlier"]


def test_nothing_is_trained_until_the_rows_drift(run) -> None:
    recipe = {"target": "bought", "estimator": "forest", "parameters": SMALL["forest"]}
    first = run(recipe, customers(600))
    same = run(None, customers(400, seed=2), version=first.version, earlier=customers(600), only_if_drift=0.25)
    assert same.result["trained"] is False
    assert same.attempt.offered == []
    moved = run(None, customers(400, shift=25.0), version=first.version, earlier=customers(600), only_if_drift=0.25)
    assert moved.result["trained"] is True
    assert next(iter(moved.result["drift"])) == "age"
    with pytest.raises(InvalidRequest, match="the rows of before"):
        run(None, customers(), version=first.version, only_if_drift=0.25)


def test_a_threshold_stays_when_the_model_is_taught_more(run, contract) -> None:
    recipe = {"target": "bought", "estimator": "naive-bayes", "imbalance": {"threshold": "f1"}}
    first = run(recipe, customers(600))
    second = run(None, customers(400, seed=1), version=first.version)
    assert contract(second.version).labelling == contract(first.version).labelling
    assert contract(second.version).labelling.source == "class_index"


def test_what_cannot_be_gone_on_with_says_why(run) -> None:
    recipe = {"target": "bought", "estimator": "naive-bayes"}
    first = run(recipe, customers())
    with pytest.raises(InvalidRequest, match="no column 'age'"):
        run(None, customers().drop(columns="age"), version=first.version)
    with pytest.raises(InvalidRequest, match="the class 'maybe', which the model does not know"):
        run(None, customers().assign(bought="maybe"), version=first.version)
    neighbours = run({**recipe, "estimator": "neighbours"}, customers())
    with pytest.raises(NotSupported, match="learns from all rows at once"):
        run(None, customers(), version=neighbours.version)
    config = neighbours.version / "files" / "config.json"
    config.write_text(json.dumps({"task": "classification"}))
    with pytest.raises(NotSupported, match="not made by train"):
        run(None, customers(), version=neighbours.version)
