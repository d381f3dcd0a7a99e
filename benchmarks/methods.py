"""python -m benchmarks.methods [METHOD …]: what compression makes of models trained on real data, as a table.

Networks for the methods that shorten numbers, ensembles of trees for `trees`; all methods where none is named.

Each model is judged on 10,000 rows, drawn with replacement from the held-out half (the sets are smaller than that), so
the intervals speak of these rows and are narrower than new data would make them. Times are ratios of one thread.
"""

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from modelyard.domain.errors import ModelyardError
from modelyard.domain.job_kinds.compress import COMPRESSION_METHODS, TREES
from modelyard.integrations.compressors.compress import Compress
from modelyard.testing.attempts import RecordedAttempt
from modelyard.testing.audited import given_model

_ROWS = 10_000


def _ensembles() -> dict[str, tuple[Any, Any, Any]]:
    digits, cancer, diabetes = (load(return_X_y=True) for load in (load_digits, load_breast_cancer, load_diabetes))
    return {
        "digits, forest of 500": (*digits, RandomForestClassifier(500, random_state=0, n_jobs=2)),
        "digits, boosted": (*digits, HistGradientBoostingClassifier(max_iter=100, random_state=0)),
        "breast cancer, forest of 501": (*cancer, RandomForestClassifier(501, random_state=0, n_jobs=2)),
        "diabetes, forest of 500": (*diabetes, RandomForestRegressor(500, random_state=0, n_jobs=2)),
    }


def _networks() -> dict[str, tuple[Any, Any, Any]]:
    digits, cancer, diabetes = (load(return_X_y=True) for load in (load_digits, load_breast_cancer, load_diabetes))
    return {
        "digits": (digits[0] / 16, digits[1], MLPClassifier((1000, 1000), max_iter=25, random_state=0)),
        "breast cancer": (
            StandardScaler().fit_transform(cancer[0]),
            cancer[1],
            MLPClassifier((1000, 1000), max_iter=25, random_state=0),
        ),
        "diabetes": (
            diabetes[0],
            diabetes[1],
            MLPRegressor(hidden_layer_sizes=(1000, 1000), max_iter=60, random_state=0),
        ),
    }


def main(methods: list[str]) -> None:
    """Print the table."""
    of_networks = [each for each in methods if each != TREES]
    models = [(each, of_networks) for each in _networks().items() if of_networks]
    models += [(each, [TREES]) for each in _ensembles().items() if TREES in methods]
    print("| data | method | size | points lost (95 %) | score before → after | one row | 64 rows |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, ((name, given), chosen) in enumerate(models):
            _compress_all(Path(place) / str(number), name, given, chosen)


def _compress_all(place: Path, name: str, trained: tuple[Any, Any, Any], methods: list[str]) -> None:
    rows, right, model = trained
    known, held, of_known, of_held = train_test_split(rows, right, test_size=0.5, random_state=0)
    model.fit(known, of_known)
    given = given_model(place, model)
    picked = np.random.default_rng(0).integers(0, len(held), _ROWS)
    sample = place / "sample.npz"
    np.savez(sample, rows=held[picked].astype("f4"), target=of_held[picked])
    for method in methods:
        parameters = {"method": method, "max_drop": 0.5}
        attempt = RecordedAttempt(place / method, parameters, {"model": given, "sample": sample}, kind="compress")
        try:
            print(_row(name, method, dict(Compress().run(attempt))), flush=True)  # type: ignore[arg-type]
        except ModelyardError as error:
            print(f"| {name} | {method} | – | {error.detail} | – | – | – |", flush=True)


def _row(name: str, method: str, result: dict[str, Any]) -> str:
    drop, times = result["drop"], result["time"]
    lost = f"{drop['points']:.2f} ({drop['low']:.2f} to {drop['high']:.2f})"
    scores = f"{drop['before']:.4g} → {drop['after']:.4g}"
    quicker = [f"{times[which]['times_quicker']:.2f} ×" for which in ("one", "batch")]
    kept = f", {len(result['left_out'])} nodes kept" if result["left_out"] else ""
    kept += f", {result['trees']['after']} of {result['trees']['before']}" if result["trees"] else ""
    return f"| {name} | {method}{kept} | {result['size']['ratio']:.2f} | {lost} | {scores} | {' | '.join(quicker)} |"


if __name__ == "__main__":
    main(sys.argv[1:] or list(COMPRESSION_METHODS))
