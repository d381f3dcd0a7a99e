"""Clients that others publish, unmodified, get right answers from a live server."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import modelyard.inference.grpc
from modelyard.inference.grpc.messages import POOL
from modelyard.inference.grpc.names import SERVICES

RIGHT = [[2.0, 4.0], [8.0, 10.0]]
WORDS = ["", "é", "long " * 50]
SHAPE = "'x' has the shape [1, 4], the model takes [-1, 3] (-1: any size)"
NO_OVERRIDES = "only what the library examined and approved is loaded; overrides are not taken"
NO_MODEL = "no service of this name is there"
PROTO = Path(modelyard.inference.grpc.__file__).parent / "proto"


@pytest.fixture(scope="session")
def triton_http(run_client, model_server):
    return run_client("triton_http.py", model_server[0])


@pytest.fixture(scope="session")
def triton_grpc(run_client, model_server):
    return run_client("triton_grpc.py", model_server[1])


@pytest.fixture(scope="session")
def kserve(run_client, model_server):
    return run_client("kserve_clients.py", f"http://{model_server[0]}", model_server[1])


@pytest.fixture(scope="session")
def mlserver(run_client, model_server):
    return run_client("mlserver_types.py", f"http://{model_server[0]}", model_server[1])


def test_tritonclient_http_predicts_in_json_and_binary(triton_http) -> None:
    found = triton_http["sync"]
    for binary in ("False", "True"):
        assert found[f"infer_{binary}"] == [RIGHT, "r1"]
        assert found[f"all_outputs_{binary}"] == RIGHT
        assert found[f"words_{binary}"] == WORDS
        assert [line.split(":")[1:] for line in found[f"classes_{binary}"]] == [["1", "yes"], ["1", "yes"]]
        assert found[f"compressed_{binary}_gzip"] == RIGHT
    assert found["async"] == found["versioned"] == RIGHT


def test_tritonclient_http_reads_what_is_served(triton_http) -> None:
    found = triton_http["sync"]
    assert found["live"] is found["ready"] is True
    assert found["model_ready"] == [True, False, False]
    assert found["metadata"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert found["metadata"]["versions"] == ["3"]
    assert found["config"] == 10000
    assert {row["name"]: row["state"] for row in found["index"]} == dict.fromkeys(
        ("m1", "sorter", "words", "lines", "columns"), "READY"
    )
    assert found["statistics"] > 0
    assert found["server"] == "modelyard"


def test_tritonclient_http_reads_refusals(triton_http) -> None:
    assert triton_http["sync"]["errors"] == [["400", SHAPE], ["404", NO_MODEL], ["501", NO_OVERRIDES]]


def test_tritonclient_http_loads_unloads_and_sets_what_is_logged(triton_http) -> None:
    assert triton_http["sync"]["loading"] == [False, True]
    assert triton_http["sync"]["log"] == [1, 0]


def test_tritonclient_http_aio(triton_http) -> None:
    assert triton_http["aio"] == {"ready": True, "infer": [RIGHT] * 8}


def test_tritonclient_grpc(triton_grpc) -> None:
    found = triton_grpc["sync"]
    assert found["live"] is found["ready"] is found["model_ready"] is True
    assert found["infer"] == [RIGHT, "r1"]
    assert found["compressed"] == found["async"] == RIGHT
    assert found["words"] == WORDS
    assert [line.split(":")[1:] for line in found["classes"]] == [["1", "yes"], ["1", "yes"]]
    assert found["metadata"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}]
    assert found["config"] == 10000
    assert len(found["index"]) == 5
    assert found["statistics"] > 0
    assert found["server"] == "modelyard"


def test_tritonclient_grpc_reads_refusals(triton_grpc) -> None:
    assert triton_grpc["sync"]["errors"] == [
        ["StatusCode.INVALID_ARGUMENT", SHAPE],
        ["StatusCode.NOT_FOUND", NO_MODEL],
        ["StatusCode.UNIMPLEMENTED", NO_OVERRIDES],
    ]


def test_tritonclient_grpc_loads_unloads_and_sets_what_is_logged(triton_grpc) -> None:
    assert triton_grpc["sync"]["loading"] == [False, True]
    assert triton_grpc["sync"]["log"] == {"uint32_param": 1}


def test_tritonclient_grpc_streams(triton_grpc) -> None:
    assert triton_grpc["sync"]["stream"] == [["0", RIGHT], ["1", RIGHT], SHAPE, ["3", RIGHT], ["4", RIGHT]]
    assert triton_grpc["aio"]["stream"] == [[str(n), RIGHT] for n in range(3)]


def test_tritonclient_grpc_aio(triton_grpc) -> None:
    assert triton_grpc["aio"]["infer"] == [RIGHT] * 8


def test_the_kserve_sdk_over_rest(kserve) -> None:
    found = kserve["rest"]
    assert found["live"] is found["ready"] is found["model_ready"] is found["v1_ready"] is True
    assert found["infer_False"] == found["infer_True"] == ["r1", "m1", RIGHT]
    assert found["dict"] == RIGHT
    assert found["v1"] == {"predictions": RIGHT}


def test_the_kserve_sdk_over_grpc(kserve) -> None:
    found = kserve["grpc"]
    assert found["live"] is found["ready"] is found["model_ready"] is True
    assert found["infer"] == [["r1", "m1", RIGHT]] * 2


def test_mlservers_types_and_codecs_over_rest(mlserver) -> None:
    found = mlserver["rest"]
    assert found["infer"] == ["r1", "m1", RIGHT]
    assert found["request_codec"] == RIGHT
    assert found["words"] == ["a", "é"]
    assert found["columns"] == [[1.0], [2.0]]
    assert found["server"] == "modelyard"
    assert found["model"] == ["m1", ["3"], [[-1, 3]]]


def test_mlservers_messages_over_grpc(mlserver) -> None:
    found = mlserver["grpc"]
    assert found["infer_False"] == found["infer_True"] == ["r1", RIGHT]
    assert found["ready"] is True
    assert found["model"] == "m1"


def test_reflection_is_enough_for_a_tool(run_client, model_server) -> None:
    found = run_client("reflected.py", model_server[1])
    assert set(SERVICES) == set(found["services"])
    assert "ModelStreamInfer" in found["methods"]
    assert found["ready"] is True


def test_the_proto_files_are_the_published_protocol_and_what_is_compiled(run_client) -> None:
    found = run_client("published_descriptors.py", str(PROTO))
    assert bytes.fromhex(found["compiled"]) == (PROTO / "descriptors.binpb").read_bytes()
    published = found["published"]
    ours = POOL.FindFileByName("open_inference.proto")
    for name, message in ours.message_types_by_name.items():
        for field in message.fields:
            assert published[f"inference.{name}"][field.name][0] == field.number
            assert published[f"inference.{name}"][field.name][1] == field.type
            assert (published[f"inference.{name}"][field.name][2] == 3) == field.is_repeated
    for method in ours.services_by_name["GRPCInferenceService"].methods:
        client_streams, server_streams, *kinds = published[SERVICES[0]][method.name]
        assert (client_streams, server_streams) == (method.client_streaming, method.server_streaming)
        assert kinds == [f".{method.input_type.full_name}", f".{method.output_type.full_name}"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(model_server, tmp_path) -> None:
    base = f"http://{model_server[0]}"
    body = {"inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [[1, 2, 3], [4, 5, 6]]}]}
    path = tmp_path / "body.json"
    path.write_text(json.dumps(body))
    plain = ["-H", "content-type: application/json", "--data-binary", f"@{path}"]
    for more in (plain, ["--http1.0", *plain], ["-H", "expect: 100-continue", *plain], ["--http2", *plain]):
        command = ["curl", "-sS", "--noproxy", "*", "--fail-with-body", *more, f"{base}/v2/models/m1/infer"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        assert json.loads(done.stdout)["outputs"][0]["data"] == [2.0, 4.0, 8.0, 10.0]
    head = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", "-I", f"{base}/v2/health/ready"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert head.stdout.startswith("HTTP/1.1 200")
