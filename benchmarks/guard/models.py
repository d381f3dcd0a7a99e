"""Versions of one classifier for canaries: as it is, a little better trained, slow, failing, and quietly wrong."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LABELS = ("red", "green", "blue")
POISON = 7.5
"""A fourth value above this is what the failing version cannot answer."""
_SIZE = 224


@dataclass(frozen=True, kw_only=True)
class Version:
    """What sets a version apart. `work` is how many matrix products one run takes, whatever its rows."""

    work: int = 0
    noise: float = 0.0
    fails: bool = False
    tilt: float = 0.0
    seed: int = 1


def write(directory: Path, version: Version) -> Path:
    """A bundle of it: `model.onnx`, labels and a config."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = np.random.default_rng(7).normal(0, 1, (4, 3)).astype("f4")
    weights[3] = 0
    weights += np.random.default_rng(version.seed).normal(0, version.noise, (4, 3)).astype("f4") if version.noise else 0
    constants = {"w": weights, "bias": np.array([0, 0, version.tilt], dtype="f4")}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z0"]), helper.make_node("Add", ["z0", "bias"], ["z1"])]
    last = "z1"
    if version.fails:
        last = _failing(nodes, constants, last)
    if version.work:
        last = _working(nodes, constants, last, version.work)
    nodes.append(helper.make_node("Softmax", [last], ["p"]))
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(directory / "model.onnx"))
    (directory / "labels.json").write_text(json.dumps(list(LABELS)))
    config = {"task": "classification", "num_labels": 3}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def rows(count: int, *, seed: int = 5, poisoned: float = 0.02) -> list[list[float]]:
    """Questions; the share `poisoned` of them is what the failing version cannot answer."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(0, 1, (count, 4))
    drawn[:, 3] = np.where(rng.random(count) < poisoned, 8.0, 0.5)
    return [[round(float(value), 4) for value in row] for row in drawn]


def body(row: list[float]) -> bytes:
    """A V2 request of one row."""
    return json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row}]}).encode()


def _failing(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], last: str) -> str:
    """Look each row's fourth value up in a table that is too short for what is poisoned: the run raises."""
    constants |= {
        "fourth": np.array([3], dtype="i8"),
        "poison": np.array(POISON, dtype="f4"),
        "far": np.array(9, dtype="i8"),
        "table": np.zeros((1, 1), dtype="f4"),
    }
    nodes += [
        helper.make_node("Gather", ["x", "fourth"], ["f"], axis=1),
        helper.make_node("Greater", ["f", "poison"], ["is_poison"]),
        helper.make_node("Cast", ["is_poison"], ["one"], to=TensorProto.INT64),
        helper.make_node("Mul", ["one", "far"], ["index"]),
        helper.make_node("GatherElements", ["table", "index"], ["found"], axis=0),
        helper.make_node("Add", [last, "found"], ["z2"]),
    ]
    return "z2"


def _working(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], last: str, work: int) -> str:
    """Matrix products in a loop that depends on the input, so that nothing can leave them out."""
    turn = np.eye(_SIZE, dtype="f4")[::-1].copy()
    constants |= {
        "turns": np.array(work, dtype="i8"),
        "yes": np.array([1], dtype="?").reshape(()),
        "start": np.ones((_SIZE, _SIZE), dtype="f4"),
        "turn": turn,
        "nought": np.array(0, dtype="f4"),
    }
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["state", "turn"], ["next"]), helper.make_node("Identity", ["go"], ["on"])],
        "once",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [_SIZE, _SIZE]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [_SIZE, _SIZE]),
        ],
    )
    nodes += [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["largest", "nought"], ["nothing"]),
        helper.make_node("Add", ["start", "nothing"], ["state0"]),
        helper.make_node("Loop", ["turns", "yes", "state0"], ["state1"], body=inner),
        helper.make_node("ReduceMax", ["state1"], ["peak"], keepdims=0),
        helper.make_node("Mul", ["peak", "nought"], ["quiet"]),
        helper.make_node("Add", [last, "quiet"], ["z3"]),
    ]
    return "z3"
