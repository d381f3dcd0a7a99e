"""The dialects a prediction may be asked for in. Each reads a body and writes an answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modelyard.inference.protocol import Encoded, InferRequest, Signature, parse_json_size, read_infer, write_infer
from modelyard.inference.server.call import InferCall

Array = np.ndarray[Any, Any]
Fields = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How requests are read and answers written."""

    content_types: tuple[str, ...]
    read: Callable[[bytes, Fields, Signature], InferRequest]
    write: Callable[[InferCall, Mapping[str, Array]], Encoded]


def _read_v2(body: bytes, fields: Fields, signature: Signature) -> InferRequest:
    size = fields.get(b"inference-header-content-length")
    return read_infer(body, json_size=None if size is None else parse_json_size(size), signature=signature)


def _write_v2(call: InferCall, outputs: Mapping[str, Array]) -> Encoded:
    backend = call.backend
    assert backend.signature is not None
    return write_infer(
        call.parsed,
        outputs,
        signature=backend.signature,
        version=backend.backend.version,
        model_name=backend.key.service,
    )


V2: Final = Dialect(("application/json", "application/octet-stream"), _read_v2, _write_v2)
