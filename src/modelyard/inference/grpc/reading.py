"""A ModelInferRequest as the request that the data plane passes on.

Tensors are raw for all inputs of a message or typed for all of them (Open Inference Protocol, gRPC, "Tensor Data").
"""

from collections.abc import Mapping
from typing import Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.inference import BadBinary, BadData, InferenceInvalid
from modelyard.inference.protocol import InferRequest, Signature, read_tensors

CONTENTS: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of `InferTensorContents` that holds a datatype."""


def read_message(message: Any, signature: Signature) -> tuple[InferRequest, bool]:  # noqa: ANN401  (of protobuf)
    """The request in a ModelInferRequest, checked against the model, and whether its answer is to be raw.

    An answer has the form of its request, unless the parameter `binary_data_output` says otherwise.

    Raises:
        InferenceInvalid: as over REST, with the same codes.
        NotSupported: it asks for sequences or shared memory.
    """
    raw = message.raw_input_contents
    tensors = _raw_tensors(message, raw, signature) if raw else [_typed(each, signature) for each in message.inputs]
    parameters = plain(message.parameters, "parameters", signature) if message.parameters else {}
    answers_raw = bool(parameters.get("binary_data_output", bool(raw)))
    if parameters or signature.has_bf16_output:
        # what JSON cannot carry is no matter here: an answer with BF16 in it is raw
        parameters = {**parameters, "binary_data_output": _flag(parameters)}
    outputs = [
        {"name": each.name, "parameters": plain(each.parameters, f"outputs.{each.name}.parameters", signature)}
        for each in message.outputs
    ]
    request = read_tensors(tensors, id=message.id or None, parameters=parameters, outputs=outputs, signature=signature)
    return request, answers_raw


def varint(value: int) -> bytes:
    """A number of 0 or more as Protocol Buffers write it."""
    out = bytearray()
    while value >= 0x80:  # noqa: PLR2004  (seven bits an octet)
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def plain(parameters: Any, field: str, signature: Signature) -> dict[str, Any]:  # noqa: ANN401  (a protobuf map)
    """Parameters as plain values.

    Raises:
        InferenceInvalid: one has no value.
    """
    values: dict[str, Any] = {}
    for name, parameter in parameters.items():
        chosen = parameter.WhichOneof("parameter_choice")
        if chosen is None:
            raise signature.refusal(
                InferenceInvalid,
                f"the parameter {quote(name)} of {quote(field)} has no value",
                field=quote(name),
                expected="one of bool_param, int64_param, string_param, double_param, uint64_param",
            )
        values[name] = getattr(parameter, chosen)
    return values


def _flag(parameters: Mapping[str, Any]) -> object:
    """True, or the caller's value when it is no boolean, so that it is refused as over REST."""
    given = parameters.get("binary_data_output", True)
    return True if isinstance(given, bool) else given


def _raw_tensors(message: Any, raw: Any, signature: Signature) -> list[dict[str, Any]]:  # noqa: ANN401  (of protobuf)
    inputs = message.inputs
    if len(raw) != len(inputs):
        raise signature.refusal(
            BadBinary,
            f"raw_input_contents has {len(raw)} elements for {len(inputs)} inputs",
            field="raw_input_contents",
            expected=f"{len(inputs)} elements",
            received=f"{len(raw)} elements",
        )
    tensors = [_head(each, data, signature) for each, data in zip(inputs, raw, strict=True)]
    for each in inputs:
        if each.HasField("contents") and each.contents.ListFields():
            raise signature.refusal(
                BadBinary,
                f"{quote(each.name)} has contents beside raw_input_contents, which exclude each other",
                input=quote(each.name),
                expected="one of them for all inputs",
            )
    return tensors


def _typed(tensor: Any, signature: Signature) -> dict[str, Any]:  # noqa: ANN401  (of protobuf)
    filled = tensor.contents.ListFields() if tensor.HasField("contents") else []
    wanted = CONTENTS.get(tensor.datatype)
    for field, _ in filled:
        if wanted is not None and field.name != wanted:
            raise signature.refusal(
                BadData,
                f"{quote(tensor.name)} is {tensor.datatype}, whose values belong in {wanted}, not in {field.name}",
                input=quote(tensor.name),
                expected=wanted,
                received=field.name,
            )
    return _head(tensor, list(filled[0][1]) if filled else [], signature)


def _head(tensor: Any, data: object, signature: Signature) -> dict[str, Any]:  # noqa: ANN401  (of protobuf)
    document: dict[str, Any] = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "data": data,
    }
    if tensor.parameters:
        document["parameters"] = plain(tensor.parameters, f"inputs.{tensor.name}.parameters", signature)
    return document
