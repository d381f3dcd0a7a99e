"""The response cache: the same question is answered once, and nobody ever gets an answer that was not theirs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from modelyard.domain.access import KeyRecord, Scope, Verb, key_id, key_mac, make_key
from modelyard.domain.routing import ResponseCache, RoutingTable
from modelyard.inference.routing.caching import KeptAnswers

PEPPER = bytes.fromhex("ab" * 32)
CACHE = ResponseCache(ttl_s=600.0)
INFER = "/v2/models/m1/infer"


def answer(size: int = 4) -> dict[str, np.ndarray]:
    return {"y": np.arange(size, dtype="f4")}


def test_what_is_kept_is_bounded_in_entries_and_bytes_and_the_oldest_use_goes_first() -> None:
    kept = KeptAnswers(ResponseCache(ttl_s=60, max_entries=3))
    for key in (b"a", b"b", b"c"):
        kept.keep(key, answer())
    assert kept.find(b"a") is not None
    kept.keep(b"d", answer())
    assert [key for key in (b"a", b"b", b"c", b"d") if kept.find(key)] == [b"a", b"c", b"d"]
    small = KeptAnswers(ResponseCache(ttl_s=60, max_bytes=10_000))
    for index in range(100):
        small.keep(bytes([index]), answer(100))
    assert len(small) == 10_000 // (400 + 256)
    assert small.size <= 10_000
    small.keep(b"large", answer(10_000))
    assert small.find(b"large") is None
    assert small.find(bytes([99])) is not None, "and what was there stays"


def test_what_is_kept_ends_and_is_a_copy() -> None:
    now = [0.0]
    kept = KeptAnswers(ResponseCache(ttl_s=10), clock=lambda: now[0])
    mine = answer()
    kept.keep(b"a", mine)
    mine["y"][:] = -1
    assert kept.find(b"a")["y"].tolist() == [0, 1, 2, 3]
    now[0] = 10.0
    assert kept.find(b"a") is None
    assert (len(kept), kept.size) == (0, 0)


@pytest.fixture
def ask():
    def post(client: Any, body: dict, path: str = INFER, **more: Any) -> tuple[str | None, list]:
        answer = client.post(path, json=body, **more)
        assert answer.status_code == 200, answer.text
        return answer.headers.get("x-cache"), answer.json()["outputs"][0]["data"]

    return post


def test_the_same_question_is_answered_without_a_run(kit, packages, servers, ask) -> None:
    route = kit.service("m1", kit.backend(packages.linear("m1", scale=2.0)), cache=CACHE)
    server = servers.start(kit.table(route))
    one, other = kit.question([1.0, 2.0, 3.0]), kit.question([4.0, 5.0, 6.0])
    with server.client() as client:
        assert ask(client, one) == ("miss", [2.0, 4.0])
        assert ask(client, one) == ("hit", [2.0, 4.0])
        assert ask(client, other) == ("miss", [8.0, 10.0])
        assert ask(client, one | {"id": "mine"}) == ("hit", [2.0, 4.0])
        assert client.post(INFER, json=one | {"id": "mine"}).json()["id"] == "mine"
        assert ask(client, one | {"parameters": {"mode": "a"}})[0] == "miss", "a parameter may change the answer"
        as_v1 = client.post("/v1/models/m1:predict", json={"instances": [[1.0, 2.0, 3.0]]})
        assert (as_v1.headers["x-cache"], as_v1.json()) == ("hit", {"predictions": [[2.0, 4.0]]})
        bad = client.post(INFER, json=kit.question([1.0, 2.0]))
        assert bad.status_code == 400
        named = client.post("/v2/models/m1/versions/1/infer", json=one)
        assert "x-cache" not in named.headers, "who names a version gets a run"
        stats = client.get("/v2/models/m1/stats").json()["model_stats"][0]
    spent = stats["inference_stats"]
    assert (spent["cache_hit"]["count"], spent["cache_miss"]["count"]) == (4, 3)
    assert spent["cache_hit"]["ns"] > 0
    assert stats["execution_count"] == 4
    assert spent["success"]["count"] == 8
    figures = server.figures()
    of = 'project="default",service="m1"'
    assert figures[f"modelyard_inputs_received_total{{{of}}}"] == 9
    assert figures[f"modelyard_inputs_answered_total{{{of}}}"] == 8
    assert figures[f"modelyard_inputs_in_flight{{{of}}}"] == 0
    lookups = "modelyard_response_cache_lookup_seconds_count"
    assert figures[f'{lookups}{{{of},model="m1",version="1",outcome="hit"}}'] == 4


def test_another_model_with_the_same_payload_gets_its_own_answer(kit, packages, servers, ask) -> None:
    routes = [
        kit.service(name, kit.backend(packages.linear(f"{project}-{name}", scale=scale)), cache=CACHE, project=project)
        for name, scale, project in (("m1", 2.0, "default"), ("m2", 3.0, "default"), ("m1", 5.0, "team"))
    ]
    with servers.start(kit.table(*routes)).client() as client:
        for _ in range(2):
            assert ask(client, kit.question())[1] == [2.0, 4.0]
            assert ask(client, kit.question(), "/v2/models/m2/infer")[1] == [3.0, 6.0]
            assert ask(client, kit.question(), "/p/team/v2/models/m1/infer")[1] == [5.0, 10.0]


def test_a_new_revision_never_gives_the_answer_of_the_old_one(kit, packages, servers, ask) -> None:
    old, new = packages.linear("old", scale=2.0), packages.linear("new", scale=7.0)
    first = kit.service("m1", kit.backend(old), cache=CACHE)
    both = replace(
        first, backends=(kit.backend(old, weight=50), kit.backend(new, version="2", revision=2, weight=50)), revision=2
    )
    with servers.start(kit.table(both)).client() as client:
        seen = set()
        for _ in range(20):
            got = client.post(INFER, json=kit.question())
            seen.add((got.headers["x-model-version"], tuple(got.json()["outputs"][0]["data"])))
    assert seen == {("1", (2.0, 4.0)), ("2", (7.0, 14.0))}


def test_callers_of_other_projects_do_not_learn_what_was_asked(kit, packages, servers, pepper, ask) -> None:
    keys = {project: make_key() for project in ("one", "two")}
    records = tuple(
        KeyRecord(
            id=key_id(key), mac=key_mac(key, pepper=PEPPER), name=project, scopes=(Scope(Verb.INFER),), project=project
        )
        for project, key in keys.items()
    )
    route = kit.service("m1", kit.backend(packages.linear("m1")), cache=CACHE)
    table = RoutingTable(revision=1, services=(route,), keys=records, auth_required=True)
    path = "/p/default/v2/models/m1/infer"
    with servers.start(table, pepper=str(pepper)).client() as client:
        for project in ("one", "two"):
            headers = {"authorization": f"Bearer {keys[project]}"}
            assert ask(client, kit.question(), path, headers=headers)[0] == "miss", project
            assert ask(client, kit.question(), path, headers=headers)[0] == "hit", project


def test_without_a_cache_nothing_is_said_and_every_question_is_run(kit, packages, servers, ask) -> None:
    server = servers.start(kit.table(kit.service("m1", kit.backend(packages.linear("m1")))))
    with server.client() as client:
        assert [ask(client, kit.question())[0] for _ in range(2)] == [None, None]
        assert client.get("/v2/models/m1/stats").json()["model_stats"][0]["execution_count"] == 2


def test_texts_are_told_apart_however_they_are_cut(kit, packages, servers) -> None:
    from modelyard.domain.tensors import DataType

    package = packages.same("m_bytes", kit.spec("x", DataType.BYTES, -1, 2))
    server = servers.start(kit.table(kit.service("m1", kit.backend(package), cache=CACHE)))
    with server.client() as client:
        for texts in (["ab", "c"], ["a", "bc"], ["", "abc"]):
            body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "BYTES", "data": texts}]}
            assert client.post(INFER, json=body).json()["outputs"][0]["data"] == texts


def test_a_question_whose_client_has_gone_is_booked_and_not_lost(kit, packages, servers, tmp_path) -> None:
    import socket

    socket_path = tmp_path / "w.sock"
    package = packages.linear("m1")
    backend = kit.backend(package, workers=(str(socket_path),))
    route = kit.service("m1", backend, cache=CACHE, isolation="process")
    server = servers.start(kit.table(route), wait_first_s=0.1)
    servers.worker(package, socket_path)
    kit.until(server.is_ready)
    with server.client() as client:
        assert client.post(INFER, json=kit.question()).headers["x-cache"] == "miss"
        assert client.post(INFER, json=kit.question()).headers["x-cache"] == "hit"
    body = b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[7,8,9]}]}'
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (INFER.encode(), len(body))
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head + body)
    of = 'project="default",service="m1"'

    def settled() -> bool:
        figures = server.figures()
        return (
            figures[f"modelyard_inputs_received_total{{{of}}}"] == 22
            and not figures[f"modelyard_inputs_in_flight{{{of}}}"]
        )

    kit.until(settled)
