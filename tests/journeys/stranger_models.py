"""Models as strangers save them, made by the real libraries, each with held-out rows and the library's own answers."""

import json
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import onnx
import pandas as pd
import skops.io
import xgboost
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler

NAMES = ("setosa", "versicolor", "virginica")


@dataclass
class Stranger:
    """A saved model: what `serve` is given, what it is asked, and what the library that made it answers."""

    path: Path
    inputs: list[dict[str, Any]]
    labels: list[str] | None = None
    """Right labels of the rows, as text; None for a regressor."""
    numbers: np.ndarray | None = None
    """Right probabilities or values, one row a row."""
    options: tuple[str, ...] = ()
    is_original: bool = False
    """Not convertible: needs `--trust`, answers through a worker of its own."""


def tensor(rows: np.ndarray, *, name: str = "input", datatype: str = "FP32") -> dict[str, Any]:
    """One V2 input."""
    return {"name": name, "shape": list(rows.shape), "datatype": datatype, "data": rows.ravel().tolist()}


def columns(frame: pd.DataFrame, datatypes: dict[str, str]) -> list[dict[str, Any]]:
    """One V2 input a column."""
    return [
        {"name": name, "shape": [len(frame), 1], "datatype": datatypes[name], "data": frame[name].tolist()}
        for name in frame.columns
    ]


def iris() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training rows and labels, held-out rows and labels."""
    x, y = load_iris(return_X_y=True)
    parts = train_test_split(x.astype("f4"), y, test_size=20, random_state=1)
    return parts[0], parts[2], parts[1], parts[3]


def named_iris() -> tuple[Any, np.ndarray]:
    """A classifier whose classes are words, and held-out rows."""
    x, y, held, _ = iris()
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x, np.array(NAMES)[y]), held


def _classified(path: Path, model: Any, held: np.ndarray, **more: Any) -> Stranger:
    labels = [str(label) for label in model.predict(held)]
    return Stranger(path, [tensor(held)], labels, model.predict_proba(held), **more)


def _named(place: Path) -> tuple[str, ...]:
    """The option that gives the names of the classes."""
    names = place / "names.txt"
    names.write_text("\n".join(NAMES) + "\n")
    return ("--labels", str(names))


def joblib_classifier(place: Path) -> Stranger:
    model, held = named_iris()
    joblib.dump(model, place / "flowers.joblib")
    return _classified(place / "flowers.joblib", model, held)


def pickled_forest(place: Path) -> Stranger:
    x, y, held, _ = iris()
    model = RandomForestClassifier(20, random_state=0).fit(x, y)
    (place / "forest.pkl").write_bytes(pickle.dumps(model))
    labels = [NAMES[index] for index in model.predict(held)]
    return Stranger(place / "forest.pkl", [tensor(held)], labels, model.predict_proba(held), _named(place))
    (directory / "requirements.txt").write_text("mlflow==2.14.1\nscikit-learn==1.5.0\n")
    (directory / "conda.yaml").write_text(
        "channels:\n- conda-forge\ndependencies:\n- python=3.11.7\nname: mlflow-env\n"
    )
    (directory / "python_env.yaml").write_text("python: 3.11.7\ndependencies:\n- -r requirements.txt\n")
    return _classified(directory, model, held)


def original_pipeline(place: Path) -> Stranger:
    """Does not convert: splines."""
    x, y, held, _ = iris()
    model = make_pipeline(SplineTransformer(), LogisticRegression(max_iter=500)).fit(x, np.array(NAMES)[y])
    joblib.dump(model, place / "splines.joblib")
    found = _classified(place / "splines.joblib", model, held, options=("--trust",), is_original=True)
    found.inputs[0]["datatype"] = "FP64"
    return found


ALL: tuple[Callable[[Path], Stranger], ...] = (
    joblib_classifier,
    pickled_forest,
    skops_classifier,
    frame_pipeline,
    regressor,
    onnx_file,
    xgboost_ubj,
    xgboost_json,
    lightgbm_text,
    bare_safetensors,
    bundle_directory,
    zip_archive,
    tar_archive,
    mlflow_directory,
    original_pipeline,
)
"""One builder a format that `serve` promises."""


def make(builder: Callable[[Path], Stranger], place: Path) -> Stranger:
    """Build one; what the libraries say while they train is not the test's matter."""
    place.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return builder(place)
