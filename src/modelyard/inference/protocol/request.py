"""A prediction request as the data plane passes it on, and the answer as it leaves."""

from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

Array = np.ndarray[Any, Any]

MAX_ID: Final = 1024
"""Characters of a request id; longer ones are refused, since the answer repeats them."""

MAX_CLASSES: Final = 1000
"""Largest `classification` that can be asked for."""


class Wanted(NamedTuple):
    """An output that the caller asked for. `classes` is the k of the classification extension, 0 without it."""

    name: str
    binary: bool
    classes: int = 0


class InferRequest(msgspec.Struct):
    """What a request asks, checked against the model.

    `inputs` holds one array an input in the contract's shape; arrays may be views of the body and read-only. `rows` is
    the size of the batch axis, 1 where the model has none. `wanted` None means all outputs, in binary form when
    `binary_default`. `priority` and `timeout_us` are 0 when not given (Triton, schedule_policy extension).
    """

    inputs: dict[str, Array]
    rows: int
    id: str | None = None
    wanted: tuple[Wanted, ...] | None = None
    parameters: dict[str, Any] = {}
    priority: int = 0
    timeout_us: int = 0
    binary_default: bool = False


class Encoded(NamedTuple):
    """An answer's body; `json_size` is the Inference-Header-Content-Length of a binary answer, None for plain JSON."""

    body: bytes
    json_size: int | None = None
