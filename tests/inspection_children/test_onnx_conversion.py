"""ONNX files, uploaded or built: the contract is read off the graph, the probe finds what only running shows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conversion import Converted, convert_file
from onnx import TensorProto, helper, numpy_helper

from modelyard.domain.contract import ModelContract, ModelFormat, Task
from modelyard.domain.errors.uploads import BundleMismatch, UploadRefused, WeightsFormat, WeightsUnsafe, WeightsValues
from modelyard.domain.report import Outcome
from modelyard.domain.tensors import DataType
from modelyard.inspection.child import PROBE_ROWS
from modelyard.inspection.children.probing import Probe
from modelyard.inspection.children.v2_values import array_of

FLOAT = TensorProto.FLOAT


def graph(
    nodes: list[Any],
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    weights: dict[str, np.ndarray[Any, Any]] | None = None,
    **more: Any,
) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, more.get("kind", FLOAT), shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", more.get("opset", 17)), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=more.get("ir", 8))


def linear(rows: Any = "n", **more: Any) -> onnx.ModelProto:
    weights = {"w": np.arange(12, dtype=np.float32).reshape(4, 3) / 10}
    return graph([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [rows, 4]}, {"y": [rows, 3]}, weights, **more)


def package(model: onnx.ModelProto, place: Path, **body: Any) -> Converted:
    path = place / "model.onnx"
    onnx.save(model, path)
    return convert_file(path, ModelFormat.ONNX, place / "out", **body)


def probed(made: Converted) -> ModelContract:
    document = json.loads((made.directory / PROBE_ROWS).read_text())
    rows = {item["name"]: array_of(item) for item in document["inputs"]}
    return Probe(made.directory, made.package, made.said).run(rows, source="generated")[0]  # type: ignore[arg-type]


def test_a_dynamic_first_axis_is_a_batch_axis_and_is_proved(tmp_path: Path) -> None:
    made = package(linear(), tmp_path)
    assert (made.directory / "model.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()
    assert made.package.contract.inputs[0].shape == (-1, 4)
    assert made.package.contract.max_batch_size == 1
    contract = probed(made)
    assert contract.max_batch_size == 64
    assert contract.outputs[0].shape == (-1, 3)


def test_a_first_axis_of_one_is_run_one_by_one(tmp_path: Path) -> None:
    assert probed(package(linear(1), tmp_path)).max_batch_size == 1


def test_another_fixed_first_axis_is_no_batch_axis(tmp_path: Path) -> None:
    made = package(linear(5), tmp_path)
    assert made.package.contract.max_batch_size == 0
    assert probed(made).inputs[0].shape == (5, 4)


def test_a_model_that_mixes_rows_is_never_batched(tmp_path: Path) -> None:
    model = graph([helper.make_node("Softmax", ["x"], ["y"], axis=0)], {"x": ["n", 4]}, {"y": ["n", 4]})
    made = package(model, tmp_path)
    assert probed(made).max_batch_size == 1
    assert made.said.named("probe.batching").outcome is Outcome.WARNING


def test_an_initializer_that_is_also_an_input_is_no_input(tmp_path: Path) -> None:
    model = linear()
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [4, 3]))
    made = package(model, tmp_path)
    assert [item.name for item in made.package.contract.inputs] == ["x"]
    assert probed(made).max_batch_size == 64


def test_labels_make_a_classifier(tmp_path: Path) -> None:
    made = package(linear(), tmp_path, labels=["a", "b", "c"])
    contract = made.package.contract
    assert contract.task is Task.CLASSIFICATION
    assert [item.name for item in contract.outputs] == ["label", "y"]
    assert contract.labelling is not None
    assert contract.labelling.source == "y"
    probed(made)


def test_labels_of_another_number_are_a_mismatch(tmp_path: Path) -> None:
    with pytest.raises(BundleMismatch):
        package(linear(), tmp_path, labels=["a", "b"])


def test_a_sequence_of_maps_becomes_a_tensor_with_its_labels(tmp_path: Path) -> None:
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    features, classes = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[classes]
    model = skl2onnx.to_onnx(
        LogisticRegression(max_iter=300).fit(features, names), initial_types=[("x", FloatTensorType([None, 4]))]
    )
    made = package(model, tmp_path)
    contract = made.package.contract
    assert contract.labels == ("setosa", "versicolor", "virginica")
    assert all(item.datatype in {DataType.BYTES, DataType.FP32} for item in contract.outputs)
    assert made.said.named("onnx.graph").evidence["zipmaps_taken_out"] == 1
    assert probed(made).max_batch_size == 64


def test_external_data_travels_with_the_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(linear(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    made = convert_file(path, ModelFormat.ONNX, tmp_path / "out")
    assert (made.directory / "weights.bin").read_bytes() == (tmp_path / "weights.bin").read_bytes()
    assert probed(made).max_batch_size == 64


def test_a_declared_input_must_be_the_graphs(tmp_path: Path) -> None:
    wrong = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 7]}]}
    with pytest.raises(BundleMismatch, match="the graph says FP32"):
        package(linear(), tmp_path, config=wrong)
    with pytest.raises(BundleMismatch, match="does not have"):
        package(linear(), tmp_path, config={"outputs": [{"name": "z"}]})
    package(linear(), tmp_path, config={"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]})


@pytest.mark.parametrize("more", [{"opset": 999}, {"ir": 999}])
def test_a_version_too_new_says_what_to_export(more: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(WeightsFormat) as caught:
        package(linear(**more), tmp_path)
    assert "opset_version" in caught.value.hint


def test_nan_in_the_weights_is_refused(tmp_path: Path) -> None:
    model = linear()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((4, 3), np.nan, np.float32), "w"))
    with pytest.raises(WeightsValues):
        package(model, tmp_path)


def test_an_answer_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sub", ["x", "x"], ["zero"]), helper.make_node("Div", ["x", "zero"], ["y"])]
    made = package(graph(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}), tmp_path)
    with pytest.raises(WeightsValues):
        probed(made)


def test_an_operator_of_another_domain_is_refused(tmp_path: Path) -> None:
    model = graph([helper.make_node("RunShell", ["x"], ["y"], domain="com.evil")], {"x": ["n", 4]}, {"y": ["n", 4]})
    model.opset_import.append(helper.make_opsetid("com.evil", 1))
    made = package(model, tmp_path)
    with pytest.raises((WeightsUnsafe, WeightsFormat)):
        probed(made)


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"not a graph", b"\x08\x08\x3a\x00"])
def test_what_is_no_graph_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(UploadRefused):
        convert_file(path, ModelFormat.ONNX, tmp_path / "out")
