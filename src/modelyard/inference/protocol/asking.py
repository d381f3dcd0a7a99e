"""The other side of the protocol: ask a V2 server, and read its answer as strictly as we read a question.

The outputs of an answer have the form of the inputs of a question, so the same reader checks them: names, datatypes,
shapes and sizes are those that the server's own metadata promised.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import orjson

from modelyard.domain.contract import ModelContract
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import UpstreamFailed
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.inference.protocol.answers import texts
from modelyard.inference.protocol.datatypes import MEMORY, to_raw
from modelyard.inference.protocol.reading import read_infer
from modelyard.inference.protocol.request import Encoded
from modelyard.inference.protocol.signature import Signature

Array = np.ndarray[Any, Any]
Document = dict[str, Any]


class _Answer(msgspec.Struct):
    outputs: list[msgspec.Raw]


class _Described(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class _Metadata(msgspec.Struct):
    platform: str = ""
    inputs: list[_Described] = []
    outputs: list[_Described] = []


class _Server(msgspec.Struct):
    extensions: list[str] = []


def answer_signature(name: str, contract: ModelContract) -> Signature:
    """What reads the answers of a server with this contract. NaN is an answer like any other."""
    outputs = tuple(replace(spec, allows_nan=True, categories=None) for spec in contract.outputs)
    return Signature(name, ModelContract(inputs=outputs, outputs=(), max_batch_size=contract.max_batch_size))


def write_question(inputs: Mapping[str, Array], contract: ModelContract, *, binary: bool) -> Encoded:
    """A V2 request for all outputs, in binary where the server takes it."""
    tensors: list[Document] = []
    tails: list[bytes] = []
    for spec in contract.inputs:
        array = inputs[spec.name]
        tensor: Document = {"name": spec.name, "shape": list(array.shape), "datatype": spec.datatype.value}
        if binary:
            tails.append(to_raw(array, spec.datatype))
            tensor["parameters"] = {"binary_data_size": len(tails[-1])}
        elif spec.datatype is DataType.BYTES:
            tensor["data"] = texts(array, spec.name)
        else:
            kind = MEMORY[spec.datatype]
            tensor["data"] = np.ascontiguousarray(array if array.dtype == kind else array.astype(kind)).ravel()
        tensors.append(tensor)
    document: Document = {"inputs": tensors}
    if binary:
        document["parameters"] = {"binary_data_output": True}
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Encoded(body + b"".join(tails), len(body)) if binary else Encoded(body)


def read_answer(body: bytes, json_size: int | None, reader: Signature) -> dict[str, Array]:
    """The outputs of a V2 answer, one array each.

    Raises:
        UpstreamFailed: it is no answer, or not the one that the server's metadata promised.
    """
    size = len(body) if json_size is None else json_size
    try:
        tensors = msgspec.json.decode(body[:size], type=_Answer).outputs
        document = b'{"inputs":[' + b",".join(map(bytes, tensors)) + b"]}"
        tail = body[size:]
        return read_infer(document + tail, json_size=len(document) if tail else None, signature=reader).inputs
    except msgspec.MsgspecError as error:
        raise UpstreamFailed("the upstream's answer is no V2 answer") from error
    except ModelyardError as error:
        raise UpstreamFailed(f"the upstream's answer is not what its metadata promises: {error.detail}") from error


def read_described(body: bytes) -> tuple[str, ModelContract]:
    """Platform and contract in a V2 model metadata document.

    A batch axis is taken to be there where the first dimension of every tensor varies; how many rows may stand in one
    request is the server's business.

    Raises:
        UpstreamFailed: it is none, or says nothing of inputs and outputs.
    """
    try:
        found = msgspec.json.decode(body, type=_Metadata)
        inputs, outputs = _specs(found.inputs), _specs(found.outputs)
    except (msgspec.MsgspecError, ValueError) as error:
        raise UpstreamFailed(f"the upstream's metadata cannot be used: {str(error)[:200]}") from error
    if not inputs or not outputs:
        raise UpstreamFailed(
            "the upstream does not say what its model takes and gives", hint="say it in upstream.inputs and .outputs"
        )
    return found.platform, contract_of(inputs, outputs)


def contract_of(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> ModelContract:
    """The contract of a model elsewhere with these tensors."""
    batched = all(spec.shape[:1] == (-1,) for spec in (*inputs, *outputs))
    return ModelContract(inputs=inputs, outputs=outputs, max_batch_size=1 if batched else 0)


def takes_binary(body: bytes) -> bool:
    """Whether a V2 server metadata document lists the binary tensor data extension."""
    try:
        return "binary_tensor_data" in msgspec.json.decode(body, type=_Server).extensions
    except msgspec.MsgspecError:
        return False


def _specs(described: list[_Described]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=one.name, datatype=DataType(one.datatype), shape=tuple(one.shape), allows_nan=True)
        for one in described
    )
