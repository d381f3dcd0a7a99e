"""Models of the corpora and a few more, as signatures."""

from typing import Any

from modelyard.domain.contract import Golden, ModelContract, Task
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.inference.protocol import Signature


def spec(name: str, datatype: str, shape: tuple[int, ...], **more: Any) -> TensorSpec:
    return TensorSpec(name=name, datatype=DataType(datatype), shape=shape, **more)


def signature(
    *inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = (), golden: Golden | None = None, **more: Any
) -> Signature:
    contract = ModelContract(
        inputs=inputs, outputs=outputs or (spec("y", "FP32", (-1, 2)),), **{"max_batch_size": 10_000, **more}
    )
    return Signature("m", contract, golden)


M1 = signature(spec("x", "FP32", (-1, 3)))
M_INT8 = signature(spec("x", "INT8", (-1, 3)))
M_TWO = signature(spec("x", "FP32", (-1,)), spec("z", "FP32", (-1,)))
M_BYTES = signature(spec("x", "BYTES", (-1,)))
M_BOOL = signature(spec("x", "BOOL", (-1,)))
M_COLUMNS = signature(
    spec("age", "FP32", (-1, 1), allows_nan=True),
    spec("city", "BYTES", (-1, 1), categories=("Rome", "Oslo")),
    spec("rooms", "INT64", (-1, 1)),
    outputs=(spec("label", "BYTES", (-1,)), spec("probabilities", "FP32", (-1, 2))),
    labels=("cheap", "dear"),
    task=Task.CLASSIFICATION,
)
M_IMAGE = signature(spec("image", "FP32", (-1, 2, 2)), outputs=(spec("y", "FP32", (-1, 3)),), labels=("a", "b", "c"))
MODELS = {"m1": M1, "m_int8": M_INT8, "m_two": M_TWO, "m_bytes": M_BYTES, "m_bool": M_BOOL}
