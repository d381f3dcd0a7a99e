"""What a request asks beside its inputs: id, outputs, parameters. One reading for every path."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.inference import BadDatatype, InferenceInvalid, UnknownOutput
from modelyard.domain.errors.platform import NotSupported
from modelyard.domain.tensors import DataType
from modelyard.inference.protocol.request import MAX_CLASSES, MAX_ID, InferRequest, Wanted
from modelyard.inference.protocol.signature import Signature, closest

_SEQUENCE: Final = ("sequence_id", "sequence_start", "sequence_end")
_MAX_PRIORITY: Final = 2**32 - 1
_MAX_TIMEOUT: Final = 2**53


def apply_options(
    request: InferRequest,
    signature: Signature,
    *,
    id: object,  # noqa: A002  (the protocol's word)
    parameters: object,
    outputs: object,
) -> None:
    """Check the three optional members, already plain values, and set them on `request`.

    Raises:
        InferenceInvalid: of the wrong type, too long, repeated.
        UnknownOutput: an output that the model does not have.
        NotSupported: sequences and shared memory, which this server does not offer.
    """
    if id is not None:
        if not isinstance(id, str) or len(id) > MAX_ID:
            raise signature.refusal(
                InferenceInvalid,
                f"id must be a text of at most {MAX_ID} characters",
                field="id",
                expected=f"text, at most {MAX_ID} characters",
                received=f"{len(id)} characters" if isinstance(id, str) else kind_of(id),
            )
        request.id = id
    if parameters:
        _parameters(request, signature, check_parameters(parameters, "parameters", signature))
    elif parameters is not None and not isinstance(parameters, dict):
        check_parameters(parameters, "parameters", signature)
    if outputs is not None:
        request.wanted = _wanted(outputs, signature, binary_default=request.binary_default)
    if not request.binary_default or request.wanted is not None:
        _refuse_bf16_json(request, signature)


def check_parameters(value: object, field: str, signature: Signature) -> Mapping[str, Any]:
    """`value` as a parameters object: texts, numbers and booleans by name."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong_type(signature, field, "an object", value)
    for name, one in value.items():
        if not isinstance(one, (str, int, float)):
            raise _wrong_type(signature, f"{field}.{quote(name)}", "a text, a number or a boolean", one)
    return value


def refuse_shared_memory(parameters: Mapping[str, Any], signature: Signature) -> None:
    """Shared memory is not offered, and saying nothing would answer with other data than was meant."""
    if any(name.startswith("shared_memory_") for name in parameters):
        raise signature.refusal(NotSupported, "shared memory is not offered", hint="send the data in the body")


def _parameters(request: InferRequest, signature: Signature, values: Mapping[str, Any]) -> None:
    if any(values.get(name) not in {None, 0, ""} for name in _SEQUENCE):
        raise signature.refusal(
            NotSupported, "sequences are not offered: each request stands alone", hint="leave sequence_* out"
        )
    request.parameters = dict(values)
    request.priority = _unsigned(values.get("priority", 0), "priority", _MAX_PRIORITY, signature)
    request.timeout_us = _unsigned(values.get("timeout", 0), "timeout", _MAX_TIMEOUT, signature)
    request.binary_default = _flag(values, "binary_data_output", signature, default=False)


def _wanted(outputs: object, signature: Signature, *, binary_default: bool) -> tuple[Wanted, ...] | None:
    if not isinstance(outputs, list):
        raise _wrong_type(signature, "outputs", "a list", outputs)
    wanted: dict[str, Wanted] = {}
    for one in outputs:
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(one, dict) or not isinstance(name, str):
            raise _wrong_type(signature, "outputs", 'objects with a "name"', one)
        if name not in signature.outputs:
            raise signature.refusal(
                UnknownOutput,
                f"the model has no output {quote(name)}; {closest(name, signature.outputs)}",
                output=quote(name),
                expected=list(signature.outputs),
            )
        if name in wanted:
            raise signature.refusal(
                InferenceInvalid, f"the output {quote(name)} is asked for twice", output=name, expected="each once"
            )
        wanted[name] = _one_wanted(name, one.get("parameters"), signature, binary_default=binary_default)
    return tuple(wanted.values()) or None


def _one_wanted(name: str, parameters: object, signature: Signature, *, binary_default: bool) -> Wanted:
    if not parameters and (parameters is None or isinstance(parameters, dict)):
        return Wanted(name, binary_default)
    values = check_parameters(parameters, f"outputs.{name}.parameters", signature)
    refuse_shared_memory(values, signature)
    classes = _unsigned(values.get("classification", 0), "classification", MAX_CLASSES, signature)
    if classes and signature.outputs[name].datatype in {DataType.BYTES, DataType.BOOL}:
        raise signature.refusal(
            BadDatatype,
            f"the output {quote(name)} is {signature.outputs[name].datatype}: it has no scores to classify by",
            output=name,
            expected="an output of numbers",
        )
    return Wanted(name, _flag(values, "binary_data", signature, default=binary_default), classes)


def _refuse_bf16_json(request: InferRequest, signature: Signature) -> None:
    names = (
        signature.outputs
        if request.wanted is None
        else [o.name for o in request.wanted if not o.binary and not o.classes]
    )
    for name in names:
        if signature.outputs[name].datatype is DataType.BF16:
            raise signature.refusal(
                BadDatatype,
                f"the output {quote(name)} is BF16, which JSON cannot carry",
                hint='ask for it with "parameters": {"binary_data": true}',
                output=name,
                expected="binary_data true",
            )


def _flag(values: Mapping[str, Any], name: str, signature: Signature, *, default: bool) -> bool:
    value = values.get(name, default)
    if not isinstance(value, bool):
        raise _wrong_type(signature, name, "true or false", value)
    return value


def _unsigned(value: object, name: str, limit: int, signature: Signature) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
        raise _wrong_type(signature, name, f"a whole number from 0 to {limit}", value)
    return value


def _wrong_type(signature: Signature, field: str, expected: str, value: object) -> InferenceInvalid:
    return signature.refusal(
        InferenceInvalid,
        f"{field} must be {expected}, not {kind_of(value)}",
        field=field,
        expected=expected,
        received=kind_of(value),
    )


_KINDS: Final[Sequence[tuple[type, str]]] = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a number"),
    (str, "a text"),
    (list, "a list"),
    (dict, "an object"),
)


def kind_of(value: object) -> str:
    """What a JSON value is, in words; small numbers and booleans as themselves."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        text = str(value)
        return text if len(text) <= 24 else f"a number of {len(text)} digits"  # noqa: PLR2004
    return next(words for kind, words in _KINDS if isinstance(value, kind))
