"""Reading V2 requests: quickly where the body has the common form, carefully everywhere else.

The quick path answers only with a request, never with a refusal: whatever it does not like goes to `careful`, so there
is one judge and the two cannot disagree about what is refused.
"""

import math
import struct
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import UNSET

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.inference import BadBinary, InferenceInvalid
from modelyard.domain.tensors import DataType
from modelyard.inference.protocol.careful import binary_array, load_document, read_document
from modelyard.inference.protocol.options import apply_options
from modelyard.inference.protocol.request import InferRequest
from modelyard.inference.protocol.signature import Input, Signature
from modelyard.inference.protocol.wire import BINARY, RequestDocument, strings_beside_inputs

Array = np.ndarray[Any, Any]
_SNIFFED: Final = 256
"""How far into a body to look for nested data before choosing a decoder; a wrong choice costs time, nothing else."""
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, OverflowError, struct.error, ValueError, RecursionError)


def read_infer(body: bytes, *, json_size: int | None, signature: Signature) -> InferRequest:
    """The request in `body`, checked against the model.

    Args:
        body: the whole HTTP body.
        json_size: Inference-Header-Content-Length; None when the header was not sent, 0 for a raw body.
        signature: the model's.

    Raises:
        InferenceInvalid: the request cannot be given to the model; one class a kind of trouble.
        NotSupported: it asks for sequences or shared memory.
    """
    if json_size is None:
        request = _quick_json(body, signature)
        return request if request is not None else read_document(load_document(body, signature), None, signature)
    if not 0 <= json_size <= len(body):
        raise signature.refusal(
            BadBinary,
            "Inference-Header-Content-Length is not a size within the body",
            expected=f"0 to {len(body)}",
            received=str(json_size)[:24],
        )
    if json_size == 0:
        return _raw(body, signature)
    text = body[:json_size]
    request = _quick_binary(text, body, signature)
    if request is None:
        request = read_document(load_document(text, signature), body[json_size:], signature)
    return request


def parse_json_size(value: bytes) -> int:
    """The value of the header Inference-Header-Content-Length; `BadBinary` when it is no plain decimal number."""
    if not value.isdigit() or len(value) > 18:  # noqa: PLR2004  (fits 63 bits)
        raise BadBinary(
            "Inference-Header-Content-Length must be a whole number of bytes",
            hint="send the size of the JSON part, or leave the header out for a JSON body",
            details=[{"field": "Inference-Header-Content-Length", "expected": "digits", "received": quote(value[:24])}],
        )
    return int(value)


def _quick_json(body: bytes, signature: Signature) -> InferRequest | None:
    if body.find(b"\\") >= 0:
        return None
    nested = body.find(b"[[", 0, _SNIFFED) >= 0
    try:
        try:
            document = (signature.nested if nested else signature.flat).decode(body)
        except msgspec.ValidationError:
            nested = not nested
            document = (signature.nested if nested else signature.flat).decode(body)
        tensors = document.inputs
        one = signature.single
        if one is not None and len(tensors) == 1 and not nested:
            tensor = tensors[0]
            array = _quick_row(tensor, one)
            if array is not None:
                strings = 6 if tensor.parameters is UNSET else 7
                strings += array.size if signature.is_text else 0
                rows = tensor.shape[0] if signature.batched else 1
                return _finish(document, {one.name: array}, rows, strings=strings, text=body, signature=signature)
        taken = _quick_tensors(tensors, nested, signature)
        if taken is None:
            return None
        arrays, rows, strings = taken
        return _finish(document, arrays, rows, strings=strings, text=body, signature=signature)
    except _UNREADABLE:
        return None


def _quick_row(tensor: Any, one: Input) -> Array | None:  # noqa: ANN401  (a Tensor of the signature's decoder)
    """The data of a model's only input where all that varies is the number of rows."""
    shape = tuple(tensor.shape)
    count = one.counts.get(shape)
    if count is None:
        fitted = one.fit(shape)
        if fitted is None:
            return None
        count = math.prod(fitted)
        one.remember(shape, count)
    data = tensor.data
    if len(data) != count or tensor.name != one.name or tensor.datatype != one.datatype or tensor.parameters:
        return None
    if one.is_plain and len(shape) == one.rank:
        return one.pack(data, shape)
    fitted = one.fit(shape)
    return None if fitted is None else _quick_array(data, False, shape=fitted, one=one)  # noqa: FBT003


def _quick_tensors(
    tensors: list[Any],
    nested: bool,  # noqa: FBT001  (the hot path passes by position)
    signature: Signature,
) -> tuple[dict[str, Array], int, int] | None:
    """Arrays, rows, and the keys and texts that the tensors account for."""
    rows, strings = -1, 6 * len(tensors)
    arrays: dict[str, Array] = {}
    for tensor in tensors:
        one = signature.inputs.get(tensor.name)
        if one is None or tensor.datatype != one.datatype or tensor.parameters:
            return None
        shape = one.fit(tensor.shape)
        if shape is None or (rows >= 0 and signature.rows_of(shape) != rows):
            return None
        rows = signature.rows_of(shape)
        strings += tensor.parameters is not UNSET
        array = _quick_array(*_typed(tensor.data, one, nested, signature), one=one, shape=shape)
        if array is None:
            return None
        strings += array.size if one.kind is DataType.BYTES else 0
        arrays[tensor.name] = array
    return (arrays, rows, strings) if len(arrays) == len(tensors) == len(signature.inputs) else None


