"""Real ensembles with fewer trees: what may go without a trace goes, and the rest as far as is allowed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.model_selection import train_test_split

from modelyard.domain.errors.platform import NotSupported
from modelyard.integrations.compressors.compress import Compress
from modelyard.integrations.compressors.trees import Cut, Ensemble, fewest
from modelyard.testing.audited import given_model

MODELS = {
    "forest": (load_digits, RandomForestClassifier(60, random_state=0)),
    "two classes": (load_breast_cancer, RandomForestClassifier(41, random_state=0)),
    "forest of numbers": (load_diabetes, RandomForestRegressor(40, random_state=0)),
    "boosted": (load_digits, HistGradientBoostingClassifier(max_iter=30, random_state=0)),
    "boosted, two classes": (load_breast_cancer, HistGradientBoostingClassifier(max_iter=30, random_state=0)),
    "boosted numbers": (load_diabetes, GradientBoostingRegressor(n_estimators=60, random_state=0)),
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model by its name in `MODELS`, audited as an upload is, with held-out rows."""
    made: dict[str, SimpleNamespace] = {}

    def make(name: str) -> SimpleNamespace:
        if name not in made:
            load, model = MODELS[name]
            data, target = load(return_X_y=True)
            rows, held, known, right = train_test_split(data, target, test_size=0.5, random_state=0)
            given = given_model(tmp_path_factory.mktemp("trees"), model.fit(rows, known))
            made[name] = SimpleNamespace(given=given, rows=held.astype("f4"), right=right)
        return made[name]

    return make


def answers(path: Path, rows: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})


def entry(model: SimpleNamespace) -> Path:
    return next((model.given / "package").glob("*.onnx"))


@pytest.mark.parametrize("name", MODELS)
def test_what_no_runtime_reads_goes_without_a_trace(trained, name, tmp_path: Path) -> None:
    model = trained(name)
    ensemble = Ensemble(entry(model))
    made = tmp_path / "made.onnx"
    ensemble.write(made, Cut(ensemble.rounds, rescaled=False))
    onnx.checker.check_model(str(made))
    assert made.stat().st_size < 0.95 * entry(model).stat().st_size
    for before, after in zip(answers(entry(model), model.rows), answers(made, model.rows), strict=True):
        assert np.array_equal(before, after)


@pytest.mark.parametrize(("name", "most"), [("forest", 0.5), ("boosted", 0.5), ("forest of numbers", 2.0)])
def test_fewer_trees_answer_as_well_as_is_asked(trained, attempt, name, most, tmp_path: Path) -> None:
    job = attempt(trained(name), method="trees", max_drop=most)
    result = dict(Compress().run(job))
    assert result["drop"]["points"] <= most
    assert 0 < result["trees"]["after"] < result["trees"]["before"]
    assert result["size"]["ratio"] < 0.8
    [offered] = job.offered
    path = tmp_path / "offered.onnx"
    path.write_bytes(offered.data)
    assert Ensemble(path).trees == result["trees"]["after"]


def test_a_forest_that_lost_trees_still_answers_with_shares_of_one(trained, tmp_path: Path) -> None:
    model = trained("forest")
    made = tmp_path / "made.onnx"
    Ensemble(entry(model)).write(made, Cut(15, rescaled=True))
    shares = next(each for each in answers(made, model.rows) if each.dtype.kind == "f")
    assert shares.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_a_boosted_model_of_ten_classes_loses_whole_rounds(trained) -> None:
    ensemble = Ensemble(entry(trained("boosted")))
    assert (ensemble.rounds, ensemble.trees) == (30, 300)
    assert ensemble.trees_in(Cut(7, rescaled=False)) == 70


def test_the_halving_ends_with_the_fewest_that_are_enough() -> None:
    assert [cut.rounds for cut in fewest(100, lambda cut: cut.rounds >= 13)][-1] == 13
    assert list(fewest(100, lambda cut: False)) == []
    assert list(fewest(1, lambda cut: True)) == [Cut(1, rescaled=False)]
    assert not any(cut.rescaled for cut in fewest(64, lambda cut: not cut.rescaled))


def test_where_no_tree_is_the_job_says_so(digits, attempt) -> None:
    with pytest.raises(NotSupported, match="0 ensembles of trees"):
        Compress().run(attempt(digits, method="trees"))


def test_nothing_is_offered_where_even_the_whole_ensemble_costs_too_much(trained, attempt) -> None:
    job = attempt(trained("forest"), method="trees", max_drop=-1.0)
    with pytest.raises(NotSupported, match="and -1 are allowed"):
        Compress().run(job)
    assert job.offered == []


def test_a_form_that_the_library_writes_and_nothing_can_open_is_refused_as_that(trained, attempt) -> None:
    """The 16-bit converter leaves a forest of numbers with types that do not meet."""
    with pytest.raises(NotSupported, match="cannot be brought into fp16"):
        Compress().run(attempt(trained("forest of numbers"), method="fp16"))
