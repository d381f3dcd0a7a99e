"""python -m benchmarks.methods: what compression makes of networks trained on real data, as a table.

Each model is judged on 10,000 rows, drawn with replacement from the held-out half (the sets are smaller than that), so
the intervals speak of these rows and are narrower than new data would make them. Times are ratios of one thread.
"""

import io
import tempfile
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from modelyard.domain.errors import ModelyardError
from modelyard.integrations.compressors.compress import Compress
from modelyard.testing.audited import audited

_ROWS = 10_000
_METHODS = ("int8", "int8-static", "fp16", "graph")


class _Attempt:
    """An attempt without a worker; see `JobContext`."""

    id, kind, seed, attempt = "benchmark", "compress", 0, 1

    def __init__(self, place: Path, inputs: dict[str, Path], parameters: dict[str, Any]) -> None:
        self.directory = place
        self.parameters = parameters
        self.input = inputs.__getitem__
        place.mkdir(parents=True)

    def report(self, **_: object) -> None:
        """Nobody looks."""

    def candidate(self, *_: object, **__: object) -> None:
        """Only the figures are wanted."""


def _models() -> dict[str, tuple[Any, Any, Any]]:
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


def main() -> None:
    """Print the table."""
    print("| data | method | size | points lost (95 %) | score before → after | one row | 64 rows |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (rows, right, model) in _models().items():
            _compress_all(Path(place) / name.replace(" ", "-"), name, rows, right, model)


def _compress_all(place: Path, name: str, rows: Any, right: Any, model: Any) -> None:  # noqa: ANN401
    known, held, of_known, of_held = train_test_split(rows, right, test_size=0.5, random_state=0)
    model.fit(known, of_known)
    stream = io.BytesIO()
    joblib.dump(model, stream)
    package = audited(place / "audit", {"model.joblib": stream.getvalue()}, name="model")
    given = place / "given"
    given.mkdir()
    (given / "package").symlink_to(package)
    picked = np.random.default_rng(0).integers(0, len(held), _ROWS)
    sample = place / "sample.npz"
    np.savez(sample, rows=held[picked].astype("f4"), target=of_held[picked])
    for method in _METHODS:
        attempt = _Attempt(place / method, {"model": given, "sample": sample}, {"method": method, "max_drop": 0.5})
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
    return f"| {name} | {method}{kept} | {result['size']['ratio']:.2f} | {lost} | {scores} | {' | '.join(quicker)} |"


if __name__ == "__main__":
    main()
