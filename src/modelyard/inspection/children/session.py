"""Run an ONNX graph as it will be served: one thread, no custom operators, text as `bytes`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.inspection.children.facts import Array


class Session:
    """A graph in memory, from its bytes or from its file (external data is looked for beside the file)."""

    def __init__(self, model: bytes | Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        source: Any = model if isinstance(model, bytes) else str(model)
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self.outputs = [item.name for item in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One array an output. BYTES are object arrays of `bytes` on both sides."""
        known = {item.name for item in self._session.get_inputs()}
        feed = {name: _to_text(array) for name, array in inputs.items() if name in known}
        return {
            name: _to_bytes(np.asarray(value))
            for name, value in zip(self.outputs, self._session.run(None, feed), strict=True)
        }


def _to_text(array: Array) -> Array:
    if array.dtype != object:
        return array
    text = [value.decode() if isinstance(value, bytes) else value for value in array.ravel()]
    return np.array(text, dtype=object).reshape(array.shape)


def _to_bytes(array: Array) -> Array:
    if array.dtype.kind not in "OU":
        return array
    values = np.empty(array.size, dtype=object)
    for index, value in enumerate(array.ravel()):
        values[index] = value.encode() if isinstance(value, str) else value
    return values.reshape(array.shape)
