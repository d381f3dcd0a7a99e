"""Small models in each format, made by the libraries that users use."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import onnx
from onnx import TensorProto, helper
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from modelyard.domain.contract import Golden
from modelyard.foundation.documents import read_package, write_package


def onnx_model(width: int = 16) -> onnx.ModelProto:
    """Two layers and a softmax over three classes; four numbers in."""
    random = np.random.default_rng(7)
    first = helper.make_tensor("a", TensorProto.FLOAT, [4, width], random.normal(size=(4, width)).astype("f4"))
    second = helper.make_tensor("b", TensorProto.FLOAT, [width, 3], random.normal(size=(width, 3)).astype("f4"))
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["z"]),
        helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        [first, second],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def openvino_files(place: Path, *, width: int = 16) -> dict[str, bytes]:
    """The same model as OpenVINO writes it: `m.xml` and `m.bin`."""
    import openvino

    onnx.save(onnx_model(width), place / "m.onnx")
    openvino.save_model(openvino.convert_model(place / "m.onnx"), place / "m.xml", compress_to_fp16=False)
    return {name: (place / name).read_bytes() for name in ("m.xml", "m.bin")}


def original() -> bytes:
    """A pipeline that ONNX has no converter for, as joblib writes it."""
    x, y = load_iris(return_X_y=True)
    model = make_pipeline(SplineTransformer(n_knots=4), LogisticRegression(max_iter=500)).fit(x, y)
    stream = io.BytesIO()
    joblib.dump(model, stream)
    return stream.getvalue()


CODE = """
import numpy as np

def load(path):
    return np.arange(12, dtype="f4").reshape(4, 3)

def predict(inputs):
    return {"y": inputs["x"] @ model}
"""
CONFIG = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
    "batching": {"max_size": 32},
}


def with_golden(directory: Path) -> Path:
    """The package of `CODE` with the answer to one row recorded, as a person may who knows it."""
    row = np.array([[1, 2, 3, 4]], dtype="f4")
    answer = row @ np.arange(12, dtype="f4").reshape(4, 3)
    request = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": row.ravel().tolist()}
    output = {"name": "y", "datatype": "FP32", "shape": [1, 3], "data": answer.ravel().tolist()}
    package = read_package(directory)
    write_package(directory, replace(package, golden=Golden(request={"inputs": [request]}, outputs=(output,))))
    return directory


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
