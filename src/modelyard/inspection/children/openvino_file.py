"""The route of OpenVINO models: the contract is read off the graph here; the library only loads what was checked.

Both files are served byte for byte. Where the library is not installed, the upload is refused with the way to it,
before anything is kept that could not be served.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import TypeNotAllowed, WeightsFormat
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.inspection.children.model_contract import Knowledge, agree, finish
from modelyard.inspection.children.packaging import Work, copy_file, timed
from modelyard.inspection.octets import mapped
from modelyard.inspection.policy import InspectionPolicy
from modelyard.inspection.weights.openvino import IrTensor, read_openvino

ENTRY: Final = "model.xml"
CONSTANTS: Final = "model.bin"
_DATATYPES: Final = {
    "FP16": DataType.FP16, "FP32": DataType.FP32, "FP64": DataType.FP64, "I8": DataType.INT8, "I16": DataType.INT16,
    "I32": DataType.INT32, "I64": DataType.INT64, "U8": DataType.UINT8, "U16": DataType.UINT16, "U32": DataType.UINT32,
    "U64": DataType.UINT64, "BOOL": DataType.BOOL,
}  # fmt: skip


def convert_openvino(work: Work) -> None:
    """Package an uploaded OpenVINO model."""
    with timed(work.channel, "openvino.library") as found:
        if find_spec("openvino") is None:
            raise TypeNotAllowed(
                "OpenVINO models are served by OpenVINO, which is not installed here",
                hint="pip install 'modelyard[openvino]', or export the model to ONNX",
            )
        found.summary = "it is installed"
    constants = work.directory / f"{Path(work.weights).stem}.bin"
    size = constants.stat().st_size if constants.is_file() else None
    with mapped(work.weights_path) as data:
        facts = read_openvino(data, constants_size=size, policy=InspectionPolicy())
    with timed(work.channel, "model.contract") as found:
        inputs, outputs = tuple(map(_spec, facts.inputs)), tuple(map(_spec, facts.outputs))
        contract = agree(work, inputs, outputs, Knowledge(), found).contract
    copy_file(work.weights_path, work.out / ENTRY)
    if size is not None:
        copy_file(constants, work.out / CONSTANTS)
    finish(work, work.package(contract, entry=ENTRY, runtime="openvino"))


def _spec(tensor: IrTensor) -> TensorSpec:
    kind = _DATATYPES.get(tensor.precision)
    if kind is None:
        raise WeightsFormat(
            f"{quote(tensor.name)} has elements of {quote(tensor.precision)}, which requests cannot carry",
            hint="convert the model with inputs and outputs of float32",
        )
    return TensorSpec(name=tensor.name, datatype=kind, shape=tensor.shape)
