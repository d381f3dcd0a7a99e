"""Formats that are known and not accepted: each refusal says what the file is and how to bring the model in."""

from modelyard.domain.errors.uploads import TypeNotAllowed, UploadRefused
from modelyard.inspection.kinds import ACCEPTED, WeightsKind
from modelyard.inspection.octets import Octets
from modelyard.inspection.policy import InspectionPolicy
from modelyard.inspection.weights.gguf import refuse_gguf
from modelyard.inspection.weights.keras_file import refuse_hdf5, refuse_keras
from modelyard.inspection.weights.numpy_file import refuse_numpy
from modelyard.inspection.weights.torch_file import refuse_torch


def refuse_foreign(kind: WeightsKind, data: Octets, policy: InspectionPolicy) -> UploadRefused:
    """The refusal for a file of a `kind` that is not accepted (a parser may raise a more precise one)."""
    match kind:
        case WeightsKind.TORCH:
            return refuse_torch(data)
        case WeightsKind.KERAS:
            return refuse_keras(data, policy)
        case WeightsKind.HDF5:
            return refuse_hdf5()
        case WeightsKind.NUMPY:
            return refuse_numpy(data, policy)
        case WeightsKind.GGUF:
            return refuse_gguf(data, policy)
        case WeightsKind.XML:
            return TypeNotAllowed(
                "PMML is not accepted",
                hint="export the model to ONNX, or upload what it was made from",
            )
        case _:
            return TypeNotAllowed("this model format is not accepted", hint=f"accepted: {ACCEPTED}")
