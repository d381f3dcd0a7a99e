"""python -m benchmarks.networks: what a network that has learned before brings, where rows are few.

Two networks: one that knows the digits 0 to 4 is to tell 5 to 9 apart; one that knows all digits is to read them moved
by a pixel and with noise. Both learn from a few rows of each, and are judged on all others. From scratch means the same
network with its weights drawn anew. Means and spreads of five draws. Needs modelyard[train].
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from modelyard.foundation.documents import read_package
from modelyard.integrations.networks.graph import Network
from modelyard.integrations.networks.heads import with_new_head
from modelyard.integrations.networks.teaching import Lessons, layer_rates, teach
from modelyard.testing.audited import given_model

_WAYS: dict[str, dict[str, Any]] = {
    "from scratch": {},
    "transferred, all layers": {},
    "transferred, each layer before 0.3 times as fast": {"decay": 0.3},
    "transferred, the first layer frozen": {"frozen": 1},
    "transferred, all but the last frozen": {"frozen": 2},
}
_OUTPUT = "probabilities"
Array = np.ndarray[Any, Any]


def main() -> None:
    """Print the tables."""
    rows, right = load_digits(return_X_y=True)
    rows, few = (rows / 16).astype("f4"), right < 5
    moved = np.roll(rows.reshape(-1, 8, 8), 1, axis=2) + np.random.default_rng(0).normal(0, 0.1, (len(rows), 8, 8))
    tasks = {
        "other digits": (rows[few], right[few], rows[~few], right[~few] - 5),
        "the same digits, moved and noisy": (
            rows[::2],
            right[::2],
            moved.reshape(-1, 64)[1::2].astype("f4"),
            right[1::2],
        ),
    }
    print("| learned | rows of a digit | " + " | ".join(_WAYS) + " |\n|---|---|" + "---|" * len(_WAYS))
    for name, (before, of_before, after, of_after) in tasks.items():
        with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = MLPClassifier((64, 32), max_iter=100, random_state=0).fit(before, of_before)
            given = given_model(Path(place) / "given", network)
            copy = Path(place) / "network.onnx"
            copy.write_bytes((given / "package" / read_package(given / "package").entry).read_bytes())
            for count in (5, 20, 60):
                found = [
                    _tried(copy, after, of_after, count, way, is_new=bool(name == "other digits")) for way in _WAYS
                ]
                values = " | ".join(f"{np.mean(each):.3f} ± {np.std(each):.3f}" for each in found)
                print(f"| {name} | {count} | {values} |", flush=True)


def _tried(path: Path, rows: Array, right: Array, count: int, way: str, *, is_new: bool) -> list[float]:
    reached, classes = [], int(right.max()) + 1
    for seed in range(5):
        rng = np.random.default_rng(seed)
        known = np.concatenate([rng.permutation(np.flatnonzero(right == digit))[:count] for digit in range(classes)])
        network = Network(with_new_head(path, _OUTPUT, classes, seed) if is_new else path, _OUTPUT)
        if way == "from scratch":
            for name in network.trainable():
                old = network.weights[name]
                network.weights[name] = (rng.normal(0, len(old) ** -0.5, old.shape) * (len(old) > 1)).astype("f4")
        lessons = Lessons(rates=layer_rates(network, 3e-3, **_WAYS[way]), epochs=200, batch=16, patience=30, seed=seed)
        taught = teach(network, {"input": rows[known]}, np.eye(classes)[right[known]], lessons)
        held = np.setdiff1d(np.arange(len(right)), known)
        import torch

        weights = {name: torch.from_numpy(each) for name, each in {**network.weights, **taught.weights}.items()}
        answers = network.run({"input": torch.from_numpy(rows[held])}, weights).numpy()
        reached.append(float((answers.argmax(axis=1) == right[held]).mean()))
    return reached


if __name__ == "__main__":
    main()
