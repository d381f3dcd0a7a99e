"""What `modelyard pack` writes: a flat archive whose graph answers as the model does, or the original with its lock."""

import io
import json
import sys
import zipfile

import joblib
import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from modelyard.client.pack import pack
from modelyard.domain.errors.platform import InvalidRequest

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 3))
Y = np.where(X[:, 0] + X[:, 1] > 0, "yes", "no")


def opened(result):
    with zipfile.ZipFile(result.path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def saved(tmp_path, model):
    joblib.dump(model, tmp_path / "My Model.joblib")
    return tmp_path / "My Model.joblib"


def test_a_classifier_becomes_onnx_with_labels_sample_and_golden_answers(tmp_path):
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    np.save(tmp_path / "rows.npy", X)
    result = pack(saved(tmp_path, model), out=tmp_path / "o.zip", sample=tmp_path / "rows.npy")
    files = opened(result)
    assert result.converted
    assert result.name == "my-model"
    assert set(files) == {"README.md", "config.json", "golden.json", "labels.json", "model.onnx", "sample.npy"}
    assert json.loads(files["labels.json"]) == {"0": "no", "1": "yes"}
    assert json.loads(files["config.json"])["task"] == "classification"
    session = ort.InferenceSession(files["model.onnx"])
    golden = json.loads(files["golden.json"])
    asked = golden["request"]["inputs"][0]
    rows = np.array(asked["data"], np.float32).reshape(asked["shape"])
    label, probability = session.run(None, {asked["name"]: rows})
    assert label.tolist() == model.predict(rows).tolist() == golden["outputs"][0]["data"]
    np.testing.assert_allclose(np.ravel(golden["outputs"][1]["data"]), probability.ravel(), rtol=1e-5)
    assert (np.load(io.BytesIO(files["sample.npy"])) == X).all()


def test_a_pipeline_over_columns_keeps_their_names(tmp_path):
    frame = pd.DataFrame({"age": X[:, 0], "city": RNG.choice(["Rome", "Oslo"], 200)})
    parts = make_column_transformer((StandardScaler(), ["age"]), (OneHotEncoder(), ["city"]))
    model = make_pipeline(parts, LogisticRegression()).fit(frame, Y)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    result = pack(saved(tmp_path, model), out=tmp_path / "o.zip", sample=tmp_path / "rows.csv")
    assert result.converted, result.notes
    golden = json.loads(opened(result)["golden.json"])
    assert [one["name"] for one in golden["request"]["inputs"]] == ["age", "city"]
    assert golden["outputs"][0]["data"] == model.predict(frame[:5]).tolist()


def test_what_does_not_convert_is_packed_as_it_is_with_a_lock_file(tmp_path):
    model = make_pipeline(FunctionTransformer(np.sin), LinearRegression()).fit(X, X[:, 0])
    result = pack(saved(tmp_path, model), out=tmp_path / "o.zip")
    files = opened(result)
    assert not result.converted
    assert "review" in " ".join(result.notes)
    assert np.allclose(joblib.load(io.BytesIO(files["model.joblib"])).predict(X), model.predict(X))
    assert b"scikit-learn==" in files["requirements.lock"]


def test_an_object_of_a_module_is_packed(tmp_path, monkeypatch):
    saved(tmp_path, LinearRegression().fit(X, X[:, 0]))
    source = "import joblib, pathlib\nbest = joblib.load(pathlib.Path(__file__).parent / 'My Model.joblib')\n"
    (tmp_path / "train_for_pack.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    result = pack("train_for_pack:best", out=tmp_path / "o.zip", name="price")
    sys.modules.pop("train_for_pack", None)
    assert result.converted
    assert json.loads(opened(result)["config.json"]) == {"name": "price", "format": "onnx", "task": "regression"}


def test_packing_twice_gives_the_same_bytes_where_the_graph_is_data(tmp_path):
    (tmp_path / "m.ubj").write_bytes(b"{}")
    first = pack(tmp_path / "m.ubj", out=tmp_path / "a.zip").path.read_bytes()
    assert pack(tmp_path / "m.ubj", out=tmp_path / "b.zip").path.read_bytes() == first


def test_nothing_is_overwritten(tmp_path):
    path = saved(tmp_path, LinearRegression().fit(X, X[:, 0]))
    (tmp_path / "o.zip").write_bytes(b"mine")
    with pytest.raises(InvalidRequest, match="exists"):
        pack(path, out=tmp_path / "o.zip")
    assert (tmp_path / "o.zip").read_bytes() == b"mine"


@pytest.mark.parametrize("source", ["nothing.joblib", "no_such_module:x", "json:no_such_name", "json:loads", "x.exe"])
def test_what_cannot_be_packed_is_named(tmp_path, source):
    (tmp_path / "x.exe").write_bytes(b"MZ")
    with pytest.raises(InvalidRequest):
        pack(tmp_path / source if "." in source else source, out=tmp_path / "o.zip")
    assert not (tmp_path / "o.zip").exists()


def test_a_file_that_is_no_pickle_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "m.pkl").write_bytes(b"junk")
    with pytest.raises(InvalidRequest, match="cannot be loaded"):
        pack(tmp_path / "m.pkl", out=tmp_path / "o.zip")


def test_boosting_without_equal_answers_is_never_called_converted(tmp_path):
    model = HistGradientBoostingClassifier(max_iter=5).fit(X, Y)
    result = pack(saved(tmp_path, model), out=tmp_path / "o.zip")
    files = opened(result)
    if result.converted:
        session = ort.InferenceSession(files["model.onnx"])
        rows = np.load(io.BytesIO(files["sample.npy"]))
        assert (session.run(None, {session.get_inputs()[0].name: rows})[0] == model.predict(rows)).mean() > 0.999
    else:
        assert "model.joblib" in files
