"""The quick path takes the common forms, says the same as the careful one, and nothing crashes either."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_models import M1, M_BYTES, M_COLUMNS, M_IMAGE, signature, spec

from modelyard.domain.errors import ModelyardError
from modelyard.inference.protocol import read_infer, status_of
from modelyard.inference.protocol.careful import read_document
from modelyard.inference.protocol.reading import _quick_binary, _quick_json
from modelyard.inference.protocol.strict import load_strict

X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2.5, 3]}
COLUMNS = [
    {"name": "age", "shape": [1, 1], "datatype": "FP32", "data": [[1]]},
    {"name": "rooms", "shape": [1, 1], "datatype": "INT64", "data": [2]},
    {"name": "city", "shape": [1], "datatype": "BYTES", "data": ["Rome"]},
]
COMMON: list[tuple[Any, dict[str, Any]]] = [
    (M1, {"inputs": [X]}),
    (M1, {"id": "abc", "inputs": [X], "outputs": [{"name": "y"}]}),
    (M1, {"inputs": [{**X, "data": [[1, 2.5, 3]]}], "parameters": {"priority": 2, "mine": "text"}}),
    (M1, {"inputs": [{**X, "parameters": None}], "id": None, "outputs": None}),
    (M1, {"outputs": [{"parameters": {"binary_data": True}, "name": "y"}], "inputs": [X]}),
    (M_BYTES, {"inputs": [{"name": "x", "shape": [2], "datatype": "BYTES", "data": ["a", ""]}]}),
    (M_IMAGE, {"inputs": [{"name": "image", "shape": [2, 2, 2], "datatype": "FP32", "data": [[[1, 2], [3, 4]]] * 2}]}),
    (M_COLUMNS, {"inputs": COLUMNS}),
]


@pytest.mark.parametrize(("model", "document"), COMMON)
def test_common_forms_are_read_quickly_and_as_carefully(model: Any, document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    quick = _quick_json(body, model)
    careful = read_document(load_strict(body), None, model)
    assert quick is not None
    same(quick, careful)


def same(left: Any, right: Any) -> None:
    assert list(left.inputs) == list(right.inputs)
    for name, array in left.inputs.items():
        other = right.inputs[name]
        assert array.dtype == other.dtype
        assert array.shape == other.shape
        assert array.tolist() == other.tolist()
    names = ("rows", "id", "wanted", "parameters", "priority", "timeout_us", "binary_default")
    assert [getattr(left, name) for name in names] == [getattr(right, name) for name in names]


TWO = signature(spec("x", "FP32", (-1, 2)), spec("z", "INT16", (-1,)))


@st.composite
def binary_bodies(draw: st.DrawFn) -> tuple[bytes, int]:
    rows = draw(st.integers(1, 3))
    x = np.array(draw(st.lists(st.floats(width=32), min_size=rows * 2, max_size=rows * 2)), "f4").tobytes()
    z = bytes(2 * rows)
    tensors = [
        {"name": "x", "shape": [rows, 2], "datatype": "FP32", "parameters": {"binary_data_size": len(x)}},
        {"name": "z", "shape": [rows], "datatype": "INT16", "parameters": {"binary_data_size": len(z)}},
    ]
    head = json.dumps({"inputs": tensors}, separators=draw(st.sampled_from([None, (",", ":")]))).encode()
    body = bytearray(head + x + z)
    for _ in range(draw(st.integers(0, 2))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.sampled_from(b'0123456789"[]{},:x\\\xff'))
    return bytes(body[: draw(st.integers(len(body) - 2, len(body)))]), len(head) + draw(
        st.sampled_from([0, 0, 0, 1, -1])
    )


@settings(max_examples=400, deadline=None)
@given(binary_bodies())
def test_binary_bodies_are_decided_alike_and_never_crash(case: tuple[bytes, int]) -> None:
    body, size = case
    quick = _quick_binary(body[:size], body, TWO)
    try:
        careful = read_document(load_strict(body[:size]), body[size:], TWO)
    except ModelyardError as error:
        assert quick is None
        assert status_of(type(error)) == 400  # noqa: PT017  (either outcome may be right)
        return
    if quick is not None:
        same(quick, careful)
    same(read_infer(body, json_size=size, signature=TWO), careful)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.none() | st.integers(-1, 50))
def test_random_bytes_are_refused_without_a_crash(body: bytes, size: int | None) -> None:
    try:
        read_infer(body, json_size=size, signature=M_COLUMNS)
    except ModelyardError as error:
        assert status_of(type(error)) == 400  # noqa: PT017  (either outcome may be right)
