"""Requests that are answered later: accepted once, on the disk; run in turn; the answer is what it would have been."""

import json
import os
import signal
import struct
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from modelyard.domain.access import KeyLimits, KeyRecord, Scope, Verb, key_id, key_mac, make_key
from modelyard.domain.deferred import DeferredRules
from modelyard.domain.routing import Limits, RoutingTable

PEPPER = bytes.fromhex("ab" * 32)
LATER = {"prefer": "respond-async"}
INFER = "/v2/models/m1/infer"


@pytest.fixture
def start(kit, packages, servers, tmp_path):
    """A server with a directory of deferred requests; `services` name their limits."""

    def begin(*, rules: DeferredRules | None = None, keys: tuple[KeyRecord, ...] = (), limits=None, **config):
        package = packages.root / "m1"
        if not package.exists():
            packages.linear("m1")
        route = kit.service("m1", kit.backend(package), limits=limits or Limits())
        table = RoutingTable(
            revision=config.pop("revision", 1),
            services=(route,),
            keys=keys,
            auth_required=bool(keys),
            deferred=rules or DeferredRules(),
        )
        return servers.start(table, deferred=str(tmp_path / "deferred"), **config)

    return begin


def final(kit, client: httpx.Client, location: str) -> dict:
    def ended() -> dict | None:
        document = client.get(location).json()
        return document if document["status"] in ("succeeded", "failed", "cancelled") else None

    return kit.until(ended)


def test_an_accepted_request_gets_the_answer_that_it_would_have_had_at_once(kit, start) -> None:
    server = start()
    with server.client() as client:
        at_once = client.post(INFER, json=kit.question())
        accepted = client.post(INFER, json=kit.question(), headers=LATER)
        assert accepted.status_code == 202
        assert accepted.headers["preference-applied"] == "respond-async"
        assert accepted.headers["retry-after"] == "1"
        location = accepted.headers["location"]
        assert accepted.json()["status"] == "queued"
        document = final(kit, client, location)
        assert document["status"] == "succeeded"
        assert document["response_status"] == 200
        answer = client.get(document["response"])
    assert answer.status_code == 200
    assert answer.json() == at_once.json()
    for name in ("x-model-version", "x-model-digest", "x-revision"):
        assert answer.headers[name] == at_once.headers[name]


def test_binary_and_the_other_dialects_are_answered_later_too(kit, start) -> None:
    server = start()
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
    wanted = [{"name": "y", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    body = head + struct.pack("<3f", 1.0, 2.0, 3.0)
    sized = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    with server.client() as client:
        for path, content, headers in (
            (INFER, body, sized),
            ("/v1/models/m1:predict", b'{"instances": [[1, 2, 3]]}', {"content-type": "application/json"}),
            ("/invocations", b'{"inputs": [[1, 2, 3]]}', {"content-type": "application/json"}),
        ):
            at_once = client.post(path, content=content, headers=headers)
            accepted = client.post(path, content=content, headers={**headers, **LATER})
            assert accepted.status_code == 202, accepted.text
            final(kit, client, accepted.headers["location"])
            answer = client.get(accepted.headers["location"] + "/response")
            assert answer.content == at_once.content
            assert answer.headers["content-type"] == at_once.headers["content-type"]


def test_an_event_is_answered_later_by_an_event_with_its_id(kit, start) -> None:
    server = start()
    event = {"ce-specversion": "1.0", "ce-id": "e-7", "ce-source": "/me", "ce-type": "ask"}
    with server.client() as client:
        accepted = client.post(INFER, json=kit.question(), headers={**event, **LATER})
        final(kit, client, accepted.headers["location"])
        answer = client.get(accepted.headers["location"] + "/response")
    assert answer.headers["ce-id"] == "e-7"
    assert answer.headers["ce-type"] == "org.kubeflow.serving.inference.response"


def test_what_does_not_fit_is_refused_at_once_and_leaves_nothing(kit, start, tmp_path) -> None:
    server = start()
    with server.client() as client:
        refused = client.post(INFER, json=kit.question([1.0, 2.0]), headers=LATER)
        unknown = client.post("/v2/models/m2/infer", json=kit.question(), headers=LATER)
        hooked = client.post(INFER, json=kit.question(), headers={**LATER, "x-webhook-url": "http://127.0.0.1/"})
    assert (refused.status_code, refused.json()["code"]) == (400, "shape_mismatch")
    assert unknown.status_code == 404
    assert (hooked.status_code, hooked.json()["code"]) == (501, "not_supported")
    assert not list((tmp_path / "deferred").glob("*/*.request"))
    figures = server.figures()
    assert figures['modelyard_inputs_received_total{project="default",service="m1"}'] == 2
    assert sum(value for name, value in figures.items() if name.startswith("modelyard_inputs_rejected_total")) == 2


def test_a_server_without_a_directory_answers_at_once(kit, packages, servers) -> None:
    server = servers.start(kit.table(kit.service("m1", kit.backend(packages.linear("m1")))))
    with server.client() as client:
        assert client.post(INFER, json=kit.question(), headers=LATER).status_code == 200
        assert client.get(f"/v2/requests/{'0' * 32}").status_code == 404


def test_the_same_idempotency_key_is_the_same_request_on_every_server(kit, start) -> None:
    servers = [start(id=f"s{number}") for number in range(2)]
    key = {**LATER, "idempotency-key": str(uuid.uuid4())}

    def send(server) -> httpx.Response:
        with server.client() as client:
            while True:
                answer = client.post(INFER, json=kit.question(), headers=key)
                if answer.status_code != 503:  # another server is accepting it at this moment
                    return answer

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, servers * 8))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.headers["location"] for answer in answers}) == 1
    with servers[0].client() as client:
        final(kit, client, answers[0].headers["location"])
        other = client.post(INFER, json=kit.question([9.0, 9.0, 9.0]), headers=key)
    assert other.status_code == 409
    assert servers[0].figures()['modelyard_inputs_answered_total{project="default",service="m1"}'] == 1


