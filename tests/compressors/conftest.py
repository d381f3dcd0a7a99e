"""Models trained on real data, audited as uploads are, and a place in which a job's code runs without its worker."""

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor

from modelyard.testing.attempts import RecordedAttempt
from modelyard.testing.audited import given_model


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A network of more than a million weights on handwritten digits, its package, and held-out rows."""
    data, target = load_digits(return_X_y=True)
    rows, held, known, right = train_test_split(data, target, test_size=0.5, random_state=0, stratify=target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((1000, 1000), max_iter=6, random_state=0).fit(rows / 16, known)
    given = given_model(tmp_path_factory.mktemp("digits"), model, name="digits")
    return SimpleNamespace(given=given, rows=(held / 16).astype("f4"), right=right)


@pytest.fixture(scope="session")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A small network that predicts numbers."""
    data, target = load_diabetes(return_X_y=True)
    rows, held, known, right = train_test_split(data, target, test_size=0.4, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPRegressor(hidden_layer_sizes=(64, 64), max_iter=300, random_state=0).fit(rows, known)
    given = given_model(tmp_path_factory.mktemp("diabetes"), model, name="diabetes")
    return SimpleNamespace(given=given, rows=held, right=right)


@pytest.fixture
def attempt(tmp_path: Path) -> Any:
    """Makes an attempt at `compress` for a model with a sample of its rows."""

    def make(
        model: SimpleNamespace, *, known: bool = True, sample: Path | None = None, **parameters: Any
    ) -> RecordedAttempt:
        file = sample or tmp_path / "sample.npz"
        if sample is None:
            np.savez(file, rows=model.rows, **({"target": model.right} if known else {}))
        given = {"max_drop": 0.5, **parameters}
        return RecordedAttempt(tmp_path / "attempt", given, {"model": model.given, "sample": file}, kind="compress")

    return make
