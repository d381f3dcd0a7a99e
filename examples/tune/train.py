"""A training script as `modelyard tune` runs it: parameters in, metrics out, a model beside them.

Run by hand it trains once with its defaults. Nothing of Modelyard is imported.
"""

import json
import os
from pathlib import Path

from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

EPOCHS = 30


def main() -> None:
    """Train, and say after every epoch how good it is."""
    trial = json.loads(Path(os.environ["MODELYARD_TRIAL"]).read_text()) if "MODELYARD_TRIAL" in os.environ else {}
    wish = {"width": 32, "rate": 1e-3, "penalty": 1e-4, **trial.get("parameters", {})}
    rows, digits = load_digits(return_X_y=True)
    known, judged, of_known, of_judged = train_test_split(rows / 16, digits, test_size=0.3, random_state=0)
    model = MLPClassifier((wish["width"],), learning_rate_init=wish["rate"], alpha=wish["penalty"], random_state=0)
    with Path(trial.get("metrics", "metrics.jsonl")).open("a") as metrics:
        for epoch in range(EPOCHS):
            model.partial_fit(known, of_known, classes=range(10))
            accuracy = float(model.score(judged, of_judged))
            print(json.dumps({"step": epoch, "accuracy": accuracy}), file=metrics, flush=True)
    graph = to_onnx(model, known[:1].astype("float32"), options={"zipmap": False})
    Path("model.onnx").write_bytes(graph.SerializeToString())


if __name__ == "__main__":
    main()
