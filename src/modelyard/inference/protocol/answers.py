"""Writing V2 answers: constants rendered once a model, the numbers straight from the arrays.

Data is flat and row-major. JSON has no NaN and no infinity: such a value of the model's answer is `null` (as orjson,
and with it KServe, writes it), so that one odd row does not cost
the others their answer; binary output carries it exactly.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
import orjson

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.inference import BadDatatype, RunFailed
from modelyard.domain.tensors import DataType
from modelyard.inference.protocol.datatypes import MEMORY, objects, to_raw
from modelyard.inference.protocol.request import Encoded, InferRequest, Wanted
from modelyard.inference.protocol.signature import Signature

Array = np.ndarray[Any, Any]
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def write_infer(
    request: InferRequest, outputs: Mapping[str, Array], *, signature: Signature, version: str, model_name: str
) -> Encoded:
    """The answer to `request`.

    Args:
        request: what was asked.
        outputs: one array an output of the contract, its rows this request's own (a slice of a batch is fine).
        signature: the model's.
        version: the version that answered.
        model_name: the name it was asked by.

    Raises:
        RunFailed: the model did not give an output that its contract promises.
        BadDatatype: bytes that are no text were asked for as JSON.
    """
    head = head_of(signature, model_name, version)
    parts = [head, b',"outputs":[']
    if request.id is not None:
        parts.insert(1, b',"id":' + orjson.dumps(request.id))
    try:
        if request.wanted is None and not request.binary_default:
            for name, spec in signature.outputs.items():
                array = outputs[name]
                opening = json_opening(signature, name, array.shape)
                parts += (opening, _json_data(array, spec.datatype, name), b"},")
            parts[-1] = b"}]}"
            return Encoded(b"".join(parts))
        return _chosen(request, outputs, signature, parts)
    except KeyError as error:
        raise RunFailed(
            f"the model gave no output {quote(error.args[0])}, which its contract promises",
            hint="its owner has to check the model",
        ) from error


def _chosen(request: InferRequest, outputs: Mapping[str, Array], signature: Signature, parts: list[bytes]) -> Encoded:
    wanted = request.wanted
    if wanted is None:
        wanted = tuple(Wanted(name, binary=request.binary_default) for name in signature.outputs)
    tails: list[bytes] = []
    for position, one in enumerate(wanted):
        if position:
            parts.append(b",")
        _output(one, outputs[one.name], signature, parts=parts, tails=tails)
    parts.append(b"]}")
    body = b"".join(parts)
    return Encoded(body + b"".join(tails), len(body)) if tails else Encoded(body)


def json_opening(signature: Signature, name: str, shape: tuple[int, ...]) -> bytes:
    """An output up to its data."""
    known = signature.openings.get((name, shape))
    if known is not None:
        return known
    opening = signature.brackets[name] + b',"shape":[%s],"data":' % ",".join(map(str, shape)).encode()
    if len(signature.openings) < 256:  # noqa: PLR2004  (outputs times the batch sizes that are common)
        signature.openings[name, shape] = opening
    return opening


def binary_opening(signature: Signature, name: str, shape: tuple[int, ...], *, size: int) -> bytes:
    """The whole document of a binary output: its size follows from its shape."""
    known = signature.binary_openings.get((name, shape))
    if known is not None:
        return known
    sizes = ",".join(map(str, shape)).encode()
    opening = signature.brackets[name] + b',"shape":[%s],"parameters":{"binary_data_size":%d}}' % (sizes, size)
    if len(signature.binary_openings) < 256:  # noqa: PLR2004  (as above)
        signature.binary_openings[name, shape] = opening
    return opening


def head_of(signature: Signature, model_name: str, version: str) -> bytes:
    """The beginning of every answer of one version under one name."""
    known = signature.heads.get((model_name, version))
    if known is not None:
        return known
    encode = msgspec.json.encode
    head = b'{"model_name":' + encode(model_name) + b',"model_version":' + encode(version)
    if len(signature.heads) < 16:  # noqa: PLR2004  (a model has few names)
        signature.heads[model_name, version] = head
    return head


def _output(one: Wanted, array: Array, signature: Signature, *, parts: list[bytes], tails: list[bytes]) -> None:
    name, kind = one.name, signature.outputs[one.name].datatype
    head = signature.brackets[name]
    if one.binary and not one.classes and kind is not DataType.BYTES:
        tails.append(to_raw(array, kind))
        parts.append(binary_opening(signature, name, array.shape, size=len(tails[-1])))
        return
    if one.classes:
        array, kind = classify(array, one.classes, signature), DataType.BYTES
        head = b'{"name":' + msgspec.json.encode(name) + b',"datatype":"BYTES"'
    parts += (head, b',"shape":[%s]' % ",".join(map(str, array.shape)).encode())
    if one.binary:
        raw = to_raw(array, kind)
        parts.append(b',"parameters":{"binary_data_size":%d}}' % len(raw))
        tails.append(raw)
        return
    parts += (b',"data":', _json_data(array, kind, name), b"}")


def _json_data(array: Array, kind: DataType, name: str) -> bytes:
    if kind is DataType.BYTES:
        return orjson.dumps(texts(array, name))
    if array.dtype is not MEMORY[kind] and array.dtype != MEMORY[kind]:
        array = array.astype(MEMORY[kind])
    return orjson.dumps(array.ravel(), option=_NUMPY)


def texts(array: Array, name: str) -> list[str]:
    """BYTES elements as text.

    Raises:
        BadDatatype: an element is not UTF-8.
    """
    try:
        return [value if isinstance(value, str) else bytes(value).decode() for value in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise BadDatatype(
            f"the output {quote(name)} holds bytes that are no text, which JSON cannot carry",
            hint='ask for it with "parameters": {"binary_data": true}',
            details=[{"output": name, "expected": "binary_data true"}],
        ) from error


def classify(array: Array, classes: int, signature: Signature) -> Array:
    """The `classes` largest scores a row as `score:index:label`, without the label where the model has none.

    Equal scores keep the order of their indices (Triton, classification extension).
    """
    rows = signature.rows_of(array.shape)
    scores = array.reshape(rows, -1)
    best = np.argsort(-scores.astype("f8"), axis=1, kind="stable")[:, :classes]
    labels = signature.labels if len(signature.labels) == scores.shape[1] else ()
    lines = [_line(scores[row, index], int(index), labels) for row in range(rows) for index in best[row]]
    shape = (rows, best.shape[1]) if signature.batched else (best.shape[1],)
    return objects(lines).reshape(shape)


def _line(score: np.generic, index: int, labels: tuple[str, ...]) -> bytes:
    number = f"{score:f}" if isinstance(score, np.floating) else str(score)
    return f"{number}:{index}:{labels[index]}".encode() if labels else f"{number}:{index}".encode()


def listed(outputs: Mapping[str, Array], names: Iterable[str]) -> dict[str, list[Any]]:
    """Outputs as nested lists of plain JSON values by name, null for what is not finite."""
    plain: dict[str, list[Any]] = {}
    for name in names:
        array = outputs[name]
        if array.dtype == object:
            values: Any = objects([]).reshape(0) if not array.size else np.array(texts(array, name), dtype=object)
            plain[name] = values.reshape(array.shape).tolist()
        else:
            plain[name] = orjson.loads(orjson.dumps(np.ascontiguousarray(array), option=_NUMPY))
    return plain
