"""Which operators an ONNX model may use, and which of them make tensors of a size that the file only states."""

from collections.abc import Mapping
from typing import Final

PLAIN_DOMAINS: Final = frozenset({b"", b"ai.onnx", b"ai.onnx.ml"})
"""Operators of the ONNX standard compute from their inputs only: no files, no network, no native code."""

MICROSOFT: Final = frozenset(
    b"Attention BiasAdd BiasGelu BiasSoftmax BiasSplitGelu DequantizeLinear DynamicQuantizeLSTM DynamicQuantizeMatMul "
    b"EmbedLayerNormalization FastGelu FusedConv FusedGemm FusedMatMul FusedMatMulActivation Gelu GemmFastGelu "
    b"GroupNorm GroupQueryAttention "
    b"Inverse MatMulBnb4 MatMulInteger16 MatMulIntegerToFloat MatMulNBits MaxpoolWithMask "
    b"MultiHeadAttention MurmurHash3 NGramRepeatBlock NhwcConv NhwcFusedConv NhwcMaxPool Pad QAttention "
    b"QEmbedLayerNormalization QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearConv QLinearGlobalAveragePool "
    b"QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere "
    b"QuantizeLinear QuickGelu "
    b"Range RotaryEmbedding SkipGroupNorm SkipLayerNormalization SkipSimplifiedLayerNormalization TransposeMatMul "
    b"Trilu Unique".split()
)
"""Of `com.microsoft`, what optimised and quantised models use; not `EPContext`, which opens files, nor search loops."""

SHAPE_INPUT: Final[Mapping[bytes, int]] = {b"ConstantOfShape": 0, b"Expand": 1}
"""Operators whose output's size is a tensor of numbers, with the input that holds it."""

SHAPE_ATTRIBUTE: Final = frozenset({b"RandomNormal", b"RandomUniform"})
"""Operators whose output's size is the attribute `shape`."""

ITEM_BITS: Final[Mapping[int, int]] = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
"""TensorProto.DataType → bits of an element; STRING (8) has none."""
STRING: Final = 8


def is_operator(domain: bytes, name: bytes) -> bool:
    """Whether the standard or the list above has it; functions of the model itself are judged elsewhere."""
    return domain in PLAIN_DOMAINS or (domain == b"com.microsoft" and name in MICROSOFT)
