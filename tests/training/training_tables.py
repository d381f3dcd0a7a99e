"""Tables for tests of training: real sets, and customers made by a rule."""

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

CANCER = load_breast_cancer(as_frame=True).frame
DIABETES = load_diabetes(as_frame=True).frame
SMALL = {
    "forest": {"n_estimators": 20},
    "extra-trees": {"n_estimators": 20},
    "boosted": {"max_iter": 20},
    "network": {"hidden_layer_sizes": [16], "max_iter": 60},
    "tree": {"max_depth": 3},
}


def images(rows: int = 1797) -> dict[str, np.ndarray]:
    digits = load_digits()
    return {"rows": digits.data[:rows].astype("f4"), "target": digits.target[:rows]}


def rare(count: int = 30) -> pd.DataFrame:
    """All benign rows and the first malignant ones."""
    return CANCER.loc[np.r_[np.flatnonzero(CANCER.target == 1), np.flatnonzero(CANCER.target == 0)[:count]]]


def customers(rows: int = 400, *, shift: float = 0.0, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.normal(40 + shift, 10, rows).round(1),
            "city": rng.choice(["rome", "oslo", "lima"], rows),
            "note": rng.choice(["a good day", "bad rain", "the sun is out"], rows),
        }
    )
    frame["bought"] = np.where(
        ((frame.age > 40 + shift) & (frame.city != "oslo")) | (frame.note == "bad rain"), "y", "n"
    )
    frame.loc[::9, "age"] = np.nan
    return frame
