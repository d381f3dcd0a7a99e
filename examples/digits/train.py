"""Train a classifier of handwritten digits and save it as anybody would: joblib, a label map, a sample of the data."""

import json
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

LABELS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def train(directory: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """Write model.joblib, labels.json and sample.csv; return held-out images, digits, accuracy."""
    directory.mkdir(parents=True, exist_ok=True)
    images, digits = load_digits(return_X_y=True)
    known, held_out, known_digits, held_out_digits = train_test_split(
        images, digits, test_size=0.25, random_state=7, stratify=digits
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(known, known_digits)
    joblib.dump(model, directory / "model.joblib")
    (directory / "labels.json").write_text(json.dumps(dict(enumerate(LABELS))))
    np.savetxt(directory / "sample.csv", known[:50], delimiter=",", fmt="%g")
    return held_out, held_out_digits, float(model.score(held_out, held_out_digits))


if __name__ == "__main__":
    place = Path(__file__).parent / "model"
    print(f"wrote {place}, accuracy on held-out digits {train(place)[2]:.3f}")
