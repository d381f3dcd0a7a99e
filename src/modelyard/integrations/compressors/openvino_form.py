"""An ONNX model in OpenVINO's own form: the graph as XML, the constants beside it."""

from collections.abc import Mapping
from pathlib import Path

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import MissingExtra, NotSupported


class ToOpenVino:
    """See `FormConverter`."""

    def convert(self, source: Path, directory: Path) -> Mapping[str, Path]:
        """`model.xml` and `model.bin`, every number in the precision that the model states."""
        try:
            import openvino
        except ImportError as error:
            raise MissingExtra("OpenVINO is not installed", hint="pip install 'modelyard[openvino]'") from error
        graph = directory / "model.xml"
        try:
            openvino.save_model(openvino.Core().read_model(source), graph, compress_to_fp16=False)
        except RuntimeError as error:
            words = next((line for line in str(error).splitlines()[::-1] if line.strip()), "without a word")
            raise NotSupported(f"OpenVINO cannot read this model: {quote(words.strip(), limit=200)}") from error
        return {"model.xml": graph, "model.bin": graph.with_suffix(".bin")}
