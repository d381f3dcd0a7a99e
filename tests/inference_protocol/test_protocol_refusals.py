"""Refusals name the culprit, what was expected, what came, the row; and their example succeeds."""

import json
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from protocol_models import M1, M_BYTES, M_COLUMNS, M_IMAGE, M_INT8, M_TWO, signature, spec

from modelyard.domain.contract import Golden
from modelyard.domain.errors import ModelyardError
from modelyard.inference.protocol import (
    InferRequest,
    parse_json_size,
    read_infer,
    read_mlflow,
    read_v1,
    status_of,
    write_error,
)
from modelyard.inference.protocol.error_reference import family, render_error_reference
from modelyard.inference.protocol.errors import STATUS


def x(**change: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6], **change}


def row(age: Any = 30, city: Any = "Rome", rooms: Any = 3) -> list[dict[str, Any]]:
    return [
        {"name": "age", "shape": [2], "datatype": "FP32", "data": [1, age]},
        {"name": "city", "shape": [2, 1], "datatype": "BYTES", "data": [["Oslo"], [city]]},
        {"name": "rooms", "shape": [2], "datatype": "INT64", "data": [1, rooms]},
    ]


CASES: list[tuple[Any, Any, str, dict[str, Any]]] = [
    (M1, [x(shape=[2, 4], data=[0] * 8)], "shape_mismatch", {"input": "x", "expected": [-1, 3], "received": "[2, 4]"}),
    (M1, [x(shape=[6])], "shape_mismatch", {"input": "x", "received": "[6]"}),
    (M1, [], "missing_input", {"input": "x"}),
    (M1, [x(name="X")], "unknown_input", {"input": "'X'", "expected": ["x"]}),
    (M1, [x(), x()], "bad_request", {"input": "'x'"}),
    (M1, [x(datatype="FP64")], "bad_datatype", {"expected": "FP32", "received": "'FP64'"}),
    (M1, [x(data=[1, 2, 3, None, 5, 6])], "bad_data", {"input": "x", "row": 1, "received": "null"}),
    (M1, [x(data=[1, 2, 3, 4, "5", 6])], "bad_data", {"row": 1, "received": "the text '5'"}),
    (M1, [x(data=[True, 2, 3, 4, 5, 6])], "bad_data", {"row": 0, "received": "true"}),
    (M1, [x(data=[1, 2, 3, 4, 5, 1e39])], "bad_data", {"row": 1}),
    (M1, [x(data=[[1, 2, 3], [4, 5]])], "bad_data", {"input": "x"}),
    (M1, [x(data=[1, 2, 3])], "size_mismatch", {"expected": "6 values", "received": "3 values"}),
    (M1, [x(data="abc")], "bad_data", {"expected": "a list"}),
    (M1, [x(shape=[-1, 3])], "bad_shape", {"input": "x"}),
    (M1, [x(shape=[0, 3], data=[])], "bad_shape", {"input": "x"}),
    (M1, [x(parameters={"binary_data_size": 24})], "bad_binary", {"input": "x"}),
    (M1, [x(parameters={"shared_memory_region": "r"})], "not_supported", {}),
    (M_INT8, [x(datatype="INT8", data=[1, 2, 3, 4, 5, 128])], "bad_data", {"row": 1, "received": "128"}),
    (M_INT8, [x(datatype="INT8", data=[1.0, 2, 3, 4, 5, 6])], "bad_data", {"row": 0, "received": "1.0"}),
    (M_BYTES, [x(datatype="BYTES", shape=[2], data=["a", 1])], "bad_data", {"row": 1, "expected": "text"}),
    (
        M_TWO,
        [x(shape=[2], data=[1, 2]), x(name="z", shape=[3], data=[1, 2, 3])],
        "shape_mismatch",
        {"input": "z", "expected": "2 rows"},
    ),
    (M_COLUMNS, row(city="Paris"), "unknown_category", {"input": "city", "row": 1, "received": "'Paris'"}),
    (M_COLUMNS, row(rooms=2**63), "bad_data", {"input": "rooms", "row": 1}),
    (M_COLUMNS, row()[:2], "missing_input", {"input": "rooms"}),
    (
        M_IMAGE,
        [{"name": "image", "shape": [1, 2, 3], "datatype": "FP32", "data": [0] * 6}],
        "shape_mismatch",
        {"expected": [-1, 2, 2]},
    ),
]


