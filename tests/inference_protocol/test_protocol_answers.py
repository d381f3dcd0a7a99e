"""Answers in JSON and binary form, classification, round trips of every datatype, and what real clients send."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from protocol_models import M1, M_COLUMNS, M_IMAGE, signature, spec

from modelyard.domain.errors.inference import BadDatatype, RunFailed
from modelyard.domain.tensors import DataType
from modelyard.inference.protocol import Encoded, InferRequest, Wanted, read_infer, write_infer
from modelyard.inference.protocol.datatypes import from_raw, to_raw, unframe

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 65535],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [-65504.0, 0.5],
    "FP32": [-3.5, 0.25],
    "FP64": [-1e300, 0.1],
    "BF16": [-2.5, 1.5],
    "BYTES": ["", 'süß "\\'],
}


def write(outputs: dict[str, np.ndarray], signature: Any, **request: Any) -> Encoded:
    rows = len(next(iter(outputs.values())))
    return write_infer(InferRequest({}, rows, **request), outputs, signature=signature, version="1", model_name="m")


def in_memory(datatype: str) -> np.ndarray:
    values = VALUES[datatype]
    if datatype == "BYTES":
        return np.array([value.encode() for value in values], dtype=object)
    return (
        from_raw(np.array(values, "<f4").tobytes(), DataType.FP32)
        if datatype == "BF16"
        else np.array(values, {"BOOL": "?"}.get(datatype, datatype.lower().replace("fp", "float")))
    )


@pytest.mark.parametrize("datatype", [one for one in VALUES if one != "BF16"])
def test_each_datatype_goes_through_json_and_back(datatype: str) -> None:
    model = signature(spec("x", datatype, (-1,)), outputs=(spec("y", datatype, (-1,)),))
    body = json.dumps(
        {"inputs": [{"name": "x", "shape": [2], "datatype": datatype, "data": VALUES[datatype]}]}
    ).encode()
    array = read_infer(body, json_size=None, signature=model).inputs["x"]
    answer = json.loads(write({"y": array}, model).body)
    assert answer["outputs"] == [{"name": "y", "datatype": datatype, "shape": [2], "data": VALUES[datatype]}]


@pytest.mark.parametrize("datatype", VALUES)
def test_each_datatype_goes_through_raw_bytes_and_back(datatype: str) -> None:
    model = signature(spec("x", datatype, (-1,)), outputs=(spec("y", datatype, (-1,)),))
    raw = to_raw(in_memory(datatype), DataType(datatype))
    head = json.dumps(
        {
            "inputs": [{"name": "x", "shape": [2], "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
    ).encode()
    request = read_infer(head + raw, json_size=len(head), signature=model)
    answer = write_infer(request, {"y": request.inputs["x"]}, signature=model, version="1", model_name="m")
    assert answer.json_size is not None
    document = json.loads(answer.body[: answer.json_size])
    assert document["outputs"][0]["parameters"] == {"binary_data_size": len(raw)}
    assert answer.body[answer.json_size :] == raw


def test_bf16_is_widened_exactly_and_rounded_to_nearest_even() -> None:
    assert from_raw(b"\x80\x3f\x20\xc0", DataType.BF16).tolist() == [1.0, -2.5]
    halves = np.array([1 + 2**-8, 1 + 3 * 2**-8, np.inf, np.nan], "f4")
    back = from_raw(to_raw(halves, DataType.BF16), DataType.BF16)
    assert back[:3].tolist() == [1.0, 1 + 2**-6, np.inf]
    assert np.isnan(back[3])


def test_bf16_never_travels_as_json() -> None:
    model = signature(spec("x", "BF16", (-1,)), outputs=(spec("y", "BF16", (-1,)),))
    with pytest.raises(BadDatatype):
        read_infer(
            b'{"inputs":[{"name":"x","shape":[1],"datatype":"BF16","data":[1]}]}', json_size=None, signature=model
        )
    head = b'{"inputs":[{"name":"x","shape":[1],"datatype":"BF16","parameters":{"binary_data_size":2}}]}'
    with pytest.raises(BadDatatype, match="y"):
        read_infer(head + b"\0\0", json_size=len(head), signature=model)


def test_an_answer_is_flat_and_names_model_version_and_id() -> None:
    answer = write({"y": np.array([[1, 2], [3, 4]], "f4")}, M1, id='a"ü')
    assert json.loads(answer.body) == {
        "model_name": "m",
        "model_version": "1",
        "id": 'a"ü',
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}],
    }


def test_slices_of_a_batch_are_answered_with_their_own_rows() -> None:
    batch = np.arange(8, dtype="f4").reshape(4, 2)
    assert json.loads(write({"y": batch[1:3]}, M1).body)["outputs"][0]["data"] == [2, 3, 4, 5]
    assert json.loads(write({"y": batch.T[:2].T}, M1).body)["outputs"][0]["data"] == list(range(8))


def test_what_is_not_finite_is_null_in_json_and_exact_in_binary() -> None:
    odd = np.array([[np.nan, np.inf]], "f4")
    assert json.loads(write({"y": odd}, M1).body)["outputs"][0]["data"] == [None, None]
    answer = write({"y": odd}, M1, binary_default=True)
    assert answer.json_size is not None
    assert answer.body[answer.json_size :] == odd.tobytes()


def test_outputs_come_as_asked_mixed_and_in_order() -> None:
    outputs = {"label": np.array([b"cheap"], object), "probabilities": np.array([[0.75, 0.25]], "f4")}
    wanted = (Wanted("probabilities", binary=True), Wanted("label", binary=False))
    answer = write(outputs, M_COLUMNS, wanted=wanted)
    assert answer.json_size is not None
    document = json.loads(answer.body[: answer.json_size])
    assert [one["name"] for one in document["outputs"]] == ["probabilities", "label"]
    assert answer.body[answer.json_size :] == struct.pack("<2f", 0.75, 0.25)


def test_classification_gives_score_index_label_best_first() -> None:
    scores = np.array([[0.25, 0.5, 0.25], [1, 0, 0]], "f4")
    answer = write({"y": scores}, M_IMAGE, wanted=(Wanted("y", binary=False, classes=2),))
    assert json.loads(answer.body)["outputs"] == [
        {
            "name": "y",
            "datatype": "BYTES",
            "shape": [2, 2],
            "data": ["0.500000:1:b", "0.250000:0:a", "1.000000:0:a", "0.000000:1:b"],
        }
    ]
    answer = write({"y": scores}, M_IMAGE, wanted=(Wanted("y", binary=True, classes=9),))
    assert answer.json_size is not None
    assert unframe(answer.body[answer.json_size :])[3:] == [b"1.000000:0:a", b"0.000000:1:b", b"0.000000:2:c"]
    answer = write({"y": scores[:, :2]}, M1, wanted=(Wanted("y", binary=False, classes=1),))
    assert json.loads(answer.body)["outputs"][0]["data"] == ["0.500000:1", "1.000000:0"]


def test_an_output_that_the_model_owes_is_its_own_fault() -> None:
    with pytest.raises(RunFailed, match="probabilities"):
        write({"label": np.array([b"a"], object)}, M_COLUMNS)


def test_bytes_that_are_no_text_have_to_be_asked_for_in_binary() -> None:
    outputs = {"label": np.array([b"\xff"], object), "probabilities": np.zeros((1, 2), "f4")}
    with pytest.raises(BadDatatype, match="label"):
        write(outputs, M_COLUMNS)


TRITON_BINARY = (
    b'{"id":"7","inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}}],'
    b'"outputs":[{"name":"y","parameters":{"classification":2,"binary_data":true}}]}'
)
TRITON_DEFAULTS = (
    b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}}],'
    b'"parameters":{"priority":1,"timeout":5000,"binary_data_output":true,"k":"v"}}'
)
TRITON_MIXED = (
    b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1.0,2.0,3.0]},{"name":"b","shape":[1],'
    b'"datatype":"BYTES","parameters":{"binary_data_size":6}},{"name":"c","shape":[1],"datatype":"BOOL",'
    b'"parameters":{"binary_data_size":1}}],"outputs":[{"name":"y","parameters":{"binary_data":false}}]}'
)
F3 = struct.pack("<3f", 1, 2, 3)


def test_the_binary_requests_of_tritonclient_are_read() -> None:
    request = read_infer(TRITON_BINARY + F3, json_size=len(TRITON_BINARY), signature=M1)
    assert request.id == "7"
    assert request.wanted == (Wanted("y", binary=True, classes=2),)
    assert request.inputs["x"].tolist() == [[1, 2, 3]]
    request = read_infer(TRITON_DEFAULTS + F3, json_size=len(TRITON_DEFAULTS), signature=M1)
    assert (request.priority, request.timeout_us, request.binary_default) == (1, 5000, True)
    assert request.parameters["k"] == "v"


def test_json_and_binary_inputs_mix() -> None:
    model = signature(spec("x", "FP32", (-1, 3)), spec("b", "BYTES", (-1,)), spec("c", "BOOL", (-1,)))
    request = read_infer(TRITON_MIXED + b"\x02\0\0\0bc\x01", json_size=len(TRITON_MIXED), signature=model)
    assert {name: array.tolist() for name, array in request.inputs.items()} == {
        "x": [[1, 2, 3]],
        "b": [b"bc"],
        "c": [True],
    }


def test_a_raw_body_is_the_only_input_and_is_answered_in_binary() -> None:
    request = read_infer(F3 + F3, json_size=0, signature=M1)
    assert request.inputs["x"].tolist() == [[1, 2, 3], [1, 2, 3]]
    assert request.binary_default
    text = read_infer(b"abc", json_size=0, signature=signature(spec("x", "BYTES", (-1,))))
    assert text.inputs["x"].tolist() == [b"abc"]
