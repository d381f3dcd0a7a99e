"""Reading a V2 request step by step: every rule, every refusal with its culprit.

The quick path takes the common forms; whatever it does not take comes here and is decided here. Order: the document,
names, datatypes, shapes, data, rows, options.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.inference import (
    BadBinary,
    BadData,
    BadDatatype,
    BadJson,
    BadShape,
    InferenceInvalid,
    MissingInput,
    ShapeMismatch,
    SizeMismatch,
    UnknownInput,
)
from modelyard.domain.tensors import DataType
from modelyard.inference.protocol.datatypes import BadFrame, from_raw, objects, unframe
from modelyard.inference.protocol.options import apply_options, check_parameters, kind_of, refuse_shared_memory
from modelyard.inference.protocol.request import InferRequest
from modelyard.inference.protocol.signature import Input, Signature, closest, count_of
from modelyard.inference.protocol.strict import load_strict
from modelyard.inference.protocol.values import array_of, check_values, size_mismatch

Array = np.ndarray[Any, Any]
_LARGEST: Final = 2**63 - 1
_MAX_RANK: Final = 32


def load_document(text: bytes, signature: Signature) -> Any:  # noqa: ANN401  (plain JSON values)
    """The body as plain JSON values; a `BadJson` carries the example."""
    try:
        return load_strict(text)
    except BadJson as error:
        error.example = signature.example
        error.hint = error.hint or "the example succeeds when sent as it stands"
        raise


def read_document(document: object, tail: bytes | None, signature: Signature) -> InferRequest:
    """The request in `document`, with the binary data behind it (None when the body is JSON alone).

    Raises:
        InferenceInvalid: see `docs/reference/inference-errors.md`.
    """
    if not isinstance(document, dict):
        raise _invalid(signature, "the body", "a JSON object", document)
    tensors = document.get("inputs")
    if not isinstance(tensors, list):
        raise _invalid(signature, '"inputs"', "a list of tensors", tensors)
    named = by_name(tensors, signature)
    rest = _Tail(tail, signature)
    arrays = {name: _tensor(tensor, signature.inputs[name], rest, signature) for name, tensor in named.items()}
    rest.finish()
    arrays = {name: arrays[name] for name in signature.inputs}
    request = InferRequest(inputs=arrays, rows=common_rows(arrays, signature))
    apply_options(
        request,
        signature,
        id=document.get("id"),
        parameters=document.get("parameters"),
        outputs=document.get("outputs"),
    )
    return request


def common_rows(arrays: Mapping[str, Array], signature: Signature) -> int:
    """The batch size that all inputs share."""
    first = next(iter(arrays))
    rows = signature.rows_of(arrays[first].shape)
    for name, array in arrays.items():
        if signature.rows_of(array.shape) != rows:
            raise signature.refusal(
                ShapeMismatch,
                f"{quote(name)} has {len(array)} rows, {quote(first)} has {rows}: all inputs need the same",
                input=name,
                expected=f"{rows} rows",
                received=f"{len(array)} rows",
            )
    return rows


def check_names(names: list[str], signature: Signature) -> None:
    """Unknown names first, since a misspelt input is also a missing one."""
    for name in names:
        if name not in signature.inputs:
            raise signature.refusal(
                UnknownInput,
                f"the model has no input {quote(name)}; {closest(name, signature.inputs)}",
                input=quote(name),
                expected=list(signature.inputs)[:32],
            )
    missing = [name for name in signature.inputs if name not in names]
    if missing:
        shown = ", ".join(quote(name) for name in missing[:8])
        raise signature.refusal(
            MissingInput,
            f"{'inputs are' if len(missing) > 1 else 'the input is'} missing: {shown}",
            input=missing[0],
            expected=list(signature.inputs)[:32],
            received=names[:32],
        )


def by_name(tensors: list[Any], signature: Signature) -> dict[str, dict[str, Any]]:
    """Input tensors by name: each known, each once, none missing."""
    named: dict[str, dict[str, Any]] = {}
    for tensor in tensors:
        name = tensor.get("name") if isinstance(tensor, dict) else None
        if not isinstance(name, str):
            raise _invalid(signature, "each input", 'an object with a "name"', tensor)
        if name in named:
            raise signature.refusal(
                InferenceInvalid, f"the input {quote(name)} is given twice", input=quote(name), expected="each once"
            )
        named[name] = tensor
    check_names(list(named), signature)
    return named


def _tensor(tensor: dict[str, Any], one: Input, tail: "_Tail", signature: Signature) -> Array:
    shape, parameters = read_head(tensor, one, signature)
    data = tensor.get("data")
    if "binary_data_size" in parameters:
        if data is not None:
            raise _broken(one, signature, "it has both data and binary_data_size", "one of them")
        return binary_array(tail.take(parameters["binary_data_size"], one), shape, one, signature)
    if data is None:
        raise signature.refusal(
            SizeMismatch, f"{quote(one.name)} has no data", input=one.name, expected=f"{count_of(shape)} values"
        )
    if one.kind is DataType.BF16:
        raise signature.refusal(
            BadDatatype,
            f"{quote(one.name)} is BF16, which JSON cannot carry",
            hint="send it as binary tensor data",
            input=one.name,
            expected="binary_data_size",
        )
    return array_of(data, shape, one, signature)


def read_head(tensor: dict[str, Any], one: Input, signature: Signature) -> tuple[tuple[int, ...], Mapping[str, Any]]:
    """Shape and parameters of an input tensor, with all that stands beside its data checked."""
    _check_datatype(tensor.get("datatype"), one, signature)
    shape = _shape(tensor.get("shape"), one, signature)
    parameters = check_parameters(tensor.get("parameters"), f"inputs.{one.name}.parameters", signature)
    refuse_shared_memory(parameters, signature)
    return shape, parameters


def _check_datatype(datatype: object, one: Input, signature: Signature) -> None:
    if datatype != one.datatype:
        received = quote(datatype) if isinstance(datatype, str) else kind_of(datatype)
        raise signature.refusal(
            BadDatatype,
            f"{quote(one.name)} is {one.datatype}, not {received}",
            input=one.name,
            expected=one.datatype,
            received=received,
        )


def _shape(value: object, one: Input, signature: Signature) -> tuple[int, ...]:
    want = list(one.shape)
    if not isinstance(value, list):
        raise _bad_shape(one, signature, f"is {kind_of(value)}, not a list of sizes", kind_of(value))
    if len(value) > _MAX_RANK:  # before the product: thousands of long sizes take seconds to multiply
        raise _bad_shape(one, signature, f"has {len(value)} dimensions", f"{len(value)} dimensions")
    for size in value:
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= _LARGEST:
            raise _bad_shape(one, signature, f"holds {kind_of(size)}, which is no size", kind_of(size))
    if count_of(value) > _LARGEST:
        raise _bad_shape(one, signature, "has more elements than can be counted", "an overflow")
    if 0 in value:
        raise _bad_shape(one, signature, "has no elements; at least one row is needed", _shown(value))
    shape = one.fit(value)
    if shape is None:
        raise signature.refusal(
            ShapeMismatch,
            f"{quote(one.name)} has the shape {_shown(value)}, the model takes {want} (-1: any size)",
            input=one.name,
            expected=want,
            received=_shown(value),
        )
    return shape


def binary_array(data: bytes, shape: tuple[int, ...], one: Input, signature: Signature) -> Array:
    """Raw tensor data of `shape`, checked."""
    if one.kind is DataType.BYTES:
        array = _byte_strings(data, shape, one, signature)
    else:
        need = count_of(shape) * (one.kind.item_bytes or 1)
        if len(data) != need:
            raise _byte_mismatch(one, signature, need=need, got=len(data), shape=shape)
        array = from_raw(data, one.kind).reshape(shape)
    if one.kind is DataType.BOOL and array.view("u1").max() > 1:
        raise signature.refusal(
            BadData,
            f"{quote(one.name)} holds a byte that is neither 0 nor 1",
            input=one.name,
            expected="0 or 1",
            row=int((array.view("u1") > 1).argmax()) // max(array.size // signature.rows_of(shape), 1),
        )
    return check_values(array, one, signature)


def _byte_strings(data: bytes, shape: tuple[int, ...], one: Input, signature: Signature) -> Array:
    try:
        elements = unframe(data)
    except BadFrame as error:
        raise _broken(one, signature, str(error), "a 4-byte length before each element") from error
    if len(elements) != count_of(shape):
        raise size_mismatch(one, signature, shape, len(elements))
    return objects(elements).reshape(shape)


def _byte_mismatch(one: Input, signature: Signature, *, need: int, got: int, shape: tuple[int, ...]) -> SizeMismatch:
    return signature.refusal(
        SizeMismatch,
        f"{quote(one.name)} has {got} bytes, {one.datatype} of shape {_shown(list(shape))} needs {need}",
        input=one.name,
        expected=f"{need} bytes",
        received=f"{got} bytes",
    )


class _Tail:
    """The bytes behind the document, taken in the order of the inputs."""

    def __init__(self, data: bytes | None, signature: Signature) -> None:
        self._data = data
        self._at = 0
        self._signature = signature

    def take(self, size: object, one: Input) -> bytes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise _broken(one, self._signature, f"binary_data_size is {kind_of(size)}", "a whole number of bytes")
        if self._data is None:
            raise _broken(
                one, self._signature, "the header Inference-Header-Content-Length is missing", "the size of the JSON"
            )
        if size > len(self._data) - self._at:
            left = len(self._data) - self._at
            raise self._signature.refusal(
                SizeMismatch,
                f"{quote(one.name)} claims {size} bytes of binary data, {left} are left in the body",
                input=one.name,
                expected=f"at most {left} bytes",
                received=f"{size} bytes",
            )
        self._at += size
        return self._data[self._at - size : self._at]

    def finish(self) -> None:
        if self._data is not None and self._at != len(self._data):
            raise self._signature.refusal(
                BadBinary,
                f"{len(self._data) - self._at} bytes of the body belong to no input",
                expected=f"{self._at} bytes behind the JSON",
                received=f"{len(self._data)} bytes",
            )


def _broken(one: Input, signature: Signature, why: str, expected: str) -> BadBinary:
    return signature.refusal(BadBinary, f"{quote(one.name)}: {why}", input=one.name, expected=expected, received=why)


def _bad_shape(one: Input, signature: Signature, why: str, received: object) -> BadShape:
    return signature.refusal(
        BadShape, f"the shape of {quote(one.name)} {why}", input=one.name, expected=list(one.shape), received=received
    )


def _shown(shape: list[int]) -> str:
    return str(shape) if len(shape) <= 8 else f"a shape of {len(shape)} dimensions"  # noqa: PLR2004


def _invalid(signature: Signature, what: str, expected: str, value: object) -> InferenceInvalid:
    received = "nothing" if value is None else kind_of(value)
    return signature.refusal(
        InferenceInvalid, f"{what} must be {expected}, not {received}", field=what, expected=expected, received=received
    )
