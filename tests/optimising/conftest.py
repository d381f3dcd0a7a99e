"""A forest on handwritten digits, audited as uploads are, and attempts at jobs that optimise it."""

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from modelyard.domain.job_kinds import KINDS
from modelyard.testing.attempts import RecordedAttempt
from modelyard.testing.audited import given_model


@pytest.fixture(scope="session")
def forest(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A forest of 200 trees, its package, and held-out rows with their digits."""
    data, target = load_digits(return_X_y=True)
    rows, held, known, right = train_test_split(data, target, test_size=0.5, random_state=0, stratify=target)
    model = RandomForestClassifier(200, random_state=0).fit(rows, known)
    return _given(tmp_path_factory.mktemp("forest"), model, held, right)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A small network on the same digits."""
    data, target = load_digits(return_X_y=True)
    rows, held, known, right = train_test_split(data / 16, target, test_size=0.5, random_state=0, stratify=target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((200,), max_iter=10, random_state=0).fit(rows, known)
    return _given(tmp_path_factory.mktemp("network"), model, held, right)


def _given(place: Path, model: Any, rows: np.ndarray, right: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(given=given_model(place, model, name="digits"), rows=rows.astype("f4"), right=right)


@pytest.fixture
def attempt(tmp_path: Path) -> Any:
    """Makes an attempt at `optimise` for a model with rows and what is right for them."""

    def make(model: SimpleNamespace, **parameters: Any) -> RecordedAttempt:
        file = tmp_path / "sample.npz"
        np.savez(file, rows=model.rows, target=model.right)
        given = {"p99_ms": 1000.0, "seconds": 5, "rate": 100.0, "servers": 1, **parameters}
        checked = KINDS["optimise"].check(given, {"model": {}, "sample": {}})
        return RecordedAttempt(tmp_path / "attempt", checked, {"model": model.given, "sample": file}, kind="optimise")

    return make
