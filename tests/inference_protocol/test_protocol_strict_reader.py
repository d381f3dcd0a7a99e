"""The product and an independent reader decide every generated request the same way."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from protocol_models import signature, spec
from strict_reader import decide

from modelyard.domain.errors import ModelyardError
from modelyard.domain.tensors import DataType
from modelyard.inference.protocol import read_infer

DATATYPES = [one.value for one in DataType if one is not DataType.BF16]
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-130, 130)
ODD = st.none() | st.booleans() | NUMBERS | st.text(max_size=4) | st.just([]) | st.just({}) | st.just([1])


def value_for(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BYTES":
        return st.text(st.characters(codec="utf-8"), max_size=5)
    if datatype == "BOOL":
        return st.booleans()
    if datatype.startswith("FP"):
        return st.floats(-60000, 60000, width=16) | st.integers(-100, 100)
    return st.integers(0, 127)


def nest(flat: list[Any], shape: list[int]) -> list[Any]:
    for size in reversed(shape[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)]
    return flat


@st.composite
def requests(draw: st.DrawFn) -> tuple[dict[str, tuple[str, list[int]]], dict[str, Any]]:
    contract: dict[str, tuple[str, list[int]]] = {}
    tensors = []
    rows = draw(st.integers(1, 3))
    for name in draw(st.sampled_from([["x"], ["x"], ["x", "z"]])):
        datatype = draw(st.sampled_from(DATATYPES))
        tail = draw(st.sampled_from([[], [1], [2], [2, 2]]))
        contract[name] = (datatype, [-1, *tail])
        shape = [rows, *tail]
        count = rows * (tail[0] if tail else 1) * (tail[1] if len(tail) > 1 else 1)
        data = draw(st.lists(value_for(datatype), min_size=count, max_size=count))
        tensors.append(
            {
                "name": name,
                "shape": shape,
                "datatype": datatype,
                "data": nest(data, shape) if draw(st.booleans()) else data,
            }
        )
    document: dict[str, Any] = {"inputs": tensors}
    if draw(st.booleans()):
        document["id"] = draw(st.text(st.characters(codec="utf-8"), max_size=4))
    if draw(st.booleans()):
        document["outputs"] = draw(
            st.sampled_from([[], None, [{"name": "y"}], [{"name": "y", "parameters": {"binary_data": True}}]])
        )
    if draw(st.booleans()):
        document["parameters"] = draw(
            st.sampled_from([{}, None, {"priority": 1}, {"a": "b", "c": 1.5}, {"timeout": -1}])
        )
    return contract, document


def mutate(draw: st.DrawFn, document: dict[str, Any]) -> None:
    target = draw(st.sampled_from([document, *document["inputs"]]))
    key = draw(st.sampled_from(["id", "inputs", "outputs", "parameters", "name", "shape", "datatype", "data", "more"]))
    if draw(st.booleans()):
        target.pop(key, None)
    elif isinstance(target.get(key), list) and target[key] and draw(st.booleans()):
        target[key][draw(st.integers(0, len(target[key]) - 1))] = draw(ODD)
    else:
        target[key] = draw(ODD)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[dict[str, tuple[str, list[int]]], bytes]:
    contract, document = draw(requests())
    if draw(st.booleans()):
        mutate(draw, document)
    body = json.dumps(
        document, ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from([None, (",", ":")]))
    ).encode()
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(body)))
        piece = draw(
            st.sampled_from(
                [
                    b"",
                    b",",
                    b"]",
                    b"[",
                    b'"',
                    b"1",
                    b"-",
                    b'"id":"a",',
                    b"\\",
                    b"NaN",
                    b" ",
                    b"\xff",
                    b"9" * 40,
                    b"e9",
                    b"0",
                    b".5",
                    b'"inputs":1,',
                    b"null",
                ]
            )
        )
        body = body[:at] + piece + body[at + draw(st.integers(0, 2)) :]
    return contract, body


X = {"x": ("FP32", [-1, 2])}


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(mutated())
@example((X, b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2],"data":[1,2]}]}'))
@example((X, b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],"id":"a","id":"a"}'))
@example((X, b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2],"extra":{"a":1,"a":2}}]}'))
@example((X, b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],"parameters":{"a":1,"a":1}}'))
@example((X, b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,3.5e38]}]}'))
@example((X, b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,1e400]}]}'))
@example((X, b'{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4,5]]}]}'))
@example((X, b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[[1],[2]]}]}'))
@example(
    (
        X,
        b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],"parameters":null,"outputs":null,"id":null}',
    )
)
@example((X, b'\xef\xbb\xbf{"inputs":[]}'))
def test_both_readers_decide_alike(case: tuple[dict[str, tuple[str, list[int]]], bytes]) -> None:
    contract, body = case
    ours = signature(*(spec(name, datatype, tuple(shape)) for name, (datatype, shape) in contract.items()))
    want = decide(body, contract, {"y"})
    try:
        request = read_infer(body, json_size=None, signature=ours)
    except ModelyardError as error:
        assert want is None, error  # noqa: PT017  (either outcome may be right)
        return
    assert want is not None
    assert {name: array.ravel().tolist() for name, array in request.inputs.items()} == want