def _typed(data: Any, one: Input, nested: bool, signature: Signature) -> tuple[list[Any], bool]:  # noqa: ANN401, FBT001
    """The values, and whether they are nested."""
    if not signature.is_raw:
        return data, nested
    try:
        return one.flat.decode(data), False
    except msgspec.ValidationError:
        return one.nested.decode(data), one.rank > 1


def _quick_array(data: list[Any], nested: bool, *, shape: tuple[int, ...], one: Input) -> Array | None:  # noqa: FBT001
    """Typed JSON values as an array; None where only the careful reading can tell."""
    if nested and len(shape) > 1:
        for size in shape[1:]:
            if any(len(value) != size for value in data):
                return None
            data = [item for value in data for item in value] if len(data) > 1 else data[0]
    if len(data) != math.prod(shape):
        return None
    if one.kind is DataType.BYTES:
        encoded = [value.encode() for value in data]
        if one.allowed is not None and not one.allowed.issuperset(encoded):
            return None
        array: Array = np.empty(len(encoded), dtype=object)
        array[:] = encoded
        return array.reshape(shape)
    if one.allowed is not None or one.kind is DataType.BF16:
        return None
    return one.pack(data, shape)


def _quick_binary(text: bytes, body: bytes, signature: Signature) -> InferRequest | None:
    try:
        document = BINARY.decode(text)
        if len(document.inputs) != len(signature.inputs) or b"\\" in text:
            return None
        rows, at, strings = -1, len(text), 5 * len(document.inputs)
        arrays: dict[str, Array] = {}
        for tensor in document.inputs:
            one = signature.inputs.get(tensor.name)
            size = tensor.parameters.get("binary_data_size")
            if (
                one is None
                or tensor.datatype != one.datatype
                or tensor.data is not UNSET
                or len(tensor.parameters) != 1
            ):
                return None
            shape = one.fit(tensor.shape)
            if shape is None or type(size) is not int or not 0 <= size <= len(body) - at:
                return None
            if rows >= 0 and signature.rows_of(shape) != rows:
                return None
            rows = shape[0] if signature.batched else 1
            strings += 2
            array = _quick_raw(body[at : at + size], shape, one)
            if array is None:
                return None
            arrays[tensor.name] = array
            at += size
        if at != len(body) or len(arrays) != len(document.inputs):
            return None
    except _UNREADABLE:
        return None
    return _finish(document, arrays, rows, strings=strings, text=text, signature=signature)


def _quick_raw(data: bytes, shape: tuple[int, ...], one: Input) -> Array | None:
    """Raw data as an array; None where each value needs a look, or where the size is wrong."""
    if not one.is_plain or one.allows_nan or one.kind is DataType.BOOL:
        return None
    if len(data) != math.prod(shape) * one.dtype.itemsize:
        return None
    array: Array = np.ndarray(shape, one.dtype, data)
    return None if one.is_finite and not np.isfinite(array).all() else array


def _finish(
    document: RequestDocument, arrays: dict[str, Array], rows: int, *, strings: int, text: bytes, signature: Signature
) -> InferRequest | None:
    is_bare = document.id is UNSET and document.parameters is UNSET and document.outputs is UNSET
    strings += 1 if is_bare else strings_beside_inputs(document)
    # data has no marks unless it is text, and mostly comes last: looking back for the last mark spares the count
    if text.count(b'"', 0, text.rfind(b'"') + 1) != 2 * strings:
        return None
    if len(arrays) > 1:
        arrays = {name: arrays[name] for name in signature.inputs}
    request = InferRequest(arrays, rows)
    if is_bare and not signature.has_bf16_output:
        return request
    parameters, outputs = document.parameters, document.outputs
    listed = None if outputs is UNSET or outputs is None else [_plain(output) for output in outputs]
    apply_options(
        request,
        signature,
        id=None if document.id is UNSET else document.id,
        parameters=None if parameters is UNSET else parameters,
        outputs=listed,
    )
    return request


def _plain(output: Any) -> dict[str, Any]:  # noqa: ANN401  (an OutputDocument)
    return {"name": output.name, "parameters": None if output.parameters is UNSET else output.parameters}


def _raw(body: bytes, signature: Signature) -> InferRequest:
    """A raw body: header length 0, the data of the one input (V2 binary tensor data extension, raw binary request).

    The sizes are worked out: one open dimension follows from the data; with more, the batch is one. A BYTES body is one
    element without a length. The answer is binary.
    """
    one = signature.single
    if one is None or sum(size < 0 for size in one.shape[signature.batched :]) > 1:
        raise signature.refusal(
            InferenceInvalid,
            "a raw body (Inference-Header-Content-Length: 0) needs a model with one input of one open size",
            hint="send JSON, or JSON with binary tensors behind it",
            expected="one input",
            received=f"{len(signature.inputs)} inputs",
        )
    if one.kind is DataType.BYTES:
        body = struct.pack("<I", len(body)) + body
        shape = [abs(size) for size in one.shape]
    else:
        shape = list(one.shape)
        if shape.count(-1) > 1:
            shape[0] = 1
        fixed = math.prod(size for size in shape if size >= 0) * (one.kind.item_bytes or 1)
        shape = [max(len(body) // fixed, 1) if size < 0 else size for size in shape]
    array = binary_array(body, tuple(shape), one, signature)
    return InferRequest({one.name: array}, signature.rows_of(array.shape), binary_default=True)
