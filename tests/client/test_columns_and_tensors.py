"""From DataFrames, arrays and records to V2 inputs, and back from the wire."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelyard.client.columns import to_inputs
from modelyard.client.tensors import decode_answer, encode_request, from_raw, raw_bytes
from modelyard.domain.errors.platform import InvalidRequest

WIDE = [{"name": "input", "datatype": "FP32", "shape": [-1, 3]}]
COLUMNS = [
    {"name": "age", "datatype": "FP32", "shape": [-1, 1]},
    {"name": "city", "datatype": "BYTES", "shape": [-1, 1]},
]


@pytest.mark.parametrize(
    "data",
    [
        [[1, 2, 3], [4, 5, 6]],
        np.array([[1, 2, 3], [4, 5, 6]]),
        pd.DataFrame({"a": [1, 4], "b": [2, 5], "c": [3, 6]}),
        [{"a": 1, "b": 2, "c": 3}, {"a": 4, "b": 5, "c": 6}],
    ],
)
def test_a_table_becomes_the_one_input(data: object) -> None:
    datatype, array = to_inputs(data, WIDE)["input"]
    assert datatype == "FP32"
    np.testing.assert_array_equal(array, [[1, 2, 3], [4, 5, 6]])
    assert array.dtype == np.float32


def test_one_flat_row_becomes_a_batch_of_one() -> None:
    assert to_inputs([1, 2, 3], WIDE)["input"][1].shape == (1, 3)


@pytest.mark.parametrize(
    "data",
    [
        pd.DataFrame({"city": ["Bern", "Köln"], "age": [30, 40]}),
        [{"city": "Bern", "age": 30}, {"age": 40, "city": "Köln"}],
        {"age": [30, 40], "city": ["Bern", "Köln"]},
        [[30, "Bern"], [40, "Köln"]],
    ],
)
def test_columns_go_to_inputs_by_name_in_any_order(data: object) -> None:
    inputs = to_inputs(data, COLUMNS)
    np.testing.assert_array_equal(inputs["age"][1], [[30], [40]])
    assert inputs["city"][1].tolist() == [[b"Bern"], ["Köln".encode()]]


def test_columns_that_are_missing_or_unknown_are_named_with_what_is_taken() -> None:
    with pytest.raises(InvalidRequest, match="missing: city; not known: town") as caught:
        to_inputs(pd.DataFrame({"age": [1], "town": ["x"]}), COLUMNS)
    assert caught.value.hint == "it takes age, city"


def test_a_record_with_a_hole_is_refused_by_its_row() -> None:
    with pytest.raises(InvalidRequest, match="record 1 lacks"):
        to_inputs([{"age": 1, "city": "x"}, {"age": 1}], COLUMNS)


def test_words_where_numbers_belong_are_refused_by_input() -> None:
    with pytest.raises(InvalidRequest, match="'input' are not FP32"):
        to_inputs([["a", "b", "c"]], WIDE)


@given(
    hnp.arrays(
        st.sampled_from([np.dtype(kind) for kind in ("?", "u1", "<i8", "<f4", "<f8", "<u2")]),
        hnp.array_shapes(max_dims=3, max_side=4),
        elements={"allow_nan": False},
    )
)
def test_numbers_survive_the_wire(array: np.ndarray) -> None:
    names = {"?": "BOOL", "u1": "UINT8", "<i8": "INT64", "<f4": "FP32", "<f8": "FP64", "<u2": "UINT16"}
    datatype = names[array.dtype.str.lstrip("|").replace("b1", "?")]
    np.testing.assert_array_equal(from_raw(raw_bytes(array, datatype), datatype, array.shape), array)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=6))
def test_texts_survive_the_wire(texts: list[str]) -> None:
    array = np.array([text.encode() for text in texts], dtype=object)
    assert from_raw(raw_bytes(array, "BYTES"), "BYTES", [len(texts)]).tolist() == texts


def test_a_request_says_how_long_its_json_part_is() -> None:
    body, size = encode_request({"x": ("FP32", np.ones((1, 2), "<f4"))}, outputs=["y"])
    assert body[:size].endswith(b"}")
    assert body[size:] == np.ones(2, "<f4").tobytes()


def test_an_answer_in_json_and_binary_parts_is_read_whole() -> None:
    head = b'{"outputs":[{"name":"a","datatype":"FP32","shape":[2],"data":[1,2]},'
    head += b'{"name":"b","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":8}}]}'
    _, outputs = decode_answer(head + (7).to_bytes(8, "little"), len(head))
    assert outputs["a"].tolist() == [1, 2]
    assert outputs["b"].tolist() == [7]
