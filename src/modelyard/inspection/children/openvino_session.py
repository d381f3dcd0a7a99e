"""Run an OpenVINO graph: how the audit's probe asks it, and what the runtime of the same name stands on.

Importing this module does not import the library.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.domain.contract import ModelContract
from modelyard.domain.errors.platform import NotSupported
from modelyard.inspection.children.facts import Array


class OpenVinoSession:
    """A compiled model. Every thread has a request of its own, so that runs may overlap."""

    def __init__(self, path: Path, contract: ModelContract, *, device: str = "CPU", threads: int = 1) -> None:
        """Compile `path` for OpenVINO's `device`; `contract` says which tensors are given and wanted."""
        import openvino

        core = openvino.Core()
        self._compiled: Any = core.compile_model(core.read_model(path), device, _settings(device, threads))
        self._own = threading.local()
        self._inputs = {spec.name: _find(self._compiled.inputs, spec.name) for spec in contract.inputs}
        label = contract.labelling.output if contract.labelling is not None else None
        wanted = [spec.name for spec in contract.outputs if spec.name != label]
        if contract.labelling is not None and contract.labelling.source not in wanted:
            wanted.append(contract.labelling.source)
        self._outputs = {name: _find(self._compiled.outputs, name) for name in wanted}

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """The wanted outputs for one batch, each an array of its own."""
        if self._compiled is None:
            raise NotSupported("the model was closed", hint="load it again")
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        places = self._inputs
        answers = request.infer({places[name]: array for name, array in batch.items()}, share_inputs=True)
        return {name: answers[index].copy() for name, index in self._outputs.items()}

    def close(self) -> None:
        """Drop the compiled model. Idempotent."""
        self._compiled = None
        self._own = threading.local()


def load_library() -> None:
    """Import the library and have it load its CPU plugin: a graph of ours, before any upload is read."""
    import numpy as np
    import openvino
    from openvino import opset8

    given = opset8.parameter([1, 1], np.float32)
    openvino.Core().compile_model(openvino.Model([opset8.relu(given)], [given]), "CPU", _settings("CPU", 1))


def _settings(device: str, threads: int) -> dict[str, Any]:
    """One request at a time, answered as soon as it can be, in the precision that the model states."""
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if device == "CPU":
        settings |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False, "NUM_STREAMS": 1}
    return settings


def _find(ports: Any, name: str) -> int:  # noqa: ANN401  (openvino's own types)
    """The position of the port with this tensor name; else of the layer of this name."""
    for index, port in enumerate(ports):
        if name in port.get_names():
            return index
    for index, port in enumerate(ports):
        node = port.get_node()
        source = node.input_value(0).get_node() if node.get_type_name() == "Result" else node
        if name in {node.get_friendly_name(), source.get_friendly_name()}:
            return index
    raise NotSupported(f"the model has no tensor {name}, which its contract names", hint="upload the model again")
