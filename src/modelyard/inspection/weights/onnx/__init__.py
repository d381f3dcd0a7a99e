"""ONNX: an own bounded walk over the protobuf bytes, before any protobuf library sees them."""

from modelyard.inspection.weights.onnx.model import OnnxFacts, read_onnx

__all__ = ["OnnxFacts", "read_onnx"]
