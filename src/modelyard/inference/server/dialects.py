"""The dialects a prediction may be asked for in. Each reads a body and writes an answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modelyard.domain.errors.inference import BadBinary
from modelyard.inference.protocol import (
    Encoded,
    InferRequest,
    Signature,
    parse_json_size,
    read_generate,
    read_infer,
    read_mlflow,
    read_v1,
    write_generate,
    write_infer,
    write_mlflow,
    write_v1,
)
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
    if size is None:
        return read_infer(body, json_size=None, signature=signature)
    try:
        return read_infer(body, json_size=parse_json_size(size), signature=signature)
    except BadBinary as error:
        if error.example is None:
            error.example = signature.example
        raise


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


def _read_v1(body: bytes, fields: Fields, signature: Signature) -> InferRequest:
    return read_v1(body, signature=signature)


def _write_v1(call: InferCall, outputs: Mapping[str, Array]) -> Encoded:
    assert call.backend.signature is not None
    return write_v1(call.parsed, outputs, signature=call.backend.signature)


def _read_mlflow(body: bytes, fields: Fields, signature: Signature) -> InferRequest:
    kind = fields.get(b"content-type", b"").split(b";")[0].strip().lower()
    return read_mlflow(body, is_csv=kind == b"text/csv", signature=signature)


def _write_mlflow(call: InferCall, outputs: Mapping[str, Array]) -> Encoded:
    assert call.backend.signature is not None
    return write_mlflow(call.parsed, outputs, signature=call.backend.signature)


V1: Final = Dialect(("application/json",), _read_v1, _write_v1)
MLFLOW: Final = Dialect(("application/json", "text/csv"), _read_mlflow, _write_mlflow)


def _read_generate(body: bytes, fields: Fields, signature: Signature) -> InferRequest:
    return read_generate(body, signature=signature)


def _write_generate(call: InferCall, outputs: Mapping[str, Array]) -> Encoded:
    backend = call.backend
    assert backend.signature is not None
    return write_generate(
        call.parsed,
        outputs,
        signature=backend.signature,
        version=backend.backend.version,
        model_name=backend.key.service,
    )


GENERATE: Final = Dialect(("application/json",), _read_generate, _write_generate)
