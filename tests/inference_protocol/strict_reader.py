"""An independent reader of V2 JSON requests, written from the specification: slow, simple, with the standard library.

It knows nothing of the product. `decide` gives the values by input name, or None for a request that must be refused.
"""

import json
import math
import struct
from typing import Any

INTS = {
    f"{sign}INT{bits}": (0 if sign else -(2 ** (bits - 1)), 2 ** (bits - (not sign)) - 1)
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}


class No(Exception):
    pass


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(keys) != len(set(keys)):
        raise No
    return dict(pairs)


def never(_: str) -> None:
    raise No


def decide(body: bytes, inputs: dict[str, tuple[str, list[int]]], outputs: set[str]) -> dict[str, Any] | None:
    try:
        return read(body, inputs, outputs)
    except (No, ValueError, RecursionError):
        return None


def read(body: bytes, inputs: dict[str, tuple[str, list[int]]], outputs: set[str]) -> dict[str, Any]:
    document = json.loads(body.decode("utf-8"), object_pairs_hook=once, parse_constant=never)
    need(isinstance(document, dict))
    tensors = document.get("inputs")
    need(isinstance(tensors, list))
    found: dict[str, Any] = {}
    for tensor in tensors:
        need(isinstance(tensor, dict) and isinstance(tensor.get("name"), str))
        name = tensor["name"]
        need(name in inputs and name not in found)
        found[name] = values_of(tensor, *inputs[name])
    need(set(found) == set(inputs))
    need(len({len(tensor["shape"]) and tensor["shape"][0] for tensor in tensors}) == 1)
    options(document, outputs)
    return found


def values_of(tensor: dict[str, Any], datatype: str, want: list[int]) -> list[Any]:
    need(tensor.get("datatype") == datatype)
    shape = tensor.get("shape")
    need(isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape))
    column = len(want) == 2 and want[1] == 1 and len(shape) == 1
    need(column or (len(shape) == len(want) and all(w in {-1, s} for s, w in zip(shape, want, strict=True))))
    parameters(tensor.get("parameters"))
    need("binary_data_size" not in (tensor.get("parameters") or {}))
    data = tensor.get("data")
    need(isinstance(data, list))
    if any(isinstance(value, list) for value in data):
        data = flat(data, [*shape, 1] if column and isinstance(data[0], list) else shape)
    need(len(data) == math.prod(shape))
    return [element(value, datatype) for value in data]


def flat(data: Any, shape: list[int]) -> list[Any]:
    if not shape:
        need(not isinstance(data, list))
        return [data]
    need(isinstance(data, list) and len(data) == shape[0])
    return [leaf for part in data for leaf in flat(part, shape[1:])]


def element(value: Any, datatype: str) -> Any:
    if datatype == "BYTES":
        need(isinstance(value, str))
        return value.encode("utf-8")
    if datatype == "BOOL":
        need(isinstance(value, bool))
        return value
    need(isinstance(value, (int, float)) and not isinstance(value, bool))
    if datatype in INTS:
        low, high = INTS[datatype]
        need(isinstance(value, int) and low <= value <= high)
        return value
    form = {"FP16": "<e", "FP32": "<f", "FP64": "<d"}[datatype]
    try:
        number = struct.unpack(form, struct.pack(form, float(value)))[0]
    except OverflowError as error:
        raise No from error
    need(math.isfinite(number))
    return number


def options(document: dict[str, Any], outputs: set[str]) -> None:
    if document.get("id") is not None:
        need(isinstance(document["id"], str) and len(document["id"]) <= 1024)
        document["id"].encode("utf-8")
    parameters(document.get("parameters"))
    for name in ("priority", "timeout"):
        value = (document.get("parameters") or {}).get(name, 0)
        need(type(value) is int and 0 <= value < 2**32)
    need(isinstance((document.get("parameters") or {}).get("binary_data_output", False), bool))
    asked = document.get("outputs")
    if asked is None:
        return
    need(isinstance(asked, list) and all(isinstance(one, dict) and one.get("name") in outputs for one in asked))
    need(len({one["name"] for one in asked}) == len(asked))
    for one in asked:
        parameters(one.get("parameters"))
        need(isinstance((one.get("parameters") or {}).get("binary_data", False), bool))


def parameters(value: Any) -> None:
    need(
        value is None or (isinstance(value, dict) and all(isinstance(one, (str, int, float)) for one in value.values()))
    )


def need(condition: bool) -> None:
    if not condition:
        raise No
