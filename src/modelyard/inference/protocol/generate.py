"""The generate dialect (Triton, generate extension): a flat object by input name in, one by output name out.

`{"text": "hello", "parameters": {…}}` asks with every member that is an input's name; what is no input is a parameter.
A single value stands for a tensor of one element. The answer has one member an output, single values without brackets.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from modelyard.domain.errors.inference import BadData, InferenceInvalid
from modelyard.inference.protocol.careful import load_document
from modelyard.inference.protocol.options import kind_of
from modelyard.inference.protocol.reading import read_infer
from modelyard.inference.protocol.request import Encoded, InferRequest
from modelyard.inference.protocol.signature import Signature

Array = np.ndarray[Any, Any]
_OWN: Final = ("id", "parameters")


def read_generate(body: bytes, *, signature: Signature) -> InferRequest:
    """The request in a generate body.

    Raises:
        InferenceInvalid: the request cannot be given to the model. The example is a generate body.
    """
    try:
        document = load_document(body, signature)
        if not isinstance(document, dict):
            raise signature.refusal(
                InferenceInvalid, "the body must be an object by input name", expected="{…}", received=kind_of(document)
            )
        return read_infer(_as_v2(document, signature), json_size=None, signature=signature)
    except InferenceInvalid as error:
        error.example = _example(signature)
        raise


def write_generate(
    request: InferRequest, outputs: Mapping[str, Array], *, signature: Signature, version: str, model_name: str
) -> Encoded:
    """One answer, or one part of a stream."""
    document: dict[str, Any] = {"model_name": model_name, "model_version": version}
    if request.id is not None:
        document["id"] = request.id
    for name in signature.outputs:
        document[name] = _plain(outputs[name])
    return Encoded(msgspec.json.encode(document))


def _as_v2(document: Mapping[str, Any], signature: Signature) -> bytes:
    specs = {spec.name: spec for spec in signature.contract.inputs}
    own = document.get("parameters", {})
    extra = {name: value for name, value in document.items() if name not in specs and name not in _OWN}
    whole: dict[str, Any] = {
        "inputs": [
            {"name": name, "datatype": spec.datatype.value, **_tensor(name, document[name], len(spec.shape), signature)}
            for name, spec in specs.items()
            if name in document
        ],
        "parameters": {**extra, **own} if isinstance(own, dict) else own,
    }
    if "id" in document:
        whole["id"] = document["id"]
    return msgspec.json.encode(whole)


def _tensor(name: str, value: object, rank: int, signature: Signature) -> dict[str, Any]:
    """Shape and data of a value: dimensions that are missing in front are 1."""
    shape = _shape(value)
    if shape is None:
        raise signature.refusal(BadData, f"the values of {name} are not all of one length", field=name)
    data = value if isinstance(value, list) else [value]
    return {"shape": [1] * (rank - len(shape)) + shape, "data": data}


def _shape(value: object) -> list[int] | None:
    """Sizes of nested lists; None when they differ."""
    if not isinstance(value, list):
        return []
    inner = [_shape(item) for item in value]
    if not inner:
        return [0]
    first = inner[0]
    return None if first is None or any(each != first for each in inner) else [len(value), *first]


def _plain(array: Array) -> Any:  # noqa: ANN401  (plain JSON values)
    values = array if array.ndim == 0 or len(array) != 1 else array[0]
    if array.dtype == object:
        texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in array.ravel()]
        return texts[0] if len(texts) == 1 else np.array(texts, dtype=object).reshape(values.shape).tolist()
    if array.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, np.nan)
        listed = _without_nan(values.tolist())
    else:
        listed = values.tolist()
    while isinstance(listed, list) and len(listed) == 1:
        listed = listed[0]
    return listed


def _without_nan(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if value != value else value  # noqa: PLR0124  (only NaN differs from itself)


def _example(signature: Signature) -> dict[str, Any] | None:
    if signature.example is None:
        return None
    return {tensor["name"]: tensor["data"] for tensor in signature.example["inputs"]}
