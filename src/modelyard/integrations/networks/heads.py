"""A last layer for other labels: the graph up to it stays, and what comes out has their number."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.domain.errors.platform import NotSupported
from modelyard.integrations.networks.graph import Network

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def with_new_head(path: Path, output: str, count: int, seed: int) -> Path:
    """A graph beside `path` that gives shares of `count` classes as `output` and nothing else, its last layer anew.

    Raises:
        NotSupported: its last layer does not give one number a class to a softmax.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper, utils

    made = path.with_name("headless.onnx")
    inputs = [each.name for each in onnx.load(str(path)).graph.input]
    utils.extract_model(str(path), str(made), inputs, [output])
    network = Network(made, output)
    last = network.layers[-1]
    after = network.nodes[_place(network, last.node) + 1 :]
    if [node.op_type for node in after if node.op_type != "Identity"] not in (["Add", "Softmax"], ["Softmax"]):
        raise NotSupported(
            "its last layer does not lead to a softmax, so other labels have no place in it",
            hint="head keep teaches it further on its own labels",
        )
    model = onnx.load(str(made))
    rng = np.random.default_rng(seed)
    width = network.weights[last.weight].shape[1 - last.unit_axis]
    shape = (width, count) if last.unit_axis else (count, width)
    fresh = {last.weight: rng.normal(0, width**-0.5, shape).astype("f4")}
    if last.bias is not None:
        old = network.weights[last.bias]
        fresh[last.bias] = np.zeros((*old.shape[:-1], count), dtype="f4")
    del model.graph.value_info[:]
    for each in model.graph.initializer:
        if each.name in fresh:
            each.CopyFrom(numpy_helper.from_array(fresh[each.name], each.name))
    [found] = model.graph.output
    found.type.tensor_type.shape.dim[1].Clear()
    found.type.tensor_type.shape.dim[1].dim_value = count
    onnx.checker.check_model(model)
    onnx.save(model, str(made))
    return made


def _place(network: Network, value: str) -> int:
    return next(index for index, node in enumerate(network.nodes) if node.output[0] == value)
