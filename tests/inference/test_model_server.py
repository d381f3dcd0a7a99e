"""A real model server, asked over its socket."""

import json
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from modelyard.domain.access import KeyRecord, Scope, Verb, key_id, key_mac, make_key
from modelyard.domain.contract import Golden
from modelyard.domain.routing import Batching, Limits

PEPPER = bytes.fromhex("ab" * 32)


def key_record(key: str, *scopes: Scope, project: str = "default", **more) -> KeyRecord:
    return KeyRecord(
        id=key_id(key) or "", mac=key_mac(key, pepper=PEPPER), name="k", scopes=scopes, project=project, **more
    )


@pytest.fixture
def served(packages, servers, kit):
    """m1 and a classifier, open to all."""
    m1, sorter = packages.linear("m1", scale=2.0), packages.classifier()
    return servers.start(
        kit.table(
            kit.service("m1", kit.backend(m1, version="3", revision=7)), kit.service("sorter", kit.backend(sorter))
        )
    )


def test_a_prediction_is_right_and_says_who_answered(served, kit) -> None:
    with served.client() as client:
        answer = client.post("/v2/models/m1/infer", json=kit.question([1, 2, 3], [4, 5, 6], id="mine"))
    assert answer.status_code == 200
    document = answer.json()
    assert document["model_name"] == "m1"
    assert document["model_version"] == "3"
    assert document["id"] == "mine"
    assert document["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [2.0, 4.0, 8.0, 10.0]}]
    assert answer.headers["x-model-version"] == "3"
    assert answer.headers["x-model-digest"] == "sha256:m1"
    assert answer.headers["x-revision"] == "7"
    assert answer.headers["x-request-id"]


def test_a_classifier_answers_with_labels(served, kit) -> None:
    with served.client() as client:
        answer = client.post("/v2/models/sorter/infer", json=kit.question([9, 1, 0], [1, 9, 0])).json()
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["label"] == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["no", "yes"]}
    assert outputs["p"]["shape"] == [2, 2]


