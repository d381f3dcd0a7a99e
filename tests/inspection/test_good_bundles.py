"""Whole bundles, as people have them, through the whole inspection."""

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pytest
import xgboost
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from modelyard.domain.digests import bundle_digest
from modelyard.domain.report import Outcome, Verdict
from modelyard.foundation.documents import read_package
from modelyard.inspection import Inspection

GOOD = "{k: v for k, v in bundle().items()}"


def packed(files: dict[str, bytes], *, top: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        if top:
            archive.mkdir(top)
        for name, data in files.items():
            archive.writestr(f"{top}{name}", data)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], *, mode: str, top: str = "", form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(top + name)
            info.size, info.mtime = len(data), 1.5
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("top", ["", "digits/"])
def test_an_archive_is_the_same_bundle_as_its_files(
    top: str, corpus: Callable[[str], Any], inspect: Callable[..., Inspection]
) -> None:
    files = corpus(GOOD)
    plain = inspect(files)
    zipped = inspect({"b.zip": packed(files, top=top)})
    assert zipped.report.verdict is Verdict.APPROVED, zipped.report.refusal
    assert zipped.digest == plain.digest == bundle_digest(plain.files)
    assert set(zipped.files) == set(files)


@pytest.mark.parametrize(("name", "mode"), [("b.tar", "w"), ("b.tar.gz", "w:gz"), ("b.tgz", "w:gz")])
def test_tar_archives_come_in_too(
    name: str, mode: str, corpus: Callable[[str], Any], inspect: Callable[..., Inspection]
) -> None:
    done = inspect({name: tarred(corpus(GOOD), mode=mode, top="m/", form=tarfile.USTAR_FORMAT)})
    assert done.report.verdict is Verdict.APPROVED, done.report.refusal


def test_yaml_configuration_says_the_same_as_json(
    corpus: Callable[[str], Any], inspect: Callable[..., Inspection]
) -> None:
    files = corpus(GOOD)
    del files["config.json"]
    files["model.yaml"] = b"""
format: safetensors
task: classification
num_labels: 2
architecture:
  - linear: {weight: w, bias: b}
input: {name: x, datatype: FP32, shape: [-1, 3]}
output: {name: y, datatype: FP32, shape: [-1, 2]}
"""
    done = inspect(files)
    assert done.report.verdict is Verdict.APPROVED, done.report.refusal


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("labels.txt", b"cat\ndog\n"),
        ("labels.csv", b"index,label\n1,dog\n0,cat\n"),
        ("labels.json", b'["cat","dog"]'),
    ],
)
def test_labels_come_in_three_forms_and_apart_from_the_bundle(
    name: str, data: bytes, corpus: Callable[[str], Any], inspect: Callable[..., Inspection], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    done = inspect(corpus(GOOD), labels=tmp_path / name)
    assert done.report.verdict is Verdict.APPROVED, done.report.refusal
    package = json.loads((done.package_dir / "package.json").read_bytes())  # type: ignore[operator]
    assert package["contract"]["labels"] == ["cat", "dog"]
    assert [file for file in done.files if file.startswith("labels")] == [name]


def test_a_bare_joblib_file_becomes_a_package(inspect: Callable[..., Inspection]) -> None:
    buffer = io.BytesIO()
    joblib.dump(LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True)), buffer)
    done = inspect({"iris.joblib": buffer.getvalue(), "README.md": b"# Iris"})
    assert done.report.refusal is None, done.report.refusal
    assert done.package_dir is not None
    names = [check.name for check in done.report.checks]
    assert names[:4] == ["received.files", "names.plain", "types.content", "bundle.composition"]
    structure = next(check for check in done.report.checks if check.name == "weights.structure")
    assert structure.evidence["type"] == "sklearn.linear_model._logistic.LogisticRegression"


def test_a_boosted_classifier_without_label_names_answers_with_positions(
    inspect: Callable[..., Inspection], tmp_path: Path
) -> None:
    rows, classes = load_iris(return_X_y=True)
    model = xgboost.XGBClassifier(n_estimators=3, max_depth=2).fit(rows, classes)
    model.save_model(tmp_path / "iris.ubj")
    done = inspect({"iris.ubj": (tmp_path / "iris.ubj").read_bytes()})
    assert done.package_dir is not None, done.report.refusal
    contract = read_package(done.package_dir).contract
    assert contract.labels == ("0", "1", "2")
    assert contract.outputs[0].name == "label"
    warned = [check.name for check in done.report.checks if check.outcome is Outcome.WARNING]
    assert "model.contract" in warned


def test_an_mlflow_directory_is_read_without_mlflow(inspect: Callable[..., Inspection]) -> None:
    buffer = io.BytesIO()
    joblib.dump(LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True)), buffer)
    mlmodel = b"""
artifact_path: model
flavors:
  python_function:
    env: {conda: conda.yaml}
    loader_module: mlflow.sklearn
    model_path: model.pkl
  sklearn:
    pickled_model: model.pkl
    serialization_format: cloudpickle
signature:
  inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 4]}}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]'
utc_time_created: '2026-01-01 00:00:00.000000'
"""
    files = {"MLmodel": mlmodel, "model.pkl": buffer.getvalue(), "conda.yaml": b"name: x\n", "requirements.txt": b"x\n"}
    done = inspect(files)
    assert done.report.refusal is None, done.report.refusal
    assert done.package_dir is not None
    wrong = inspect({**files, "MLmodel": b"flavors: {pytorch: {}}"})
    assert wrong.report.refusal is not None
    assert wrong.report.refusal.code == "type_not_allowed"


def test_every_check_has_a_name_a_line_and_a_duration(
    corpus: Callable[[str], Any], inspect: Callable[..., Inspection]
) -> None:
    done = inspect(corpus("bundle(files={'sample.json': [[1, 2, 3]], 'README.md': b'# card', 'profile.json': {}})"))
    assert done.report.verdict is Verdict.APPROVED, done.report.refusal
    assert all(check.name and check.summary for check in done.report.checks)
    assert all(check.duration_s >= 0 for check in done.report.checks)
    assert not any(check.outcome is Outcome.FAILED for check in done.report.checks)
    json.dumps([dict(check.evidence) for check in done.report.checks])


def test_a_right_manifest_passes(corpus: Callable[[str], Any], inspect: Callable[..., Inspection]) -> None:
    done = inspect(corpus("bundle(files={'MANIFEST.json': {'weights.safetensors': hashlib.sha256(W).hexdigest()}})"))
    assert done.report.verdict is Verdict.APPROVED, done.report.refusal


def test_reading_large_weights_leaves_memory_flat(tmp_path: Path) -> None:
    import resource

    from modelyard.inspection.octets import mapped
    from modelyard.inspection.policy import InspectionPolicy
    from modelyard.inspection.weights.safetensors import read_safetensors
    from modelyard.inspection.weights.values import require_finite

    size = 256 * 1024 * 1024  # sparse on disk
    header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    path = tmp_path / "big.safetensors"
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with mapped(path) as data:
        tensors = read_safetensors(data, InspectionPolicy())
    assert require_finite(path, tensors.values()) == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
