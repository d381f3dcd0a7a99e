"""The onnxruntime runtime: outputs by contract, text as bytes, the device literally."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelyard.domain.contract import ModelContract, ModelFormat, ServingPackage
from modelyard.domain.errors.platform import NotSupported
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.inference.hosting import RUNTIMES
from modelyard.ports.runtime import LoadOptions


@pytest.fixture
def package(tmp_path: Path) -> ServingPackage:
    """Text back as it came, and the input doubled; a third output that the contract leaves out."""
    nodes = [
        helper.make_node("Identity", ["t"], ["same"]),
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Identity", ["x"], ["hidden"]),
    ]
    inputs = [
        helper.make_tensor_value_info("t", TensorProto.STRING, ["n"]),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2]),
    ]
    outputs = [
        helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["n", 2]),
        helper.make_tensor_value_info("same", TensorProto.STRING, ["n"]),
        helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["n", 2]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        str(tmp_path / "model.onnx"),
    )
    contract = ModelContract(
        inputs=(
            TensorSpec(name="t", datatype=DataType.BYTES, shape=(-1,)),
            TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 2)),
        ),
        outputs=(
            TensorSpec(name="twice", datatype=DataType.FP32, shape=(-1, 2)),
            TensorSpec(name="same", datatype=DataType.BYTES, shape=(-1,)),
        ),
        max_batch_size=8,
    )
    return ServingPackage(
        name="m",
        digest="sha256:m",
        format=ModelFormat.ONNX,
        runtime="onnxruntime",
        entry="model.onnx",
        platform="onnx_onnxv1",
        contract=contract,
    )


def test_outputs_come_as_the_contract_lists_them(package: ServingPackage, tmp_path: Path) -> None:
    model = RUNTIMES.get("onnxruntime")().load(tmp_path, package, LoadOptions(device="cpu"))
    texts = np.empty(2, dtype=object)
    texts[:] = ["ä".encode(), b""]
    outputs = model.run({"t": texts, "x": np.ones((2, 2), dtype="f4")})
    assert list(outputs) == ["twice", "same"]
    assert outputs["twice"].tolist() == [[2, 2], [2, 2]]
    assert outputs["same"].tolist() == ["ä".encode(), b""]
    assert model.device == "cpu"
    assert model.memory_bytes >= 0
    model.close()


def test_a_device_that_is_not_there_is_refused(package: ServingPackage, tmp_path: Path) -> None:
    runtime = RUNTIMES.get("onnxruntime")()
    with pytest.raises(NotSupported, match="tpu"):
        runtime.load(tmp_path, package, LoadOptions(device="tpu"))


def test_a_package_without_its_entry_is_refused(package: ServingPackage, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(NotSupported, match="entry"):
        RUNTIMES.get("onnxruntime")().load(tmp_path, package, LoadOptions(device="cpu"))


def test_one_answer_to_a_request(package: ServingPackage, tmp_path: Path) -> None:
    model = RUNTIMES.get("onnxruntime")().load(tmp_path, package, LoadOptions(device="cpu"))
    with pytest.raises(NotSupported):
        model.stream({})
