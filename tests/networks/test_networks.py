"""Networks in ONNX taught with PyTorch: the same answers as the runtime, fine-tuned, transferred, pruned."""

import json
import warnings
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from modelyard.domain.errors.platform import InvalidRequest, NotSupported
from modelyard.domain.job_kinds import check_job, find_kind
from modelyard.foundation.documents import read_package
from modelyard.integrations.compressors.compress import Compress
from modelyard.integrations.networks.fine_tune import FineTune
from modelyard.integrations.networks.graph import Network, as_tensors
from modelyard.integrations.networks.pruning import smallest, without_units
from modelyard.testing.attempts import RecordedAttempt
from modelyard.testing.audited import audited, given_model

torch = pytest.importorskip("torch", reason="PyTorch is not in this environment: test_in_torch_environment runs these")

IMAGES, DIGITS = load_digits(return_X_y=True)
IMAGES = IMAGES / 16
CELLS, LUMPS = load_breast_cancer(return_X_y=True)
PATIENTS, PROGRESS = load_diabetes(return_X_y=True)
FEW = DIGITS < 5


def trained(model: Any, rows: Any, right: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(rows, right)


@cache
def model(name: str) -> tuple[Any, Any, Any]:
    """A fitted network, and rows that it has not seen."""
    made = {
        "digits": (MLPClassifier((200, 100), max_iter=15, random_state=0), IMAGES, DIGITS),
        "few digits": (MLPClassifier((64, 32), max_iter=60, random_state=0), IMAGES[FEW], DIGITS[FEW]),
        "lumps": (
            make_pipeline(StandardScaler(), MLPClassifier((32,), activation="tanh", max_iter=30, random_state=0)),
            CELLS,
            LUMPS,
        ),
        "patients": (MLPRegressor(hidden_layer_sizes=(64,), max_iter=100, random_state=0), PATIENTS, PROGRESS),
        "svm": (LinearSVC(), IMAGES, DIGITS),
    }
    network, rows, right = made[name]
    return trained(network, rows[::2], right[::2]), rows[1::2], right[1::2]


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def go(
        kind: str, of: str, *, rows: Any = None, right: Any = None, known: bool = True, **wish: Any
    ) -> SimpleNamespace:
        network, own_rows, own_right = model(of)
        given = given_model(tmp_path / "given", network)
        rows, right = (own_rows, own_right) if rows is None else (rows, right)
        np.savez(tmp_path / "rows.npz", rows=rows.astype("f4"), **({"right": right} if known else {}))
        if known:
            wish["target"] = "right"
        inputs = {"model": given, "sample": tmp_path / "rows.npz"}
        attempt = RecordedAttempt(tmp_path / "attempt", check_job(find_kind(kind), wish, inputs), inputs, kind=kind)
        result = dict((FineTune() if kind == "fine-tune" else Compress()).run(attempt))
        json.dumps(result)
        [offered] = attempt.offered
        files = {"model.onnx": offered.data, "config.json": json.dumps(offered.config or {}).encode()}
        if offered.labels:
            files["labels.json"] = json.dumps(offered.labels).encode()
        package = audited(tmp_path / "again", files)
        contract = read_package(package).contract
        return SimpleNamespace(result=result, attempt=attempt, given=given, package=package, contract=contract)

    return go


def answers(package: Path, rows: Any) -> Any:
    session = onnxruntime.InferenceSession(str(package / read_package(package).entry))
    return session.run(None, {session.get_inputs()[0].name: rows.astype("f4")})[0]


@pytest.mark.parametrize("name", ["digits", "lumps", "patients"])
def test_a_network_answers_in_pytorch_as_in_the_runtime(tmp_path, name) -> None:
    network, rows, _ = model(name)
    given = given_model(tmp_path, network)
    package = read_package(given / "package")
    output = package.contract.outputs[-1].name
    path = given / "package" / package.entry
    here = Network(path, output)
    name_of_input = package.contract.inputs[0].name
    found = here.run(as_tensors({name_of_input: rows.astype("f4")}), {}).numpy()
    there = onnxruntime.InferenceSession(str(path)).run([output], {name_of_input: rows.astype("f4")})[0]
    assert np.allclose(found.reshape(there.shape), there, atol=1e-4, rtol=1e-4)


def test_convolutions_and_what_stands_between_them_are_known(tmp_path) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(4, 1, 3, 3)),
        **{name: rng.uniform(1, 2, 4) for name in ("b", "scale", "shift", "mean", "spread")},
        "out": rng.normal(size=(3, 16)),
        "bias": rng.normal(size=3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "spread"], ["n"]),
        helper.make_node("LeakyRelu", ["n"], ["r"], alpha=0.1),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("AveragePool", ["p"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["a"], ["f"]),
        helper.make_node("Gemm", ["f", "out", "bias"], ["y"], transB=1),
    ]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])],
            [numpy_helper.from_array(value.astype("f4"), name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(made, tmp_path / "m.onnx")
    rows = rng.normal(size=(5, 1, 8, 8)).astype("f4")
    network = Network(tmp_path / "m.onnx", "y")
    found = network.run(as_tensors({"x": rows}), {}).numpy()
    there = onnxruntime.InferenceSession(str(tmp_path / "m.onnx")).run(None, {"x": rows})[0]
    assert np.allclose(found, there, atol=1e-4)
    assert [layer.weight for layer in network.layers] == ["w", "out"]


@pytest.mark.parametrize("name", ["few digits", "lumps"])
def test_a_network_goes_on_learning_and_gets_better(run, name) -> None:
    done = run("fine-tune", name)
    assert done.result["after"] >= done.result["before"]
    assert done.result["losses"][-1] < done.result["losses"][0]
    assert done.contract.labels == read_package(done.given / "package").contract.labels


def test_numbers_are_learned_too(run) -> None:
    done = run("fine-tune", "patients", rate=0.01, epochs=200)
    assert done.result["measure"] == "mean absolute error"
    assert done.result["gain"]["low"] > 0


def test_a_frozen_backbone_learns_other_labels(run) -> None:
    others = IMAGES[~FEW]
    names = np.array([f"number {digit}" for digit in DIGITS[~FEW]])
    done = run("fine-tune", "few digits", rows=others, right=names, head="new", frozen=1, name="others")
    assert done.contract.labels == tuple(f"number {digit}" for digit in range(5, 10))
    assert done.result["after"] > 0.85
    assert done.result["before"] < 0.3
    assert done.result["layers"] == {"all": 3, "frozen": 1}
    before = onnx.load(str(done.given / "package" / read_package(done.given / "package").entry))
    after = onnx.load(str(done.package / read_package(done.package).entry))
    first = before.graph.initializer[0]
    [same] = [each for each in after.graph.initializer if each.name == first.name]
    assert (numpy_helper.to_array(same) == numpy_helper.to_array(first)).all()


def test_layers_learn_slower_the_further_they_are_from_the_answer(run) -> None:
    done = run("fine-tune", "few digits", rate_decay=0.05, epochs=3, dropout=0.1, mixup=0.2, penalty=1e-4)
    before, after = (
        {
            each.name: numpy_helper.to_array(each)
            for each in onnx.load(str(place / read_package(place).entry)).graph.initializer
        }
        for place in (done.given / "package", done.package)
    )
    moved = [
        float(np.abs(after[layer.weight] - before[layer.weight]).mean())
        for layer in Network(done.package / read_package(done.package).entry, "probabilities").layers
    ]
    assert moved == sorted(moved)
    assert moved[0] > 0


def test_the_same_seed_teaches_the_same(run, tmp_path) -> None:
    first = run("fine-tune", "few digits", epochs=3).attempt.offered[0].data
    again = RecordedAttempt(
        tmp_path / "second",
        check_job(find_kind("fine-tune"), {"target": "right", "epochs": 3}, {"model": {}, "sample": {}}),
        {"model": tmp_path / "given" / "given", "sample": tmp_path / "rows.npz"},
        kind="fine-tune",
    )
    FineTune().run(again)
    assert again.offered[0].data == first


@pytest.mark.parametrize(
    ("name", "wish", "error", "words"),
    [
        ("few digits", {"rows": IMAGES, "right": DIGITS}, InvalidRequest, "'5', which is no label"),
        ("few digits", {"frozen": 3}, InvalidRequest, "3 layers, and 3 are frozen"),
        ("lumps", {"head": "new"}, NotSupported, "does not lead to a softmax"),
        ("svm", {}, NotSupported, "labels and no probabilities"),
    ],
)
def test_what_cannot_be_taught_says_why(run, name, wish, error, words) -> None:
    with pytest.raises(error, match=words):
        run("fine-tune", name, **wish)


@pytest.mark.parametrize("name", ["digits", "lumps"])
def test_hidden_units_are_taken_out_and_the_model_is_really_smaller(run, name) -> None:
    done = run("compress", name, method="prune-units", max_drop=1.0)
    assert done.result["size"]["ratio"] < 0.5
    assert done.result["drop"]["points"] <= 1.0
    assert done.result["pruned"]["part"] >= 0.5
    assert done.result["drop"]["rows"] + done.result["pruned"]["rows_learned"] == len(model(name)[1])
    assert done.contract.outputs == read_package(done.given / "package").contract.outputs
    _, rows, right = model(name)
    assert (answers(done.package, rows).argmax(axis=1) == right).mean() > 0.9


def test_the_smallest_weights_become_zeros_that_stay_zeros(run) -> None:
    done = run("compress", "digits", method="prune-magnitude", max_drop=1.0)
    network = Network(done.package / read_package(done.package).entry, "probabilities")
    weights = np.concatenate([network.weights[layer.weight].ravel() for layer in network.layers])
    assert (weights == 0).mean() == pytest.approx(done.result["pruned"]["part"], abs=0.01)
    assert done.result["pruned"]["packed"]["ratio"] < 0.6
    assert done.result["size"]["ratio"] == pytest.approx(1, abs=0.01)


def test_without_right_answers_the_whole_network_is_what_is_learned(run) -> None:
    done = run("compress", "digits", method="prune-units", max_drop=5.0, known=False)
    assert done.result["drop"]["measure"] == "disagreement with the original"
    assert done.result["size"]["ratio"] < 1


def test_pruning_that_costs_too_much_says_by_how_much(run) -> None:
    with pytest.raises(NotSupported, match=r"prune-magnitude loses .* with 30% of the weights gone, and 0 are allowed"):
        run("compress", "patients", method="prune-magnitude", max_drop=0, known=False)


def test_masks_and_units_are_what_matters_least(tmp_path) -> None:
    given = given_model(tmp_path, model("digits")[0])
    network = Network(given / "package" / read_package(given / "package").entry, "probabilities")
    masks = smallest(network, 0.5)
    assert sum(int(mask.sum()) for mask in masks.values()) == pytest.approx(
        sum(mask.size for mask in masks.values()) / 2, rel=0.01
    )
    fewer = without_units(network, 0.75)
    assert [fewer[layer.weight].shape for layer in network.layers] == [(64, 50), (50, 25), (25, 10)]
    assert [fewer[layer.bias].shape for layer in network.layers if layer.bias] == [(1, 50), (1, 25), (1, 10)]
