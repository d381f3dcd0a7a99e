"""The models that every server serves: S a 4→16→3 network, M 256→1024→1024→10, R a small convolutional net of 3×64×64.

Weights come from a fixed seed, so two machines measure the same thing. All have one input `x` and one output `y`.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """`shape` is of one row."""

    name: str
    shape: tuple[int, ...]
    outputs: int

    @property
    def width(self) -> int:
        """Numbers in one row."""
        return prod(self.shape)

    def rows(self, count: int, *, seed: int = 1) -> Array:
        """Rows that differ, with few digits, as real data has."""
        values = np.random.default_rng(seed).standard_normal((count, *self.shape))
        return values.round(4).astype("f4")


S = Model("s", (4,), 3)
M = Model("m", (256,), 10)
R = Model("r", (3, 64, 64), 10)
MODELS = {model.name: model for model in (S, M, R)}
_HIDDEN = {"s": (16,), "m": (1024, 1024)}


def write_models(directory: Path) -> None:
    """`directory`/NAME.onnx of each model."""
    directory.mkdir(parents=True, exist_ok=True)
    for model in MODELS.values():
        build = _convolutional if model is R else _dense
        (directory / f"{model.name}.onnx").write_bytes(build(model))


def session(directory: Path, model: Model) -> Any:  # noqa: ANN401  (onnxruntime has no types)
    """Onnxruntime with one thread: what every answer is held against."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(directory / f"{model.name}.onnx"), options, providers=["CPUExecutionProvider"]
    )


def _dense(model: Model) -> bytes:
    from onnx import helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, current = [], [], "x"
    sizes = (*model.shape, *_HIDDEN[model.name], model.outputs)
    for index, (before, after) in enumerate(pairwise(sizes)):
        last = index == len(sizes) - 2
        values = (random.standard_normal((before, after)) / before**0.5).astype("f4")
        weights.append(numpy_helper.from_array(values, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [current, f"w{index}"], ["y" if last else f"m{index}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"m{index}"], [f"h{index}"]))
        current = f"h{index}"
    return _whole(model, nodes, weights)


def _convolutional(model: Model) -> bytes:
    from onnx import helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, current, channels = [], [], "x", model.shape[0]
    for index, (filters, stride) in enumerate(((16, 2), (32, 1))):
        values = (random.standard_normal((filters, channels, 3, 3)) / (9 * channels) ** 0.5).astype("f4")
        weights.append(numpy_helper.from_array(values, f"k{index}"))
        nodes += [
            helper.make_node(
                "Conv", [current, f"k{index}"], [f"c{index}"], strides=[stride, stride], pads=[1, 1, 1, 1]
            ),
            helper.make_node("Relu", [f"c{index}"], [f"a{index}"]),
        ]
        current, channels = f"a{index}", filters
    values = (random.standard_normal((channels, model.outputs)) / channels**0.5).astype("f4")
    weights.append(numpy_helper.from_array(values, "w"))
    nodes += [
        helper.make_node("GlobalAveragePool", [current], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    return _whole(model, nodes, weights)


def _whole(model: Model, nodes: list[Any], weights: list[Any]) -> bytes:
    from onnx import TensorProto, helper

    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])
        for name, shape in (("x", model.shape), ("y", (model.outputs,)))
    )
    graph = helper.make_graph(nodes, model.name, [x], [y], weights)
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(whole.SerializeToString())