def test_binary_tensors_go_both_ways(served) -> None:
    head = {
        "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(head).encode()
    with served.client() as client:
        answer = client.post(
            "/v2/models/m1/infer",
            content=text + struct.pack("<3f", 1, 2, 3),
            headers={"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))},
        )
    assert answer.headers["content-type"] == "application/octet-stream"
    size = int(answer.headers["inference-header-content-length"])
    assert np.frombuffer(answer.content[size:], "<f4").tolist() == [2.0, 4.0]


def test_pages_describe_what_is_served(served) -> None:
    with served.client() as client:
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready").json() == {"ready": True}
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert client.get("/v2/models").json() == {"models": ["m1", "sorter"]}
        assert client.get("/v1/models").json() == {"models": ["m1", "sorter"], "object": "list", "data": []}
        metadata = client.get("/v2/models/m1").json()
        assert metadata["versions"] == ["3"]
        assert metadata["platform"] == "onnx_onnxv1"
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
        assert metadata["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]
        assert client.get("/v2/models/m1/versions/3").json() == metadata
        assert client.get("/p/default/v2/models/m1").json() == metadata
        assert client.get("/v2/models/m1/ready").status_code == 200
        assert client.get("/v2/models/m1/config").json()["max_batch_size"] == 10000
        assert "statistics" in client.get("/v2").json()["extensions"]
        index = client.post("/v2/repository/index", json={"ready": True}).json()
        assert index == [
            {"name": "m1", "version": "3", "state": "READY", "reason": ""},
            {"name": "sorter", "version": "1", "state": "READY", "reason": ""},
        ]
        assert client.head("/v2/health/live").status_code == 200


def test_the_wrong_door_is_answered_with_its_status(served, kit) -> None:
    cases = [
        ("GET", "/v2/models/m1/infer", {}, 405, "method_not_allowed"),
        ("POST", "/v2/models/m1", {}, 405, "method_not_allowed"),
        ("POST", "/v2/models/nope/infer", {}, 404, "model_not_found"),
        ("POST", "/v2/models/..%2f..%2fetc/infer", {}, 404, "model_not_found"),
        ("POST", "/p/other/v2/models/m1/infer", {}, 404, "model_not_found"),
        ("POST", "/v2/models/m1/versions/4/infer", {}, 404, "version_not_found"),
        ("GET", "/nowhere", {}, 404, "route_not_found"),
        ("POST", "/v2/models/m1/infer", {"Content-Type": "text/plain"}, 415, "unsupported_type"),
        ("POST", "/v2/models/m1/infer", {"Accept": "text/csv"}, 406, "not_acceptable"),
        ("POST", "/v2/repository/models/m1/unload", {}, 400, "invalid_request"),
        ("POST", "/invocations", {}, 404, "not_found"),
    ]
    with served.client() as client:
        for method, path, headers, status, code in cases:
            given = {"Content-Type": "application/json"} | headers
            content = json.dumps(kit.question()) if method == "POST" else None
            answer = client.request(method, path, content=content, headers=given)
            assert (answer.status_code, answer.json()["code"]) == (status, code), (method, path)
            assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert client.post("/v2/models/m1/versions/3/infer", json=kit.question()).status_code == 200
        assert client.post("/p/default/v2/models/m1/infer", json=kit.question()).status_code == 200


def test_a_charset_and_no_content_type_are_fine(served, kit) -> None:
    body = json.dumps(kit.question()).encode()
    with served.client() as client:
        typed = client.post(
            "/v2/models/m1/infer", content=body, headers={"Content-Type": "application/json; charset=utf-8"}
        )
        untyped = client.post("/v2/models/m1/infer", content=body)
    assert typed.status_code == untyped.status_code == 200


def test_older_dialects_are_spoken(served, packages, servers, kit) -> None:
    with served.client() as client:
        answer = client.post("/v1/models/m1:predict", json={"instances": [[1, 2, 3], [4, 5, 6]]})
        assert answer.json() == {"predictions": [[2.0, 4.0], [8.0, 10.0]]}
        assert answer.headers["x-model-version"] == "3"
        assert client.post("/p/default/v1/models/m1:predict", json={"instances": [[1, 2, 3]]}).status_code == 200
        assert client.get("/v1/models/m1").json() == {"name": "m1", "ready": True}
        assert client.post("/v1/models/m1:predict", json={"instances": [[1]]}).status_code == 400
    alone = servers.start(kit.table(kit.service("only", kit.backend(packages.linear("only")))))
    with alone.client() as client:
        assert client.get("/ping").status_code == 200
        assert client.post("/invocations", json={"inputs": [[1, 2, 3]]}).json() == {"predictions": [[1.0, 2.0]]}


def test_the_account_adds_up_to_the_request(served, kit) -> None:
    with served.client() as client:
        for _ in range(20):
            client.post("/v2/models/m1/infer", json=kit.question())
        for _ in range(5):
            client.post("/v2/models/m1/infer", json=kit.question([1.0, 2.0]))
        client.post("/v2/models/m1/infer", content=b"{", headers={"Content-Type": "application/json"})
        stats = client.get("/v2/models/m1/stats").json()["model_stats"][0]
    figures = served.figures()
    of = 'project="default",service="m1"'
    assert figures[f"modelyard_inputs_received_total{{{of}}}"] == 26
    assert figures[f"modelyard_inputs_answered_total{{{of}}}"] == 20
    assert figures[f'modelyard_inputs_rejected_total{{{of},reason="shape_mismatch"}}'] == 5
    assert figures[f'modelyard_inputs_rejected_total{{{of},reason="bad_json"}}'] == 1
    assert figures[f"modelyard_inputs_in_flight{{{of}}}"] == 0
    assert figures[f'modelyard_requests_total{{{of},outcome="ok"}}'] == 20
    assert figures[f'modelyard_request_duration_seconds_count{{{of},model="m1",version="3"}}'] == 20
    assert stats["inference_count"] == 20
    assert stats["inference_stats"]["success"]["count"] == 20
    assert stats["inference_stats"]["compute_infer"]["ns"] > 0


def test_keys_are_checked_and_foreign_services_do_not_exist(packages, servers, kit, pepper) -> None:
    mine, theirs, reader, scraper, late = (make_key() for _ in range(5))
    records = (
        key_record(mine, Scope(Verb.INFER, "a"), project="a"),
        key_record(theirs, Scope(Verb.INFER, "b"), project="b"),
        key_record(reader, Scope(Verb.READ, "a"), project="a"),
        key_record(scraper, Scope(Verb.METRICS)),
        key_record(late, Scope(Verb.INFER, "a"), project="a", expires_at=time.time() - 1),
    )
    model = packages.linear("m1")
    routes = kit.table(
        kit.service("m1", kit.backend(model), project="a"),
        kit.service("secret", kit.backend(model), project="a"),
        keys=records,
    )
    server = servers.start(routes, pepper=str(pepper))

    def ask(key: str | None, path: str = "/v2/models/m1/infer") -> tuple[int, str]:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        with server.client(headers=headers) as client:
            answer = client.get(path) if "infer" not in path else client.post(path, json=kit.question())
        return answer.status_code, answer.json().get("code", "") if answer.content[:1] == b"{" else ""

    assert ask(mine) == (200, "")
    assert ask(mine, "/p/a/v2/models/m1/infer") == (200, "")
    for stranger in (None, "wrong", make_key(), late, mine[:-1] + "0"):
        assert ask(stranger) == (401, "auth_required")
        assert ask(stranger, "/v2/models/none/infer") == (401, "auth_required")
        assert ask(stranger, "/metrics") == (401, "auth_required")
    assert ask(reader) == (403, "forbidden")
    assert ask(reader, "/v2/models/m1") == (200, "")
    missing = ask(theirs, "/p/a/v2/models/none/infer")
    assert ask(theirs, "/p/a/v2/models/secret/infer") == missing == (404, "model_not_found")
    assert ask(theirs, "/p/a/v2/models/secret") == (404, "model_not_found")
    assert ask(theirs, "/v2/models/m1/infer") == (404, "model_not_found")
    assert ask(scraper, "/metrics") == (200, "")
    assert ask(mine, "/metrics") == (403, "forbidden")
    with server.client() as client:
        assert (client.get("/v2/health/ready").status_code, client.get("/readyz").content) == (200, b"")
        refused = client.post("/v2/models/m1/infer", json=kit.question())
        assert refused.headers["www-authenticate"] == "Bearer"


def test_a_service_takes_as_many_requests_as_its_limits_say(packages, servers, kit) -> None:
    model = packages.linear("m1")
    server = servers.start(
        kit.table(
            kit.service("slow", kit.backend(model), limits=Limits(requests_per_s=5)),
            kit.service(
                "narrow",
                kit.backend(model),
                limits=Limits(max_in_flight=1),
                batching=Batching(max_size=64, max_wait_ms=2000),
            ),
        )
    )
    with server.client() as client:
        answers = [client.post("/v2/models/slow/infer", json=kit.question()) for _ in range(12)]
        with ThreadPoolExecutor(2) as threads:
            both = [threads.submit(client.post, "/v2/models/narrow/infer", json=kit.question()) for _ in range(2)]
        taken, shut = sorted((each.result() for each in both), key=lambda answer: answer.status_code)
    statuses = [answer.status_code for answer in answers]
    assert 5 <= statuses.count(200) <= 7
    limited = answers[statuses.index(429)]
    assert limited.json()["code"] == "rate_limited"
    assert int(limited.headers["retry-after"]) >= 1
    assert taken.status_code == 200, "the one that waits for others to share its run"
    assert (shut.status_code, shut.json()["code"], shut.headers["retry-after"]) == (503, "overloaded", "1")


def test_a_model_that_cannot_load_is_not_ready_and_says_why(packages, servers, kit) -> None:
    good = packages.linear("m1")
    wrong = packages.linear(
        "wrong",
        golden=Golden(
            request=kit.question([1.0, 2.0, 3.0]),
            outputs=({"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [5.0, 5.0]},),
        ),
    )
    server = servers.start(kit.table(kit.service("m1", kit.backend(good)), kit.service("wrong", kit.backend(wrong))))
    with server.client() as client:
        refused = client.post("/v2/models/wrong/infer", json=kit.question())
        assert refused.status_code == 503
        assert refused.json()["code"] == "not_ready"
        assert "golden" in refused.json()["error"]
        assert int(refused.headers["retry-after"]) >= 1
        assert client.post("/v2/models/m1/infer", json=kit.question()).status_code == 200
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200
        states = {row["name"]: row["state"] for row in client.post("/v2/repository/index", json={}).json()}
    assert states == {"m1": "READY", "wrong": "UNAVAILABLE"}


def test_the_group_answers_for_a_server_that_was_killed(packages, servers, kit) -> None:
    """Two servers on one inherited socket, one set of figures; the death of one loses no count."""
    model = packages.linear("m1")
    routes = kit.table(kit.service("m1", kit.backend(model)))
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        listener.set_inheritable(True)
        first = servers.start(routes, fds=[listener.fileno()])
        second = servers.start(routes, fds=[listener.fileno()])
    assert first.port == second.port
    for _ in range(40):  # a connection each, so that both servers get some
        httpx.post(f"{first.url}/v2/models/m1/infer", json=kit.question(), trust_env=False).raise_for_status()
    total = 'modelyard_inputs_received_total{project="default",service="m1"}'
    assert first.figures()[total] == 40
    first.kill()
    assert second.figures()[total] == 40
    httpx.post(f"{second.url}/v2/models/m1/infer", json=kit.question(), trust_env=False).raise_for_status()
    figures = second.figures()
    assert figures[total] == 41
    assert figures['modelyard_inputs_in_flight{project="default",service="m1"}'] == 0
    assert 'process_resident_memory_bytes{process="model-server-1"}' in figures
    assert 'process_resident_memory_bytes{process="model-server-0"}' not in figures


def test_sigterm_drains_and_a_bad_configuration_is_refused_with_a_reason(served, servers, kit) -> None:
    with served.client() as client:
        assert client.post("/v2/models/m1/infer", json=kit.question()).status_code == 200
    assert served.stop() == 0
    lines = [json.loads(line) for line in served.log.read_text().splitlines()]
    assert [line["text"] for line in lines if line["logger"] == "modelyard.model_server"] == [
        "listening",
        "draining",
    ]


def test_the_access_log_has_a_line_for_each_request(packages, servers, kit, tmp_path) -> None:
    path = tmp_path / "access.log"
    server = servers.start(kit.table(kit.service("m1", kit.backend(packages.linear()))), access_log=str(path))
    with server.client() as client:
        client.post("/v2/models/m1/infer?key=secret", json=kit.question())
        client.get("/nowhere")
    server.stop()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/v2/models/m1/infer", 200),
        ("GET", "/nowhere", 404),
    ]
    assert "secret" not in path.read_text()
