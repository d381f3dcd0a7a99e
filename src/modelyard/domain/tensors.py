"""Datatypes and tensor specifications in the terms of the Open Inference Protocol V2."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class DataType(StrEnum):
    """V2 datatypes (Open Inference Protocol, "Tensor Data Types"). BF16 exists in raw form only."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BF16 = "BF16"
    BYTES = "BYTES"

    @property
    def item_bytes(self) -> int | None:
        """Size of one element in bytes; None for BYTES, whose elements carry their own length."""
        return _ITEM_BYTES[self]

    @property
    def is_float(self) -> bool:
        """Whether NaN and infinity are representable."""
        return self in {DataType.FP16, DataType.FP32, DataType.FP64, DataType.BF16}


_ITEM_BYTES: Final[dict[DataType, int | None]] = {
    DataType.BOOL: 1,
    DataType.UINT8: 1,
    DataType.UINT16: 2,
    DataType.UINT32: 4,
    DataType.UINT64: 8,
    DataType.INT8: 1,
    DataType.INT16: 2,
    DataType.INT32: 4,
    DataType.INT64: 8,
    DataType.FP16: 2,
    DataType.FP32: 4,
    DataType.FP64: 8,
    DataType.BF16: 2,
    DataType.BYTES: None,
}

VARIABLE: Final = -1
"""A dimension that each request chooses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of a model.

    `shape` has the batch axis first where the model has one; -1 is variable. `categories` are the values a BYTES or
    integer input may take when the model refuses others; None means any. `allows_nan` says whether NaN is a value the
    model was made for (missing values); where it is false, NaN is refused with the row it stands in.
    """

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    categories: tuple[str, ...] | None = None
    allows_nan: bool = False
