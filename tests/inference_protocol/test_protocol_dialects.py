"""V1 and MLflow: rows, records, columns and CSV in; predictions out. And the documents about models."""

import json
from typing import Any

import numpy as np
import pytest
from protocol_models import M1, M_COLUMNS, M_IMAGE, signature, spec

from modelyard.domain.errors import ModelyardError
from modelyard.inference.protocol import (
    ModelStatistics,
    Spent,
    model_configuration,
    model_metadata,
    read_mlflow,
    read_v1,
    repository_index,
    server_metadata,
    statistics,
    write_mlflow,
    write_v1,
)

COLUMNS = {"age": [[30.0], [40.0]], "city": [[b"Rome"], [b"Oslo"]], "rooms": [[3], [4]]}
RECORDS = [{"age": 30, "city": "Rome", "rooms": 3}, {"age": 40, "city": "Oslo", "rooms": 4}]
ROWS = [[30, "Rome", 3], [40, "Oslo", 4]]


def body(**document: Any) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize("instances", [RECORDS, ROWS])
def test_v1_reads_rows_and_objects(instances: Any) -> None:
    request = read_v1(body(instances=instances), signature=M_COLUMNS)
    assert {name: array.tolist() for name, array in request.inputs.items()} == COLUMNS
    assert request.rows == 2


def test_v1_reads_rows_of_the_only_input() -> None:
    request = read_v1(body(instances=[[1, 2, 3], [4, 5, 6]]), signature=M1)
    assert request.inputs["x"].tolist() == [[1, 2, 3], [4, 5, 6]]
    request = read_v1(body(instances=[{"image": [[1, 2], [3, 4]]}]), signature=M_IMAGE)
    assert request.inputs["image"].tolist() == [[[1, 2], [3, 4]]]
    request = read_v1(body(instances=[{"b64": "AP8="}]), signature=signature(spec("x", "BYTES", (-1,))))
    assert request.inputs["x"].tolist() == [b"\x00\xff"]


def test_v1_predictions_are_rows_or_objects_by_output() -> None:
    request = read_v1(body(instances=ROWS), signature=M_COLUMNS)
    outputs = {"label": np.array([b"cheap", b"dear"], object), "probabilities": np.array([[1, 0], [0, np.nan]], "f4")}
    assert json.loads(write_v1(request, outputs, signature=M_COLUMNS).body) == {
        "predictions": [{"label": "cheap", "probabilities": [1, 0]}, {"label": "dear", "probabilities": [0, None]}]
    }
    request = read_v1(body(instances=[[1, 2, 3]]), signature=M1)
    assert json.loads(write_v1(request, {"y": np.array([[1, 2]], "f4")}, signature=M1).body) == {
        "predictions": [[1, 2]]
    }


@pytest.mark.parametrize(
    "document",
    [
        {
            "dataframe_split": {
                "columns": ["rooms", "age", "city", "more"],
                "data": [[3, 30, "Rome", 0], [4, 40, "Oslo", 0]],
            }
        },
        {"dataframe_records": [{**record, "more": 1} for record in RECORDS]},
        {"instances": RECORDS},
        {"inputs": {"age": [30, 40], "city": ["Rome", "Oslo"], "rooms": [3.0, 4.0]}, "params": {}},
    ],
)
def test_mlflow_reads_its_four_forms(document: Any) -> None:
    request = read_mlflow(body(**document), signature=M_COLUMNS)
    assert {name: array.tolist() for name, array in request.inputs.items()} == COLUMNS


def test_mlflow_reads_csv() -> None:
    request = read_mlflow(b"city,age,rooms\nRome,30,3\nOslo,,4\n", is_csv=True, signature=M_COLUMNS)
    assert np.isnan(request.inputs["age"][1, 0])
    assert request.inputs["rooms"].tolist() == [[3], [4]]
    request = read_mlflow(b"a,b,c\n1,2,3\n", is_csv=True, signature=M1)
    assert request.inputs["x"].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "bad_request"),
        (b"a,b,c\n", "bad_request"),
        (b"a,a,c\n1,2,3\n", "bad_request"),
        (b"a,b,c\n1,2\n", "bad_data"),
        (b"a,b,c\n1,2,nan\n", "bad_data"),
        (b"\xff", "bad_request"),
        (b"a,b,c\n1,2,1_0\n", "bad_data"),
        (b"a,b\n1,2\n", "shape_mismatch"),
    ],
)
def test_bad_csv_is_refused(text: bytes, code: str) -> None:
    with pytest.raises(ModelyardError) as caught:
        read_mlflow(text, is_csv=True, signature=M1)
    assert caught.value.code == code


def test_mlflow_wants_exactly_one_form() -> None:
    with pytest.raises(ModelyardError) as caught:
        read_mlflow(body(instances=[[1, 2, 3]], inputs=[[1, 2, 3]]), signature=M1)
    assert caught.value.code == "bad_request"


def test_mlflow_predictions_are_records() -> None:
    request = read_mlflow(body(instances=[[1, 2, 3]]), signature=M1)
    assert json.loads(write_mlflow(request, {"y": np.array([[1, 2]], "f4")}, signature=M1).body) == {
        "predictions": [[1, 2]]
    }


def test_documents_are_filled_in() -> None:
    assert server_metadata("modelyard", "1", ["binary_tensor_data"])["extensions"] == ["binary_tensor_data"]
    document = model_metadata("m", ["1"], "onnx_onnxv1", M_COLUMNS.contract)
    assert document["inputs"][1] == {"name": "city", "datatype": "BYTES", "shape": [-1, 1]}
    config = model_configuration("m", "onnx_onnxv1", M_COLUMNS.contract)
    assert config["max_batch_size"] == 10_000
    assert config["input"][1] == {"name": "city", "data_type": "TYPE_STRING", "dims": [1]}
    assert config["output"][1]["label_filename"] == "labels.txt"
    assert config["backend"] == "onnx"


def test_statistics_and_index_have_the_fields_of_the_extension() -> None:
    entry = statistics(
        [ModelStatistics(name="m", version="1", success=Spent(count=2, ns=5), batches=[(2, Spent(count=1, ns=3))])]
    )
    one = entry["model_stats"][0]
    assert one["inference_stats"]["success"] == {"count": 2, "ns": 5}
    assert one["batch_stats"] == [{"batch_size": 2, "compute_infer": {"count": 1, "ns": 3}}]
    assert repository_index([("m", "1", "READY", "")]) == [
        {"name": "m", "version": "1", "state": "READY", "reason": ""}
    ]