def refused(body: bytes, model: Any, json_size: int | None = None) -> ModelyardError:
    with pytest.raises(ModelyardError) as caught:
        read_infer(body, json_size=json_size, signature=model)
    return caught.value


@pytest.mark.parametrize(("model", "inputs", "code", "culprit"), CASES)
def test_a_refusal_names_the_culprit_and_gives_a_request_that_works(
    model: Any, inputs: Any, code: str, culprit: dict[str, Any]
) -> None:
    error = refused(json.dumps({"inputs": inputs}).encode(), model)
    assert error.code == code, error
    found = error.details[0] if error.details else {}
    assert {key: found.get(key) for key in culprit} == culprit
    document = json.loads(write_error(error, request_id="r-1")[1])
    assert document["error"]
    assert document["request_id"] == "r-1"
    accepted = read_infer(json.dumps(document["example"]).encode(), json_size=None, signature=model)
    assert accepted.rows >= 1


def test_missing_values_are_taken_where_the_model_was_made_for_them() -> None:
    request = read_infer(json.dumps({"inputs": row(age=None)}).encode(), json_size=None, signature=M_COLUMNS)
    assert np.isnan(request.inputs["age"][1, 0])
    assert request.inputs["city"].shape == (2, 1)
    assert request.rows == 2


@pytest.mark.parametrize(("odd", "taken"), [(float("nan"), True), (float("inf"), False)])
def test_binary_nan_is_judged_by_the_contract_and_infinity_always_refused(odd: float, taken: bool) -> None:
    head = json.dumps(
        {"inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP32", "parameters": {"binary_data_size": 8}}]}
    ).encode()
    body = head + struct.pack("<2f", 1, odd)
    error = refused(body, signature(spec("x", "FP32", (-1, 1))), len(head))
    assert (error.code, error.details[0]["row"]) == ("bad_data", 1)
    tolerant = signature(spec("x", "FP32", (-1, 1), allows_nan=True))
    if taken:
        assert read_infer(body, json_size=len(head), signature=tolerant).rows == 2
    else:
        assert refused(body, tolerant, len(head)).code == "bad_data"


def test_a_misspelt_input_or_output_is_answered_with_the_nearest_name() -> None:
    error = refused(json.dumps({"inputs": [{"name": "agee"}]}).encode(), M_COLUMNS)
    assert "did you mean 'age'?" in error.detail
    error = refused(json.dumps({"inputs": row(), "outputs": [{"name": "labels"}]}).encode(), M_COLUMNS)
    assert "did you mean 'label'?" in error.detail


def test_bad_json_says_where() -> None:
    error = refused(b'{"inputs":[}', M1)
    assert error.code == "bad_json"
    assert error.details[0]["position"] == 11
    assert error.example == M1.example


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'"\\ud800"',
        b"1" * 5000,
        b"",
        b"null",
        b'{"inputs":[' + b"[" * 900 + b"]" * 900 + b"]}",
    ],
)
def test_odd_bodies_are_refused_and_never_crash(text: bytes) -> None:
    error = refused(text, M1)
    assert status_of(type(error)) == 400


def test_a_shape_of_very_many_dimensions_is_refused_before_it_is_multiplied() -> None:
    shape = b",".join([b"9" * 18] * 2_000_000)  # multiplying these would take hours
    error = refused(b'{"inputs":[{"name":"x","shape":[' + shape + b'],"datatype":"FP32","data":[1]}]}', M1)
    assert error.code == "bad_shape"
    assert len(write_error(error, request_id="r")[1]) < 2000


