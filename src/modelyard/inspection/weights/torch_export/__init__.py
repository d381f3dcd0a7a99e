"""PyTorch's `pt2` (torch.export): a zip with a graph in JSON and tensors as plain bytes, read without torch."""

from modelyard.inspection.weights.torch_export.archive import ProgramFacts, ProgramTensor, read_torch_export

__all__ = ["ProgramFacts", "ProgramTensor", "read_torch_export"]
