"""Serve OpenVINO models with OpenVINO's runtime: its graph (`model.xml`) and its constants (`model.bin`), as uploaded.

Devices are taken literally: "cpu" is OpenVINO's CPU, "gpu" its GPU, and one that is not there is refused. No extension
library is ever loaded. Importing this module does not import the library.
"""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from modelyard.domain.contract import ServingPackage
from modelyard.domain.errors.platform import MissingExtra, NotSupported
from modelyard.ports.runtime import LoadOptions

if TYPE_CHECKING:
    import numpy as np

    from modelyard.inspection.children.openvino_session import OpenVinoSession

    Array = np.ndarray[Any, Any]

_KINDS: Final = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}


class OpenVino:
    """The runtime `openvino`."""

    name = "openvino"

    def load(self, directory: Path, package: ServingPackage, options: LoadOptions) -> "OpenVinoModel":
        """Compile `package.entry` for the device, with `options.threads` threads and one stream.

        Raises:
            MissingExtra: OpenVINO is not installed.
            NotSupported: the device is not on this machine, or the entry is missing.
        """
        try:
            import openvino
        except ImportError as error:
            raise MissingExtra("OpenVINO is not installed", hint="pip install 'modelyard[openvino]'") from error
        from modelyard.inspection.children.openvino_session import OpenVinoSession

        if package.entry not in {path.name for path in directory.iterdir()}:
            raise NotSupported("the package lacks the file it names as its entry", hint="upload the model again")
        before = psutil.Process().memory_info().rss
        device, shown = _device(options.device, openvino.Core().available_devices)
        session = OpenVinoSession(directory / package.entry, package.contract, device=device, threads=options.threads)
        taken = max(0, psutil.Process().memory_info().rss - before)
        return OpenVinoModel(session, device=shown, memory_bytes=taken)


class OpenVinoModel:
    """A compiled model in memory. Runs may overlap: each thread has a request of its own."""

    def __init__(self, session: "OpenVinoSession", *, device: str, memory_bytes: int) -> None:
        self.device = device
        self.memory_bytes = memory_bytes
        self._session = session

    def run(self, batch: "Mapping[str, Array]") -> "dict[str, Array]":
        """Answers for one batch: the outputs that the contract needs."""
        return self._session.run(batch)

    def stream(self, request: "Mapping[str, Array]") -> "AsyncIterator[dict[str, Array]]":
        """OpenVINO graphs give one answer."""
        raise NotSupported("an OpenVINO model gives one answer to a request", hint="use infer")

    def close(self) -> None:
        """Drop the compiled model."""
        self._session.close()


def _device(wanted: str, available: list[str]) -> tuple[str, str]:
    """OpenVINO's name of the device, and ours. `available` are names such as "CPU", "GPU", "GPU.1"."""
    kind, _, index = wanted.partition(":")
    if kind == "auto":
        return "CPU", "cpu"
    name = _KINDS.get(kind, kind.upper())
    fitting = {name, f"{name}.0"} if index in {"", "0"} else {f"{name}.{index}"}
    there = sorted(fitting & set(available))
    if not there:
        raise NotSupported(
            f"OpenVINO cannot run on the device {wanted}: this machine has {', '.join(available).lower() or 'none'}",
            hint="choose the device cpu, or install the device's driver",
        )
    return there[0], "cpu" if kind == "cpu" else f"{kind}:{index or 0}"