def test_data_nested_very_deeply_is_refused() -> None:
    deep = b"[" * 800 + b"1" + b"]" * 800
    body = b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":' + deep + b"}]}"
    assert status_of(type(refused(body, M1))) == 400


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"sequence_id": 3}, "not_supported"),
        ({"sequence_start": True}, "not_supported"),
        ({"timeout": -1}, "bad_request"),
        ({"priority": "high"}, "bad_request"),
        ({"binary_data_output": 1}, "bad_request"),
        ({"a": {}}, "bad_request"),
        ([], "bad_request"),
    ],
)
def test_parameters_that_cannot_be_kept_are_refused(parameters: Any, code: str) -> None:
    assert refused(json.dumps({"inputs": [x()], "parameters": parameters}).encode(), M1).code == code


def test_sequence_parameters_that_say_nothing_are_ignored() -> None:
    body = json.dumps({"inputs": [x()], "parameters": {"sequence_id": 0, "sequence_start": False, "mine": 1}}).encode()
    assert read_infer(body, json_size=None, signature=M1).parameters["mine"] == 1


@pytest.mark.parametrize("value", [b"-1", b"+1", b"1.0", b"", b"0x1", b"9" * 19, "١".encode()])
def test_a_header_length_is_plain_digits(value: bytes) -> None:
    with pytest.raises(ModelyardError) as caught:
        parse_json_size(value)
    assert caught.value.code == "bad_binary"


def test_bytes_that_belong_to_no_input_are_refused() -> None:
    head = json.dumps({"inputs": [x()]}).encode()
    assert refused(head + b"\0", M1, len(head)).code == "bad_binary"


def test_the_golden_request_is_the_example() -> None:
    request = {"inputs": [x(data=[9, 8, 7, 6, 5, 4])]}
    model = signature(spec("x", "FP32", (-1, 3)), golden=Golden(request=request, outputs=()))
    assert refused(b"{}", model).example == request


def everything(root: type[ModelyardError]) -> list[type[ModelyardError]]:
    return [kind for kind in set(family(root)) if kind.__module__.startswith("modelyard.domain")]


def test_every_error_has_a_status_and_only_faults_of_ours_a_500() -> None:
    kinds = everything(ModelyardError)
    assert len(kinds) > 60
    ours = {kind.code for kind in kinds if status_of(kind) == 500}
    assert ours == {"internal", "run_failed", "poison_request", "start_refused", "artifact_damaged"}
    nearest = {kind: next(parent for parent in kind.__mro__ if parent in STATUS) for kind in kinds}
    unmapped = {kind.__name__ for kind, row in nearest.items() if row is ModelyardError and kind is not ModelyardError}
    assert unmapped == set()


def test_the_reference_page_is_the_error_tree() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "inference-errors.md"
    assert page.read_text(encoding="utf-8") == render_error_reference()


V1_CASES = [
    (M1, b"{}", "bad_request"),
    (M1, b'{"instances":[]}', "bad_shape"),
    (M1, b'{"instances":[[1,2,3],[1,2]]}', "shape_mismatch"),
    (M1, b'{"instances":[[1,2]]}', "shape_mismatch"),
    (M1, b'{"instances":[[1,2,"a"]]}', "bad_data"),
    (M_COLUMNS, b'{"instances":[{"age":1,"city":"Rome"}]}', "missing_input"),
    (M_COLUMNS, b'{"instances":[{"age":1,"city":"Bonn","rooms":1}]}', "unknown_category"),
    (M_COLUMNS, b'{"instances":[[1,"Rome"]]}', "shape_mismatch"),
    (M_COLUMNS, b'{"instances":[{"age":1,"city":"Rome","rooms":1},{"age":1}]}', "bad_data"),
    (M_IMAGE, b'{"instances":[[[1,2],[3]]]}', "shape_mismatch"),
]


@pytest.mark.parametrize(("model", "body", "code"), V1_CASES)
@pytest.mark.parametrize("read", [read_v1, read_mlflow])
def test_refusals_of_the_older_dialects_have_an_example_of_their_own(
    read: Any, model: Any, body: bytes, code: str
) -> None:
    with pytest.raises(ModelyardError) as caught:
        read(body, signature=model)
    assert caught.value.code == code
    accepted: InferRequest = read(msgspec.json.encode(caught.value.example), signature=model)
    assert accepted.rows >= 1
