"""An approved original: read by the restricted reader, asked through the same description that the audit used."""

from pathlib import Path

from modelyard.domain.contract import ModelFormat, ServingPackage
from modelyard.domain.tensors import DataType
from modelyard.inspection.children.described import Described, Reads, describe
from modelyard.inspection.children.unpickle import read_estimator


def open_original(directory: Path, package: ServingPackage) -> Described:
    """The described estimator of a package whose runtime is "sklearn_original"."""
    path = directory / package.entry
    if package.format is ModelFormat.SKOPS or package.entry.endswith(".skops"):
        from modelyard.inspection.children.skops_file import read_skops

        read = read_skops(path)
    else:
        read = read_estimator(path)
    described = describe(read.model)
    described.floats = DataType.FP64
    if described.reads in {Reads.ARRAY, Reads.TABLE} and described.one_input:
        described.tensor_name = package.contract.inputs[0].name
    return described
