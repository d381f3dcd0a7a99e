"""Both programs as they run in an audit: a file in, a package out that its runtime answers from."""

import json
import os
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pandas as pd
import pytest
from conversion import convert_file, sha256
from onnx import TensorProto, helper
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer, StandardScaler

from modelyard.domain.contract import Isolation, ModelFormat
from modelyard.domain.errors.platform import NotSupported
from modelyard.domain.errors.uploads import BundleMismatch, ConfigInvalid, PathUnsafe, TypeNotAllowed
from modelyard.domain.report import Check, Outcome, verdict_of
from modelyard.foundation.documents import read_package
from modelyard.inspection.child import (
    PROBE_ROWS,
    ChildLimits,
    ConvertJob,
    ConvertResult,
    ProbeResult,
    convert,
    prestart,
    probe,
)
from modelyard.inspection.children.mlflow_model import read_mlflow
from modelyard.integrations.runtimes.sklearn_original import SklearnOriginal
from modelyard.ports.runtime import LoadOptions


def audit(place: Path, weights: str, kind: ModelFormat, **more: Any) -> tuple[ConvertResult, ProbeResult | None]:
    out = place / "out"
    out.mkdir()
    job = ConvertJob(directory=place, out=out, name="model", digest="sha256:d", format=kind, weights=weights, **more)
    with prestart("probe") as started:
        made = convert(job, limits=ChildLimits(), on_check=lambda _: None)
        if made.package is None:
            return made, None
        return made, probe(out, limits=ChildLimits(), on_check=lambda _: None, started=started)


def test_digits_become_a_proved_classifier(tmp_path: Path) -> None:
    rows, digits = load_digits(return_X_y=True)
    joblib.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, digits), tmp_path / "digits.joblib")
    (tmp_path / "sample.json").write_text(json.dumps(rows[:3].tolist()))
    labels = tuple(f"digit {number}" for number in range(10))
    made, proved = audit(tmp_path, "digits.joblib", ModelFormat.SKLEARN, labels=labels, sample="sample.json")
    assert made.refusal is None
    assert proved is not None
    assert proved.refusal is None
    assert proved.package is not None
    assert proved.package == read_package(tmp_path / "out")
    assert proved.package.files == {"model.onnx": sha256(tmp_path / "out" / "model.onnx")}
    assert proved.package.digest == "sha256:d"
    assert proved.package.golden is not None
    assert proved.package.golden.request["inputs"][0]["data"] == rows[0].tolist()
    assert proved.package.golden.outputs[0]["data"] == [f"digit {digits[0]}"]
    assert proved.package.contract.max_batch_size == 3
    assert not (tmp_path / "out" / PROBE_ROWS).exists()
    names = [check.name for check in (*made.checks, *proved.checks)]
    assert names.count("sandbox.walls") == 2
    assert {check.outcome for check in (*made.checks, *proved.checks)} == {Outcome.PASSED}


def test_an_original_is_proved_and_answers_from_its_runtime(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.uniform(18, 80, 90), "city": rng.choice(["Oslo", "Rome"], 90)})
    steps = ColumnTransformer([("age", SplineTransformer(), ["age"]), ("city", OneHotEncoder(), ["city"])])
    model = make_pipeline(steps, LogisticRegression()).fit(table, np.where(table.age > 40, "old", "young"))
    joblib.dump(model, tmp_path / "model.joblib")
    made, proved = audit(tmp_path, "model.joblib", ModelFormat.SKLEARN)
    assert verdict_of(made.checks).value == "needs_review"
    assert proved is not None
    assert proved.package is not None
    assert proved.package.isolation is Isolation.PROCESS
    assert proved.package.golden is not None
    loaded = SklearnOriginal().load(tmp_path / "out", proved.package, LoadOptions())
    batch = {
        "age": table[["age"]].to_numpy(),
        "city": np.array([[city.encode()] for city in table.city], dtype=object),
    }
    answers = loaded.run(batch)
    assert answers["probabilities"].dtype == np.float64
    np.testing.assert_allclose(answers["probabilities"], model.predict_proba(table))
    assert [proved.package.contract.labels[index] for index in answers["class_index"]] == list(model.predict(table))
    assert loaded.memory_bytes >= 0
    loaded.close()
    loaded.close()
    with pytest.raises(NotSupported):
        loaded.run(batch)
    with pytest.raises(NotSupported):
        loaded.stream(batch)
    with pytest.raises(NotSupported):
        SklearnOriginal().load(tmp_path / "out", proved.package, LoadOptions(device="cuda"))


