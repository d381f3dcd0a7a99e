"""Serve ONNX models with onnxruntime.

Devices are taken literally: a model that was asked onto a GPU fails to load where there is none, instead of quietly
running on the processor. External data beside the model file is mapped by onnxruntime, not copied.
"""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from modelyard.domain.contract import ServingPackage
from modelyard.domain.errors.platform import MissingExtra, NotSupported
from modelyard.domain.tensors import DataType
from modelyard.foundation.memory import return_free_memory
from modelyard.ports.runtime import LoadOptions

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_CPU: Final = "CPUExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"
_ERRORS_ONLY: Final = 3


class OnnxRuntime:
    """The runtime `onnxruntime`."""

    name = "onnxruntime"

    def load(self, directory: Path, package: ServingPackage, options: LoadOptions) -> "OnnxModel":
        """Open `package.entry` with `options.threads` threads.

        Raises:
            MissingExtra: onnxruntime is not installed.
            NotSupported: this build of onnxruntime does not have the device.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("onnxruntime is not installed", hint="pip install onnxruntime") from error
        if package.entry not in {path.name for path in directory.iterdir()}:
            raise NotSupported("the package lacks the file it names as its entry", hint="upload the model again")
        provider, device = _provider(options.device, onnxruntime.get_available_providers())
        before = _resident_bytes()
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = _ERRORS_ONLY
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(
            str(directory / package.entry), settings, providers=[_with_index(provider, device)]
        )
        if provider not in session.get_providers():
            raise NotSupported(f"onnxruntime could not open the device {options.device}", hint="check its driver")
        taken = max(0, _resident_bytes() - before)
        return OnnxModel(session, package, device=device, memory_bytes=taken)


class OnnxModel:
    """An open session. `run` asks only for the outputs that the contract needs."""

    def __init__(self, session: Any, package: ServingPackage, *, device: str, memory_bytes: int) -> None:  # noqa: ANN401
        contract = package.contract
        self._session = session
        self.device = device
        self.memory_bytes = memory_bytes
        wanted = [spec.name for spec in contract.outputs]
        if contract.labelling is not None:
            wanted = [name for name in wanted if name != contract.labelling.output]
            if contract.labelling.source not in wanted:
                wanted.append(contract.labelling.source)
        self._outputs = wanted
        self._texts_in = tuple(spec.name for spec in contract.inputs if spec.datatype is DataType.BYTES)
        texts = {value.name for value in session.get_outputs() if "string" in value.type}
        self._texts_out = tuple(index for index, name in enumerate(wanted) if name in texts)

    def run(self, batch: "Mapping[str, Array]") -> "dict[str, Array]":
        """Answers for one batch. BYTES values must be UTF-8: ONNX knows strings, not bytes."""
        if self._texts_in:
            batch = {name: _to_text(array) if name in self._texts_in else array for name, array in batch.items()}
        answers = self._session.run(self._outputs, batch)
        for index in self._texts_out:
            answers[index] = _to_bytes(answers[index])
        return dict(zip(self._outputs, answers, strict=True))

    def stream(self, request: "Mapping[str, Array]") -> "AsyncIterator[dict[str, Array]]":
        """ONNX graphs give one answer."""
        raise NotSupported("an ONNX model gives one answer to a request", hint="use infer")

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def _resident_bytes() -> int:
    """What this process has in memory, without what was freed."""
    return_free_memory()
    return int(psutil.Process().memory_info().rss)


def _provider(device: str, available: list[str]) -> tuple[str, str]:
    kind, _, index = device.partition(":")
    if kind == "auto":
        kind = "cuda" if _CUDA in available else "cpu"
    if kind == "cpu":
        return _CPU, "cpu"
    if kind == "cuda" and _CUDA in available:
        return _CUDA, f"cuda:{index or 0}"
    raise NotSupported(
        f"this onnxruntime cannot run on the device {device}",
        hint="install the GPU build, or choose the device cpu",
    )


def _with_index(provider: str, device: str) -> str | tuple[str, dict[str, str]]:
    return (provider, {"device_id": device.partition(":")[2]}) if provider == _CUDA else provider


def _to_text(array: "Array") -> "Array":
    import numpy as np

    texts = np.empty(array.size, dtype=object)
    texts[:] = [value.decode() if isinstance(value, bytes) else value for value in array.ravel()]
    return texts.reshape(array.shape)


def _to_bytes(array: "Array") -> "Array":
    import numpy as np

    values = np.empty(array.size, dtype=object)
    values[:] = [value.encode() if isinstance(value, str) else value for value in array.ravel()]
    return values.reshape(array.shape)
