"""Serve an approved scikit-learn original, where its conversion to ONNX fails or answers differently.

Packages of this runtime ask for isolation "process": hosting loads them in a worker of their own, never in a process
that listens. The file is read by the same restricted reader as in the audit, and asked through the same description, so
that it answers what the audit saw. Importing this module imports no library.
"""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from modelyard.domain.contract import ServingPackage
from modelyard.domain.errors.platform import MissingExtra, NotSupported
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.ports.runtime import LoadOptions

if TYPE_CHECKING:
    import numpy as np

    from modelyard.inspection.children.described import Described

    Array = np.ndarray[Any, Any]


class SklearnOriginal:
    """The runtime `sklearn_original`."""

    name = "sklearn_original"

    def load(self, directory: Path, package: ServingPackage, options: LoadOptions) -> "OriginalModel":
        """Read `package.entry` by the table of known types, on the processor, with `options.threads` threads.

        Raises:
            MissingExtra: scikit-learn is not installed.
            NotSupported: another device than the processor was asked for, or the entry is missing.
            UploadRefused: the file is not what the audit approved.
        """
        if options.device not in {"auto", "cpu"}:
            raise NotSupported(
                f"a scikit-learn original runs on the processor, not on {options.device}", hint="choose the device cpu"
            )
        if package.entry not in {path.name for path in directory.iterdir()}:
            raise NotSupported("the package lacks the file it names as its entry", hint="upload the model again")
        try:
            from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

            from modelyard.inspection.children.original import open_original
        except ImportError as error:
            raise MissingExtra("scikit-learn is not installed", hint="pip install scikit-learn") from error
        before = psutil.Process().memory_info().rss
        described = open_original(directory, package)
        threadpool_limits(options.threads)  # for good: the process holds this model and nothing else
        taken = max(0, psutil.Process().memory_info().rss - before)
        return OriginalModel(described, package, memory_bytes=taken)


class OriginalModel:
    """An estimator in memory. Answers are in the contract's datatypes; a table is assembled where it wants one."""

    device = "cpu"

    def __init__(self, described: "Described", package: ServingPackage, *, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self._described: Described | None = described
        labelling = package.contract.labelling
        label = labelling.output if labelling else None
        self._outputs: Mapping[str, TensorSpec] = {
            item.name: item for item in package.contract.outputs if item.name != label
        }
        self._source = labelling.source if labelling else None

    def run(self, batch: "Mapping[str, Array]") -> "dict[str, Array]":
        """Answers for one batch; raises what the estimator raises."""
        from modelyard.inspection.children.v2_values import NUMPY

        if self._described is None:
            raise NotSupported("the model was closed", hint="load it again")
        answers = self._described.ask(batch)
        wanted = {
            name: answers[name] if item.datatype is DataType.BYTES else answers[name].astype(NUMPY[item.datatype])
            for name, item in self._outputs.items()
        }
        if self._source is not None:
            wanted.setdefault(self._source, answers[self._source])
        return wanted

    def stream(self, request: "Mapping[str, Array]") -> "AsyncIterator[dict[str, Array]]":
        """Estimators give one answer."""
        raise NotSupported("a scikit-learn model gives one answer to a request", hint="use infer")

    def close(self) -> None:
        """Drop the estimator."""
        self._described = None