def test_rows_that_are_mappings_travel_as_json_texts(tmp_path: Path) -> None:
    records = [{"colour": "red", "size": 1}, {"colour": "blue", "size": 3}] * 10
    model = make_pipeline(FeatureHasher(8), Ridge()).fit(records, [0.0, 1.0] * 10)
    joblib.dump(model, tmp_path / "model.joblib")
    made = convert_file(tmp_path / "model.joblib", ModelFormat.SKLEARN, tmp_path / "out")
    loaded = SklearnOriginal().load(tmp_path / "out", made.package, LoadOptions())
    batch = {"features": np.array([[json.dumps(record).encode()] for record in records], dtype=object)}
    np.testing.assert_allclose(loaded.run(batch)["prediction"], model.predict(records))


def test_importing_the_runtime_imports_no_library() -> None:
    import subprocess
    import sys

    code = "import sys, modelyard.integrations.runtimes.sklearn_original as m; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_parents_side_imports_no_model_library() -> None:
    import subprocess
    import sys

    code = (
        "import sys, modelyard.inspection.child; print({'sklearn', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_graph_that_asks_for_too_much_memory_is_refused(tmp_path: Path) -> None:
    size = helper.make_tensor("size", TensorProto.INT64, [1], [1 << 40])
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [size],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    made, proved = audit(tmp_path, "m.onnx", ModelFormat.ONNX)
    assert made.refusal is None
    assert proved is not None
    assert proved.refusal is not None
    assert proved.refusal.code == "audit_timeout"


def test_an_mlflow_model_is_read_without_mlflow(tmp_path: Path) -> None:
    rows, digits = load_digits(return_X_y=True)
    model = RandomForestClassifier(3, random_state=0).fit(rows, digits)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    (tmp_path / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: os\n  sklearn:\n    pickled_model: model.pkl\n"
        "    serialization_format: cloudpickle\n"
    )
    made = convert_file(tmp_path / "MLmodel", ModelFormat.MLFLOW, tmp_path / "out")
    assert made.package.runtime == "onnxruntime"
    assert made.package.format is ModelFormat.SKLEARN


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("flavors: {sklearn: {pickled_model: ../../secret}}", PathUnsafe),
        ("flavors: {sklearn: {pickled_model: gone.pkl}}", BundleMismatch),
        ("flavors: {pytorch: {model_data: data}}", TypeNotAllowed),
        ("flavors: 3", ConfigInvalid),
        ("- 1", ConfigInvalid),
        ("!!python/object/apply:os.system ['true']", ConfigInvalid),
        ("\x00", ConfigInvalid),
    ],
)
def test_an_mlmodel_that_lies_is_refused(text: str, error: type[Exception], tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(error):
        read_mlflow(tmp_path)


def test_declared_text_columns_of_a_signature_are_believed(tmp_path: Path) -> None:
    shutil.copy(__file__, tmp_path / "model.pkl")
    signature = json.dumps([{"name": "city", "type": "string"}, {"name": "age", "type": "double"}])
    (tmp_path / "MLmodel").write_text(
        json.dumps({"flavors": {"sklearn": {"pickled_model": "model.pkl"}}, "signature": {"inputs": signature}})
    )
    assert {name: kind.value for name, kind in read_mlflow(tmp_path).columns.items()} == {
        "city": "BYTES",
        "age": "FP64",
    }


def test_a_function_step_says_so_in_its_report(tmp_path: Path) -> None:
    rows, digits = load_digits(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make_pipeline(FunctionTransformer(np.log1p), LogisticRegression(max_iter=20)).fit(rows, digits)
    joblib.dump(model, tmp_path / "model.joblib")
    checks: list[Check] = []
    out = tmp_path / "out"
    out.mkdir()
    job = ConvertJob(
        directory=tmp_path, out=out, name="m", digest="d", format=ModelFormat.SKLEARN, weights="model.joblib"
    )
    with prestart("convert", format=ModelFormat.SKLEARN) as started:
        made = convert(job, limits=ChildLimits(), on_check=checks.append, started=started)
        pid = started.pid
    assert made.package is not None
    assert "FunctionTransformer" in next(item for item in checks if item.name == "convert.equal_answers").summary
    assert made.package.files == {"model.joblib": sha256(tmp_path / "model.joblib")}
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


def test_memory_follows_the_models_size_up_to_a_ceiling() -> None:
    limits = ChildLimits()
    assert limits.for_size(1000, ceiling=16 << 30).memory_bytes == limits.memory_bytes
    assert limits.for_size(1 << 30, ceiling=16 << 30).memory_bytes == 7 << 30
    assert limits.for_size(100 << 30, ceiling=16 << 30).memory_bytes == 16 << 30
