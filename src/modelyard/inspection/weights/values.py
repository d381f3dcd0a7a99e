"""Whether all floating-point weights are finite, looked at in chunks of a few megabytes."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import WeightsValues
from modelyard.inspection.weights.safetensors import ITEM_BITS, Tensor

_CHUNK: Final = 4 * 1024 * 1024

Bits = npt.NDArray[np.unsignedinteger]


def _exponent_full(mask: int) -> Callable[[Bits], npt.NDArray[np.bool_]]:
    return lambda bits: (bits & mask) == mask


_NOT_FINITE: Final[Mapping[str, tuple[str, Callable[[Bits], npt.NDArray[np.bool_]]]]] = {
    "F64": ("<u8", _exponent_full(0x7FF0_0000_0000_0000)),
    "F32": ("<u4", _exponent_full(0x7F80_0000)),
    "C64": ("<u4", _exponent_full(0x7F80_0000)),
    "F16": ("<u2", _exponent_full(0x7C00)),
    "BF16": ("<u2", _exponent_full(0x7F80)),
    "F8_E5M2": ("u1", _exponent_full(0x7C)),
    "F8_E4M3": ("u1", _exponent_full(0x7F)),
}


def require_finite(path: Path, tensors: Iterable[Tensor]) -> int:
    """How many bytes were looked at; `WeightsValues` names the first tensor that holds NaN or infinity."""
    seen = 0
    buffer = bytearray(_CHUNK)
    with path.open("rb", buffering=0) as stream:
        for tensor in tensors:
            if tensor.dtype in _NOT_FINITE:
                _scan(stream, tensor, buffer)
                seen += tensor.end - tensor.begin
    return seen


def _scan(stream: BinaryIO, tensor: Tensor, buffer: bytearray) -> None:
    kind, is_bad = _NOT_FINITE[tensor.dtype]
    stream.seek(tensor.begin)
    left, done = tensor.end - tensor.begin, 0
    while left:
        size = _fill(stream, memoryview(buffer)[: min(left, _CHUNK)])
        bad = is_bad(np.frombuffer(buffer, dtype=kind, count=size * 8 // (8 * np.dtype(kind).itemsize)))
        if bad.any():
            where = done + int(bad.argmax())
            raise WeightsValues(
                f"tensor {quote(tensor.name)} holds NaN or infinity, first at element {where}",
                hint="look at the training run: the weights diverged, or the file was damaged",
                details=[{"field": quote(tensor.name), "row": where}],
            )
        left -= size
        done += size * 8 // ITEM_BITS[tensor.dtype]


def _fill(stream: BinaryIO, view: memoryview) -> int:
    """Fill all of `view`: the structure check has seen that the bytes are there."""
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]  # RawIOBase has it, BinaryIO does not say so
        if not count:
            raise EOFError("the file became shorter while it was read")
        filled += count
    return filled
