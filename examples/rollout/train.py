"""Train three versions of a classifier of handwritten digits: two good ones, and one that is quietly wrong.

The wrong one was trained on negatives, by a change in how images are read that nobody noticed. It loads, it is as fast
and as accurate on what it was trained with, it raises nothing, and nearly all it says is wrong.
"""

from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


def train(directory: Path) -> None:
    """Write v1.joblib to v3.joblib, and held-out.csv: images that none of them knows, each before its digit."""
    images, digits = load_digits(return_X_y=True)
    known, held_out, known_digits, held_out_digits = train_test_split(
        images, digits, test_size=0.25, random_state=7, stratify=digits
    )
    for number, (strength, read) in enumerate([(1.0, _as_it_is), (0.5, _as_it_is), (1.0, _negative)], start=1):
        model = _fit(read(known), known_digits, strength=strength)
        joblib.dump(model, directory / f"v{number}.joblib")
        print(f"v{number}.joblib  accuracy where it was trained {model.score(read(held_out), held_out_digits):.3f}")
    rows = np.column_stack([held_out, held_out_digits])
    np.savetxt(directory / "held-out.csv", rows, delimiter=",", fmt="%g")


def _as_it_is(images: np.ndarray) -> np.ndarray:
    return images


def _negative(images: np.ndarray) -> np.ndarray:
    return 16 - images


def _fit(images: np.ndarray, digits: np.ndarray, *, strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500)).fit(images, digits)


if __name__ == "__main__":
    train(Path.cwd())
