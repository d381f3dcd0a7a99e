"""V2 servers elsewhere behind our own listener: every dialect works, answers are checked, trouble has a code."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from small_servers import Upstream
from upstream_routes import relayed

from modelyard.domain.tensors import DataType, TensorSpec

ROWS = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}]}


@pytest.fixture
def relay(servers: Any, kit: Any, upstream: Upstream) -> Callable[..., Any]:
    def start(**more: Any) -> Any:
        server = servers.start(kit.table(relayed("twice", upstream.url(), protocol="v2", model="double", **more)))
        kit.until(server.is_ready)
        return server

    return start


def test_a_v2_server_is_asked_under_its_name_and_answers_under_ours(relay: Any, upstream: Upstream) -> None:
    with relay().client() as client:
        answer = client.post("/v2/models/twice/infer", json=ROWS | {"id": "mine"})
        assert answer.status_code == 200, answer.text
        document = answer.json()
        assert (document["model_name"], document["id"]) == ("twice", "mine")
        assert document["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [2.0, 4.0, 6.0, 8.0]}]
        assert answer.headers["x-model-version"] == document["model_version"]
        metadata = client.get("/v2/models/twice").json()
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
        assert metadata["platform"] == "small_test"
    assert upstream.asked[-1][0] == "/v2/models/double/infer"


def test_every_dialect_of_ours_works_with_it(relay: Any) -> None:
    with relay().client() as client:
        assert client.post("/v1/models/twice:predict", json={"instances": [[1, 2]]}).json() == {
            "predictions": [[2.0, 4.0]]
        }
        assert client.post("/invocations", json={"inputs": [[1, 2]]}).json()["predictions"] == [[2.0, 4.0]]
        wanted = ROWS | {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
        answer = client.post("/v2/models/twice/infer", json=wanted)
        assert int(answer.headers["inference-header-content-length"]) + 16 == len(answer.content)


def test_a_wrong_question_is_refused_here_with_an_example_that_works(relay: Any, upstream: Upstream) -> None:
    with relay().client() as client:
        asked = len(upstream.asked)
        wrong = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
        refused = client.post("/v2/models/twice/infer", json=wrong)
        assert (refused.status_code, refused.json()["code"]) == (400, "shape_mismatch")
        assert len(upstream.asked) == asked
        assert client.post("/v2/models/twice/infer", json=refused.json()["example"]).status_code == 200


@pytest.mark.parametrize(
    ("mode", "status", "code"),
    [
        ("wrong shape", 502, "upstream_failed"),
        ("broken", 502, "upstream_failed"),
        ("garbage", 502, "upstream_failed"),
        ("busy", 503, "upstream_busy"),
        ("silent", 504, "upstream_timeout"),
        ("refuses", 400, "bad_request"),
    ],
)
def test_what_goes_wrong_there_has_a_code_here(
    relay: Any, upstream: Upstream, mode: str, status: int, code: str
) -> None:
    server = relay(timeout_ms=1500)
    upstream.mode = mode
    with server.client() as client:
        answer = client.post("/v2/models/twice/infer", json=ROWS)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        upstream.go_on.set()
        upstream.mode = "well"
        assert client.post("/v2/models/twice/infer", json=ROWS).status_code == 200
    figures = server.figures()
    assert figures['modelyard_inputs_received_total{project="default",service="twice"}'] == 2
    assert figures['modelyard_inputs_in_flight{project="default",service="twice"}'] == 0


def test_an_upstream_that_does_not_describe_itself_is_described_by_its_specification(
    servers: Any, kit: Any, upstream: Upstream
) -> None:
    upstream.metadata = False
    specs = {
        "inputs": (TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 2)),),
        "outputs": (TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, 2)),),
    }
    silent = relayed("silent", upstream.url(), protocol="v2", model="double")
    said = relayed("said", upstream.url(), protocol="v2", model="double", **specs)
    server = servers.start(kit.table(silent, said))
    with server.client() as client:
        kit.until(lambda: client.post("/v2/models/said/infer", json=ROWS).status_code == 200)
        refused = kit.until(lambda: _text(client.post("/v2/models/silent/infer", json=ROWS), "does not say"))
        assert refused.status_code == 503


def test_another_modelyard_is_relayed_in_binary(servers: Any, kit: Any, packages: Any) -> None:
    far = servers.start(kit.table(kit.service("m1", kit.backend(packages.linear()))))
    near = servers.start(
        kit.table(relayed("near", far.url, protocol="v2", model="m1")),
        id="near",
        metrics=str(servers.root / "metrics-near"),
    )
    kit.until(near.is_ready)
    with near.client() as client:
        answer = client.post("/v2/models/near/infer", json=kit.question([1.0, 2.0, 3.0]))
        assert answer.json()["outputs"][0]["data"] == [1.0, 2.0]
        assert client.get("/v2/models/near").json()["platform"] == "onnx_onnxv1"
    far.stop()
    with near.client() as client:
        gone = client.post("/v2/models/near/infer", json=kit.question([1.0, 2.0, 3.0]))
        assert (gone.status_code, gone.json()["code"]) == (502, "upstream_unreachable")


def test_an_upstream_and_a_model_share_a_service_by_weight(
    servers: Any, kit: Any, packages: Any, upstream: Upstream
) -> None:
    own = kit.backend(packages.same("own", kit.spec("x", DataType.FP32, -1, 2)), revision=1, weight=50)
    far = relayed("both", upstream.url(), protocol="v2", model="double").backends[0]
    route = kit.service("both", own, replace(far, revision=2, weight=50))
    server = servers.start(kit.table(route))
    with server.client() as client:
        kit.until(lambda: client.get("/v2/health/ready").status_code == 200)
        kit.until(lambda: len(client.get("/v2/models/both").json()["versions"]) == 2)
        answers = [client.post("/v2/models/both/infer", json=ROWS) for _ in range(10)]
    assert [answer.status_code for answer in answers] == [200] * 10
    assert sorted(answer.headers["x-revision"] for answer in answers) == ["1"] * 5 + ["2"] * 5
    for answer in answers:
        factor = int(answer.headers["x-revision"])
        assert answer.json()["outputs"][0]["data"] == [factor * value for value in (1.0, 2.0, 3.0, 4.0)]


def _text(answer: Any, text: str) -> Any:
    return answer if text in answer.json()["error"] else None
