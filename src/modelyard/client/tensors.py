"""Tensors on the wire: V2 binary framing in both directions (Open Inference Protocol, binary tensor data extension)."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from modelyard.domain.errors.platform import InvalidRequest

Array = npt.NDArray[Any]
HEADER_LENGTH: Final = "Inference-Header-Content-Length"

_DTYPES: Final[Mapping[str, str]] = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


def as_tensor(values: object, *, datatype: str, name: str) -> Array:
    """`values` as an array of the V2 datatype; BYTES become an object array of `bytes`.

    Raises:
        InvalidRequest: a value cannot be that datatype; the text names input and value.
    """
    if datatype == "BYTES":
        texts = np.asarray(values, dtype=object)
        items: Array = np.frompyfunc(_to_bytes, 1, 1)(texts)
        return items.astype(object)
    try:
        return np.ascontiguousarray(np.asarray(values), dtype=_DTYPES[datatype])
    except (ValueError, TypeError) as error:
        raise InvalidRequest(
            f"the values of {name!r} are not {datatype}: {error}", hint="convert the column to numbers first"
        ) from error


def encode_request(inputs: Mapping[str, tuple[str, Array]], *, outputs: Sequence[str]) -> tuple[bytes, int]:
    """Body and length of its JSON part, for inputs given as name → (datatype, array)."""
    raws = {name: raw_bytes(array, datatype) for name, (datatype, array) in inputs.items()}
    head: dict[str, Any] = {
        "inputs": [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": datatype,
                "parameters": {"binary_data_size": len(raws[name])},
            }
            for name, (datatype, array) in inputs.items()
        ],
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
    }
    text = json.dumps(head).encode()
    return b"".join([text, *raws.values()]), len(text)


def decode_answer(body: bytes, json_size: int | None) -> tuple[dict[str, Any], dict[str, Array]]:
    """The JSON part of an answer and its outputs as arrays; BYTES become arrays of `str`."""
    size = len(body) if json_size is None else json_size
    head = json.loads(body[:size])
    position, outputs = size, {}
    for output in head["outputs"]:
        raw_size = (output.get("parameters") or {}).get("binary_data_size")
        if raw_size is None:
            outputs[output["name"]] = _from_json(output)
            continue
        outputs[output["name"]] = from_raw(body[position : position + raw_size], output["datatype"], output["shape"])
        position += raw_size
    return head, outputs


def raw_bytes(array: Array, datatype: str) -> bytes:
    """Little-endian, row-major; BYTES elements carry a 4-byte length."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(item)) + item for item in array.ravel())
    return array.tobytes()


def from_raw(data: bytes, datatype: str, shape: Sequence[int]) -> Array:
    """The array that `raw_bytes` wrote."""
    if datatype != "BYTES":
        return np.frombuffer(data, dtype=_DTYPES[datatype]).reshape(shape)
    items, position = [], 0
    while position < len(data):
        (size,) = struct.unpack_from("<I", data, position)
        items.append(data[position + 4 : position + 4 + size].decode("utf-8", "replace"))
        position += 4 + size
    return np.array(items, dtype=object).reshape(shape)


def _from_json(output: Mapping[str, Any]) -> Array:
    dtype: Any = object if output["datatype"] == "BYTES" else _DTYPES.get(output["datatype"], "<f4")
    return np.array(output["data"], dtype=dtype).reshape(output["shape"])


def _to_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
