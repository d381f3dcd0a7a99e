"""Smaller forms of an ONNX model: weights in 8 bits, numbers in 16, a graph with less in it."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.errors.platform import MissingExtra, NotSupported
from modelyard.foundation.samples import Sample

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

QUANTISED: Final = ("MatMul", "Gemm", "Conv")
"""Operators whose weights are taken to 8 bits."""
_CALIBRATION_ROWS: Final = 512
_CALIBRATION_BATCH: Final = 64
_FATAL_ONLY: Final = 4


def quantisable(path: Path) -> list[str]:
    """Names of the nodes that can be taken to 8 bits: those with a weight of their own."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {each.name for each in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type in QUANTISED and len(node.input) > 1 and node.input[1] in weights
    ]


def named(path: Path, target: Path) -> None:
    """The model with a name for every node: what is quantised is chosen by name."""
    import onnx

    model = onnx.load(str(path))
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    names = [node.name for node in model.graph.node]
    if len(set(names)) != len(names):
        for index, node in enumerate(model.graph.node):
            node.name = f"{node.op_type}_{index}"
    onnx.save(model, str(target))


def int8_dynamic(source: Path, target: Path, *, nodes: Sequence[str], sample: Sample) -> None:
    """Weights in 8 bits, one scale a channel; activations are taken to 8 bits as they come."""
    with _quiet() as quantization:
        quantization.quantize_dynamic(
            str(source),
            str(target),
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            nodes_to_quantize=list(nodes),
        )


def int8_static(source: Path, target: Path, *, nodes: Sequence[str], sample: Sample) -> None:
    """Weights and activations in 8 bits, with scales from the sample (QDQ)."""
    with _quiet() as quantization:
        quantization.quantize_static(
            str(source),
            str(target),
            _reader(quantization, sample),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            nodes_to_quantize=list(nodes),
        )


def fp16(source: Path, target: Path, *, nodes: Sequence[str], sample: Sample) -> None:
    """Numbers in 16 bits inside; inputs and outputs stay as they are."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    whole = OnnxModel(convert_float_to_float16(onnx.load(str(source)), keep_io_types=True))
    whole.topological_sort()  # the converter adds its casts at the end
    onnx.save(whole.model, str(target))


def plain_graph(source: Path, target: Path, *, nodes: Sequence[str], sample: Sample) -> None:
    """The same numbers from fewer operators: constants folded, what is never used taken out, neighbours joined."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


Form = Callable[..., None]
FORMS: Final[dict[str, Form]] = {
    "int8": int8_dynamic,
    "int8-static": int8_static,
    "fp16": fp16,
    "graph": plain_graph,
}
BY_NODE: Final = frozenset({"int8", "int8-static"})
"""Forms that may leave nodes out."""


def make(form: str, source: Path, target: Path, *, nodes: Sequence[str], sample: Sample) -> None:
    """Write the form of `source` to `target`; `nodes` are those that may be changed.

    Raises:
        NotSupported: the libraries cannot bring this model into it; with their words.
    """
    try:
        FORMS[form](source, target, nodes=nodes, sample=sample)
        _open(target)  # what a converter writes is not always a model
    except ImportError as error:
        raise MissingExtra(f"{form} needs a package: {error}", hint="pip install onnx onnxruntime") from error
    except Exception as error:
        raise NotSupported(
            f"this model cannot be brought into {form}: {type(error).__name__}: {error}"[:400],
            hint="try another method",
        ) from error


def _open(path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextmanager
def _quiet() -> Iterator[Any]:
    """The library's quantisers, without their advice in the log."""
    from onnxruntime import quantization

    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield quantization
    finally:
        root.setLevel(before)


def _reader(quantization: Any, sample: Sample) -> Any:  # noqa: ANN401  (a class of the library)
    class Rows(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Batches of the sample, once."""

        def __init__(self) -> None:
            last = min(sample.rows, _CALIBRATION_ROWS)
            self._begins = iter(range(0, last, _CALIBRATION_BATCH))

        def get_next(self) -> "dict[str, Array] | None":
            """The next batch; None at the end."""
            begin = next(self._begins, None)
            return None if begin is None else sample.part(begin, begin + _CALIBRATION_BATCH)

    return Rows()
