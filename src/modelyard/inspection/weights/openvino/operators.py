"""Which layers an OpenVINO graph may hold, and the element types of its tensors."""

from collections.abc import Mapping
from typing import Final

OPSETS: Final = frozenset(f"opset{number}" for number in range(1, 18))
"""Operators of the published sets. Layers of any other version come from an extension library, which is native code."""

STATEFUL: Final = frozenset({"Assign", "ReadValue"})
"""Layers that remember: one caller's request would change the next caller's answer."""

BODIES: Final = frozenset({"TensorIterator", "Loop", "If"})
"""Layers that hold graphs of their own."""

_NAMES: Final = """
Abs Acos Acosh AdaptiveAvgPool AdaptiveMaxPool Add Asin Asinh Atan Atanh AvgPool BatchNormInference BatchToSpace
BinaryConvolution BitwiseAnd BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor Broadcast Bucketize
CTCGreedyDecoder CTCGreedyDecoderSeqLen CTCLoss Ceiling Clamp Col2Im Concat Const Convert ConvertLike
ConvertPromoteTypes Convolution ConvolutionBackpropData Cos Cosh CumSum DFT DeformableConvolution
DeformablePSROIPooling DepthToSpace DetectionOutput Divide Einsum Elu EmbeddingBagOffsets EmbeddingBagOffsetsSum
EmbeddingBagPacked EmbeddingBagPackedSum EmbeddingSegmentsSum Equal Erf Exp ExperimentalDetectronDetectionOutput
ExperimentalDetectronGenerateProposalsSingleImage ExperimentalDetectronPriorGridGenerator
ExperimentalDetectronROIFeatureExtractor ExperimentalDetectronTopKROIs ExtractImagePatches Eye FakeConvert
FakeQuantize Floor FloorMod GRN GRUCell GRUSequence Gather GatherElements GatherND GatherTree Gelu GenerateProposals
Greater GreaterEqual GridSample GroupConvolution GroupConvolutionBackpropData GroupNormalization HSigmoid HSwish
HardSigmoid I420toBGR I420toRGB IDFT IRDFT ISTFT Identity Interpolate Inverse IsFinite IsInf IsNaN LRN LSTMCell
LSTMSequence Less LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr LogicalXor MVN MatMul MatrixNms MaxPool
Maximum Minimum Mish Mod MulticlassNms Multinomial Multiply NMSRotated NV12toBGR NV12toRGB Negative NonMaxSuppression
NonZero NormalizeL2 NotEqual OneHot PReLU PRelu PSROIPooling Pad Parameter Power PriorBox PriorBoxClustered Proposal
RDFT RNNCell RNNSequence ROIAlign ROIAlignRotated ROIPooling RandomUniform Range ReLU Relu ReduceL1 ReduceL2
ReduceLogicalAnd ReduceLogicalOr ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum RegionYolo ReorgYolo Reshape
Result Reverse ReverseSequence Roll Round STFT ScaledDotProductAttention ScatterElementsUpdate ScatterNDUpdate
ScatterUpdate SearchSorted SegmentMax Select Selu ShapeOf ShuffleChannels Sigmoid Sign Sin Sinh Slice SliceScatter
SoftMax SoftPlus SoftSign Softmax SpaceToBatch SpaceToDepth SparseFillEmptyRows Split Sqrt SquaredDifference Squeeze
StridedSlice Subtract Swish Tan Tanh Tile TopK Transpose Unique Unsqueeze VariadicSplit
"""
OPERATORS: Final = BODIES | frozenset(_NAMES.split())
"""They compute from their inputs and constants only: no files, no network, no state."""

ELEMENT_BITS: Final[Mapping[str, int]] = {
    "boolean": 8, "i4": 4, "u4": 4, "u1": 1, "u2": 2, "u3": 3, "u6": 6, "nf4": 4, "f4e2m1": 4, "f8e4m3": 8, "f8e5m2": 8,
    "f8e8m0": 8, "i8": 8, "u8": 8, "i16": 16, "u16": 16, "f16": 16, "bf16": 16, "i32": 32, "u32": 32, "f32": 32,
    "i64": 64, "u64": 64, "f64": 64,
}  # fmt: skip
"""`element_type` of a constant → bits of an element. Text constants (`string`) are not taken."""
