"""What the quick path reads: typed documents whose decoders are built once a model.

A typed decoder checks syntax, types and nesting as it reads. What it does not see is a key that stands twice, or one it
does not know. Both show in the number of quotation marks: without a backslash in the body every `"` begins or ends a
string, so a body whose marks are exactly those of the keys and texts that were taken holds nothing else.
"""

from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from modelyard.domain.tensors import DataType

Scalar = bool | int | float | str
Parameters = dict[str, Scalar] | UnsetType | None


class OutputDocument(msgspec.Struct):
    """A requested output."""

    name: str
    parameters: Parameters = UNSET


class RequestDocument(msgspec.Struct):
    """What all requests have beside their inputs."""

    id: str | UnsetType | None = UNSET
    parameters: Parameters = UNSET
    outputs: list[OutputDocument] | UnsetType | None = UNSET


class BinaryTensor(msgspec.Struct):
    """An input whose data lies behind the document."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Scalar]
    data: UnsetType | None = UNSET


class BinaryRequest(RequestDocument, kw_only=True):
    """A request with all its data behind the document."""

    inputs: list[BinaryTensor]


def element_type(datatype: DataType) -> type:
    """The JSON type of one element."""
    if datatype is DataType.BYTES:
        return str
    if datatype is DataType.BOOL:
        return bool
    return float if datatype.is_float else int


def request_decoder(data: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401  (a type expression)
    """A decoder for requests whose inputs have `data` of one type."""
    tensor = msgspec.defstruct(
        "Tensor",
        [("name", str), ("shape", list[int]), ("datatype", str), ("data", data), ("parameters", Parameters, UNSET)],
    )
    request = msgspec.defstruct("Request", [("inputs", list[tensor])], bases=(RequestDocument,), kw_only=True)  # type: ignore[valid-type]
    return msgspec.json.Decoder(request)


def list_type(element: Any, rank: int) -> Any:  # noqa: ANN401  (type expressions)
    """`list[list[… element]]`, `rank` deep."""
    for _ in range(max(rank, 1)):
        element = list[element]
    return element


BINARY: Final = msgspec.json.Decoder(BinaryRequest)
RAW: Final = request_decoder(Raw)


def strings_of(parameters: dict[str, Scalar] | None) -> int:
    """Keys and texts in a `parameters` object, its own key included."""
    if not parameters:
        return 1
    return 1 + len(parameters) + sum(isinstance(value, str) for value in parameters.values())


def strings_beside_inputs(document: RequestDocument) -> int:
    """Keys and texts of a request, without those in its inputs."""
    count = 1
    if document.id is not UNSET:
        count += 1 if document.id is None else 2
    if document.parameters is not UNSET:
        count += strings_of(document.parameters)
    if document.outputs is not UNSET:
        count += 1
        for output in document.outputs or ():
            count += 2
            if output.parameters is not UNSET:
                count += strings_of(output.parameters)
    return count
