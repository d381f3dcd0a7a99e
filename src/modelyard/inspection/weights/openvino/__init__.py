"""OpenVINO's intermediate representation: a graph in XML, its constants in a `.bin` file beside it."""

from modelyard.inspection.weights.openvino.graph import IrFacts, IrTensor, read_openvino

__all__ = ["IrFacts", "IrTensor", "read_openvino"]