def test_whoever_else_asks_hears_that_there_is_no_such_request(kit, start, pepper) -> None:
    mine, theirs, admin = (make_key() for _ in range(3))
    records = tuple(
        KeyRecord(id=key_id(key), mac=key_mac(key, pepper=PEPPER), name="k", scopes=(Scope(verb),))
        for key, verb in ((mine, Verb.INFER), (theirs, Verb.INFER), (admin, Verb.ADMIN))
    )
    server = start(keys=records, pepper=str(pepper))
    with server.client() as client:
        bearer = {"authorization": f"Bearer {mine}"}
        location = client.post(INFER, json=kit.question(), headers={**bearer, **LATER}).headers["location"]
        assert client.get(location).status_code == 401
        foreign = client.get(location, headers={"authorization": f"Bearer {theirs}"})
        nothing = client.get(f"/v2/requests/{'0' * 32}", headers={"authorization": f"Bearer {theirs}"})
        assert foreign.status_code == nothing.status_code == 404
        assert foreign.json()["error"] == nothing.json()["error"]
        assert client.delete(location, headers={"authorization": f"Bearer {theirs}"}).status_code == 404
        assert client.get(location, headers=bearer).status_code == 200
        assert client.get(location, headers={"authorization": f"Bearer {admin}"}).status_code == 200


def test_the_rate_of_a_key_counts_once_when_the_request_is_accepted(kit, start, pepper) -> None:
    key = make_key()
    record = KeyRecord(
        id=key_id(key),
        mac=key_mac(key, pepper=PEPPER),
        name="k",
        scopes=(Scope(Verb.INFER),),
        limits=KeyLimits(requests_per_s=5.0),
    )
    server = start(keys=(record,), pepper=str(pepper))
    with server.client(headers={"authorization": f"Bearer {key}"}) as client:
        answers = [client.post(INFER, json=kit.question(), headers=LATER) for _ in range(5)]
        assert {answer.status_code for answer in answers} == {202}
        for answer in answers:
            kit.until(lambda at=answer.headers["location"]: client.get(at).json()["status"] == "succeeded")


def test_a_service_without_room_is_asked_again_until_it_has_some(kit, start) -> None:
    server = start(limits=Limits(requests_per_s=4.0), rules=DeferredRules(at_once=4))
    with server.client() as client:
        accepted = [client.post(INFER, json=kit.question(), headers=LATER) for _ in range(10)]
        documents = [final(kit, client, answer.headers["location"]) for answer in accepted]
    assert {document["status"] for document in documents} == {"succeeded"}
    assert all(document["tries"] == 1 for document in documents)


