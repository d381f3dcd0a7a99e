"""Models for experiments: a plain one in ONNX, and own code that misbehaves when it is told to.

The misbehaving one reads its orders from the file `orders.json` in its package directory, before each run: a rule for
all, or for the worker with one index. What it is asked decides the rest: the first value of a row names an act.
"""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CRASH, EAT, HANG, NAN, RAISE = 9001.0, 9002.0, 9003.0, 9004.0, 9005.0
"""First values of a row that make the own code end its process, eat memory, never return, answer NaN, raise."""

_CODE = """
import json
import os
import time
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))

def load(path):
    return None

def orders():
    try:
        with open(os.path.join(HERE, "orders.json")) as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return {}

def predict(inputs):
    x, told = inputs["x"], orders()
    mine = told.get("pids", {}).get(str(os.getpid()), told)
    if mine.get("down"):
        raise ConnectionError("the feature store is away")
    if mine.get("fails"):
        raise RuntimeError("this worker is broken")
    time.sleep(mine.get("sleep_s", %(sleep)s))
    act = float(x[0, 0]) if len(x) == 1 else float(x[:, 0].max())
    if act == 9001.0:
        os._exit(41)
    if act == 9002.0:
        held = []
        while True:
            held.append(np.empty(1 << 26, dtype="u1"))
    if act == 9003.0:
        while True:
            pass
    if act == 9005.0:
        raise ValueError("no such thing")
    y = x[:, :2] * np.float32(%(scale)s)
    if act == 9004.0:
        y = np.full_like(y, np.nan)
    return {"y": y}
"""


def linear(path: Path, *, scale: float = 1.0) -> Path:
    """An ONNX file: y = scale · x[:, :2]."""
    weights = np.zeros((3, 2), dtype="f4")
    weights[0, 0] = weights[1, 1] = scale
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        inputs,
        outputs,
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def own_code(directory: Path, *, scale: float = 1.0, sleep_s: float = 0.0, batch: int = 16) -> Path:
    """A bundle of own code with the same contract, that does as `orders.json` and its input say."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "predict.py").write_text(_CODE % {"scale": scale, "sleep": sleep_s})
    (directory / "requirements.lock").write_text("")
    config = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
        "batching": {"max_size": batch},
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def question(*values: float) -> bytes:
    """A V2 request of one row."""
    row = [*values, 0.0, 0.0, 0.0][:3]
    return json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": row}]}).encode()


def not_a_number(path: Path) -> Path:
    """An ONNX file whose every answer is NaN: x − x divided by itself."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])]
    nodes = [helper.make_node("Sub", ["x", "x"], ["zero"]), helper.make_node("Div", ["zero", "zero"], ["y"])]
    model = helper.make_model(
        helper.make_graph(nodes, "nan", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path
