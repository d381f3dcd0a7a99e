"""Form converters: what brings a served ONNX graph into the form of another runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class FormConverter(Protocol):
    """Converts to the form that one runtime opens. Importing its module must not import its library."""

    def convert(self, source: Path, directory: Path) -> Mapping[str, Path]:
        """Write the form of the ONNX model `source` into the empty `directory`; its files by their names.

        The first is the one that the runtime opens. Names of inputs and outputs stay as they are, and so do the
        numbers, but for what rounding does.

        Raises:
            MissingExtra: the library is not installed.
            NotSupported: it cannot bring this model into its form; with its words.
        """