def test_beyond_what_may_wait_more_are_refused(kit, start, packages) -> None:
    server = start(limits=Limits(requests_per_s=0.001), rules=DeferredRules(most_waiting=3))
    with server.client() as client:
        client.post(INFER, json=kit.question())  # takes the one request of a long while
        answers = [client.post(INFER, json=kit.question(), headers=LATER) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 503, 503]
        assert answers[-1].json()["code"] == "overloaded"
        assert answers[-1].headers["retry-after"]
        gone = answers[0].headers["location"]
        assert client.delete(gone).status_code == 204
        assert final(kit, client, gone)["status"] == "cancelled"
        assert client.post(INFER, json=kit.question(), headers=LATER).status_code == 202


def test_an_answer_can_be_let_go_and_goes_by_itself(kit, start) -> None:
    server = start(rules=DeferredRules(kept_s=0.01))
    with server.client() as client:
        location = client.post(INFER, json=kit.question(), headers=LATER).headers["location"]
        final(kit, client, location)
        assert client.delete(location).status_code == 204
        assert client.get(location).status_code == 404


def test_one_that_waits_too_long_has_failed(kit, start) -> None:
    server = start(limits=Limits(requests_per_s=0.001), rules=DeferredRules(patience_s=0.5))
    with server.client() as client:
        client.post(INFER, json=kit.question())
        location = client.post(INFER, json=kit.question(), headers=LATER).headers["location"]
        document = final(kit, client, location)
        answer = client.get(location + "/response")
    assert (document["status"], document["code"]) == ("failed", answer.json()["code"])
    assert answer.status_code in (429, 504)


def test_accepted_requests_survive_the_kill_of_their_server_and_are_answered_once_each(kit, start) -> None:
    """Killed again and again while requests come in: every one that got its 202 is answered."""
    accepted: list[str] = []
    stop = threading.Event()
    running = [start(id="s0", limits=Limits(requests_per_s=400.0))]

    def send() -> None:
        while not stop.is_set():
            try:
                with running[-1].client() as client:
                    while not stop.is_set():
                        answer = client.post(INFER, json=kit.question(), headers=LATER)
                        if answer.status_code == 202:
                            accepted.append(answer.headers["location"])
            except httpx.TransportError:
                stop.wait(0.02)

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    for number in range(1, 6):
        goal = len(accepted) + 40
        kit.until(lambda goal=goal: len(accepted) >= goal)
        running[-1].kill()
        running.append(start(id="s0", limits=Limits(requests_per_s=400.0), revision=number + 1))
    stop.set()
    for sender in senders:
        sender.join()
    with running[-1].client() as client:
        documents = [final(kit, client, location) for location in accepted]
    assert len(set(accepted)) == len(accepted) >= 200
    assert {document["status"] for document in documents} == {"succeeded"}
    assert running[-1].figures()['modelyard_deferred_waiting{process="s0"}'] == 0


def test_a_request_that_ends_its_process_is_given_up(kit, start, tmp_path) -> None:
    server = start(limits=Limits(requests_per_s=0.001))
    with server.client() as client:
        client.post(INFER, json=kit.question())
        location = client.post(INFER, json=kit.question(), headers=LATER).headers["location"]
    [request] = (tmp_path / "deferred").glob("*/*.request")
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    request.with_suffix(".tries").write_bytes(b"...")  # as three deaths in the middle of a run leave it
    again = start(id="s1")
    with again.client() as client:
        document = final(kit, client, location)
        assert (document["status"], document["code"]) == ("failed", "run_failed")
        assert client.get(location + "/response").status_code == 500


def test_a_draining_server_leaves_the_rest_to_the_next(kit, start) -> None:
    server = start(id="s0", limits=Limits(requests_per_s=0.001))
    with server.client() as client:
        client.post(INFER, json=kit.question())
        locations = [client.post(INFER, json=kit.question(), headers=LATER).headers["location"] for _ in range(3)]
    assert server.stop() == 0
    with start(id="s1", revision=2).client() as client:
        assert {final(kit, client, location)["status"] for location in locations} == {"succeeded"}
