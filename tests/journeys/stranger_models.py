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


def skops_classifier(place: Path) -> Stranger:
    model, held = named_iris()
    skops.io.dump(model, place / "flowers.skops")
    return _classified(place / "flowers.skops", model, held)


def frame_pipeline(place: Path) -> Stranger:
    generator = np.random.default_rng(3)
    rows = 400
    frame = pd.DataFrame(
        {
            "city": generator.choice(["Bern", "Oslo", "Lima"], rows),
            "age": generator.integers(18, 90, rows).astype("f8"),
            "income": generator.normal(50, 20, rows).round(2),
        }
    )
    target = np.where((frame["city"] == "Oslo") | (frame["income"] > 60), "yes", "no")
    prepare = ColumnTransformer(
        [
            ("place", OneHotEncoder(handle_unknown="error"), ["city"]),
            ("number", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
        ]
    )
    model = make_pipeline(prepare, LogisticRegression()).fit(frame[:350], target[:350])
    joblib.dump(model, place / "offer.joblib")
    held = frame[350:]
    answers = [str(label) for label in model.predict(held)]
    inputs = columns(held, {"city": "BYTES", "age": "FP32", "income": "FP32"})
    return Stranger(place / "offer.joblib", inputs, answers, model.predict_proba(held))


def regressor(place: Path) -> Stranger:
    x, y = load_diabetes(return_X_y=True)
    x = x.astype("f4")
    model = GradientBoostingRegressor(random_state=0, n_estimators=30).fit(x[:-20], y[:-20])
    joblib.dump(model, place / "progress.joblib")
    return Stranger(place / "progress.joblib", [tensor(x[-20:])], None, model.predict(x[-20:]).reshape(-1, 1))


def onnx_file(place: Path) -> Stranger:
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype("f4")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, w]) for n, w in (("x", 4), ("y", 3))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, str(place / "g.onnx"))
    rows = np.random.default_rng(1).normal(size=(20, 4)).astype("f4")
    return Stranger(place / "g.onnx", [tensor(rows, name="x")], None, np.maximum(rows @ weights, 0))


def _boosted(place: Path, ending: str) -> Stranger:
    x, y, held, _ = iris()
    model = xgboost.XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1).fit(x, y)
    path = place / f"boosted.{ending}"
    model.save_model(path)
    labels = [NAMES[index] for index in model.predict(held)]
    return Stranger(path, [tensor(held, name="x")], labels, model.predict_proba(held), _named(place))


def xgboost_ubj(place: Path) -> Stranger:
    return _boosted(place, "ubj")


def xgboost_json(place: Path) -> Stranger:
    return _boosted(place, "json")


def lightgbm_text(place: Path) -> Stranger:
    x, y, held, _ = iris()
    model = lightgbm.LGBMClassifier(n_estimators=8, n_jobs=1, verbose=-1).fit(x, y)
    model.booster_.save_model(place / "light.txt")
    probabilities = model.booster_.predict(held)
    labels = [NAMES[index] for index in probabilities.argmax(axis=1)]
    inputs = [tensor(held, name="x", datatype="FP64")]
    return Stranger(place / "light.txt", inputs, labels, probabilities, _named(place))


def bare_safetensors(place: Path) -> Stranger:
    generator = np.random.default_rng(5)
    w, b = generator.normal(size=(3, 4)).astype("<f4"), generator.normal(size=3).astype("<f4")
    head = json.dumps(
        {
            "w": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]},
            "b": {"dtype": "F32", "shape": [3], "data_offsets": [48, 60]},
        }
    ).encode()
    bundle = place / "bare"
    bundle.mkdir()
    data = struct.pack("<Q", len(head)) + head + w.tobytes() + b.tobytes()
    (bundle / "weights.safetensors").write_bytes(data)
    (bundle / "config.json").write_text(
        json.dumps(
            {
                "format": "safetensors",
                "task": "classification",
                "num_labels": 3,
                "architecture": [{"linear": {"weight": "w", "bias": "b"}}, {"softmax": {}}],
                "input": {"name": "input", "datatype": "FP32", "shape": [-1, 4]},
                "output": {"name": "chances", "datatype": "FP32", "shape": [-1, 3]},
            }
        )
    )
    (bundle / "labels.json").write_text(json.dumps(dict(zip("012", NAMES, strict=True))))
    rows = generator.normal(size=(20, 4)).astype("f4")
    scores = np.exp(rows @ w.T + b)
    chances = scores / scores.sum(axis=1, keepdims=True)
    return Stranger(bundle, [tensor(rows)], [NAMES[index] for index in chances.argmax(axis=1)], chances)


def bundle_directory(place: Path) -> Stranger:
    x, y, held, _ = iris()
    model = LogisticRegression(max_iter=500).fit(x, y)
    bundle = place / "iris"
    bundle.mkdir()
    joblib.dump(model, bundle / "model.joblib")
    (bundle / "labels.csv").write_text("index,label\n" + "".join(f"{i},{n}\n" for i, n in enumerate(NAMES)))
    (bundle / "README.md").write_text("# Iris\n\nSee https://example.org/iris\n")
    np.savetxt(bundle / "sample.csv", x[:5], delimiter=",")
    labels = [NAMES[index] for index in model.predict(held)]
    return Stranger(bundle, [tensor(held)], labels, model.predict_proba(held))


def _archived(place: Path, pack: Callable[[Path, Path], None], ending: str) -> Stranger:
    found = bundle_directory(place)
    archive = place / f"iris{ending}"
    pack(found.path, archive)
    return Stranger(archive, found.inputs, found.labels, found.numbers)


def zip_archive(place: Path) -> Stranger:
    def pack(bundle: Path, archive: Path) -> None:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            for file in sorted(bundle.iterdir()):
                out.write(file, f"iris/{file.name}")

    return _archived(place, pack, ".zip")


def tar_archive(place: Path) -> Stranger:
    def pack(bundle: Path, archive: Path) -> None:
        with tarfile.open(archive, "w:gz") as out:
            for file in sorted(bundle.iterdir()):
                out.add(file, file.name)

    return _archived(place, pack, ".tar.gz")


def mlflow_directory(place: Path) -> Stranger:
    model, held = named_iris()
    directory = place / "mlflow_model"
    directory.mkdir()
    (directory / "model.pkl").write_bytes(pickle.dumps(model))
    signature = json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}])
    (directory / "MLmodel").write_text(
        "artifact_path: model\n"
        "flavors:\n"
        "  python_function:\n"
        "    env:\n"
        "      conda: conda.yaml\n"
        "      virtualenv: python_env.yaml\n"
        "    loader_module: mlflow.sklearn\n"
        "    model_path: model.pkl\n"
        "    predict_fn: predict\n"
        "    python_version: 3.11.7\n"
        "  sklearn:\n"
        "    code: null\n"
        "    pickled_model: model.pkl\n"
        "    serialization_format: pickle\n"
        "    sklearn_version: 1.5.0\n"
        "mlflow_version: 2.14.1\n"
        "model_size_bytes: 1000\n"
        "model_uuid: 7f5a4a3bd14b4b3aa0cbdb1a4b0ac0d1\n"
        "run_id: 0123456789abcdef0123456789abcdef\n"
        "signature:\n"
        f"  inputs: '{signature}'\n"
        "  outputs: null\n"
        "  params: null\n"
        "utc_time_created: '2024-06-20 10:00:00.000000'\n"
    )
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
