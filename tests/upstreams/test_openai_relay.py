"""OpenAI-compatible servers elsewhere, relayed by real model servers: what goes there, comes back and is booked."""

import json
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from small_servers import USAGE, WORDS, Upstream
from upstream_routes import relayed

from modelyard.domain.access import KeyRecord, Scope, Verb, key_id, key_mac, make_key
from modelyard.domain.routing import Limits, SealedSecret
from modelyard.foundation.sealing import SealingKey

CHAT = {"model": "chat", "messages": [{"role": "user", "content": "Hello"}]}
LABELS = 'project="default",service="chat"'


@pytest.fixture
def relay(servers: Any, kit: Any, upstream: Upstream) -> Callable[..., Any]:
    def start(**more: Any) -> Any:
        config = more.pop("config", {})
        server = servers.start(kit.table(relayed("chat", f"{upstream.url()}/v1", **more)), **config)
        kit.until(server.is_ready)
        return server

    return start


def ask(server: Any, body: Any = CHAT, path: str = "/v1/chat/completions", **more: Any) -> httpx.Response:
    with server.client(**more) as client:
        return client.post(path, json=body)


def events(text: str) -> list[Any]:
    return [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]


def test_a_chat_goes_to_the_upstream_under_its_own_name_and_comes_back_with_our_headers(
    relay: Any, upstream: Upstream, kit: Any
) -> None:
    server = relay()
    body = {**CHAT, "temperature": 0.25, "tools": [{"type": "function", "function": {"name": "f"}}]}
    answer = ask(server, body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "".join(WORDS)
    assert answer.headers["x-revision"] == "1"
    assert len(answer.headers["x-model-version"]) == 12
    assert answer.headers["x-model-digest"].startswith("sha256:")
    path, headers, sent = upstream.asked[-1]
    assert path == "/v1/chat/completions"
    assert sent == {**body, "model": "small"}
    assert headers["x-request-id"] == answer.headers["x-request-id"]
    assert "Authorization" not in headers
    figures = server.figures()
    assert figures[f"modelyard_inputs_received_total{{{LABELS}}}"] == 1
    assert figures[f"modelyard_inputs_answered_total{{{LABELS}}}"] == 1
    tokens = {name: value for name, value in figures.items() if name.startswith("modelyard_tokens_total")}
    assert sorted(tokens.values()) == [USAGE["completion_tokens"], USAGE["prompt_tokens"]]


def test_embeddings_and_completions_are_relayed_too_and_other_addresses_say_what_there_is(
    relay: Any, upstream: Upstream
) -> None:
    server = relay()
    answer = ask(server, {"model": "chat", "input": ["a"]}, "/v1/embeddings")
    assert answer.json()["data"][0]["embedding"] == [0.5, 0.25]
    assert ask(server, {"model": "chat", "prompt": "a"}, "/v1/completions").status_code == 200
    assert ask(server, {"model": "chat", "prompt": "a"}, "/p/default/v1/completions").status_code == 200
    assert ask(server, CHAT, "/openai/v1/chat/completions").status_code == 200
    assert [path for path, _, body in upstream.asked if body] == [
        "/v1/embeddings",
        "/v1/completions",
        "/v1/completions",
        "/v1/chat/completions",
    ]
    other = ask(server, CHAT, "/v1/images/generations")
    assert (other.status_code, other.json()["code"]) == (404, "route_not_found")
    assert "/v1/embeddings" in other.json()["hint"]


def test_a_stream_arrives_event_by_event_while_the_upstream_still_writes(
    relay: Any, upstream: Upstream, kit: Any
) -> None:
    server = relay()
    upstream.mode = "step by step"
    with server.client() as client, client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as got:
        assert got.headers["content-type"].startswith("text/event-stream")
        assert got.headers["x-revision"] == "1"
        words, lines = [], got.iter_lines()
        for line in lines:
            if line.startswith("data: {"):
                words.append(json.loads(line[6:])["choices"][0]["delta"]["content"])
                upstream.go_on.set()  # it writes the next word only now: this one came without waiting for it
            elif line == "data: [DONE]":
                break
    assert words == WORDS
    figures = kit.until(lambda: _when(server, f"modelyard_inputs_answered_total{{{LABELS}}}", 1))
    assert [v for n, v in figures.items() if n.startswith("modelyard_time_to_first_byte_seconds_count")] == [1]
    assert [v for n, v in figures.items() if n.startswith("modelyard_tokens_total") and "completion" in n] == [4]


def test_token_counts_of_a_stream_are_shown_to_those_who_ask_for_them_only(relay: Any, upstream: Upstream) -> None:
    server = relay()
    plain = ask(server, {**CHAT, "stream": True}).text
    assert upstream.asked[-1][2]["stream_options"] == {"include_usage": True}
    assert len(events(plain)) == len(WORDS)
    assert plain.endswith("data: [DONE]\n\n")
    asked = ask(server, {**CHAT, "stream": True, "stream_options": {"include_usage": True}}).text
    assert events(asked)[-1]["usage"] == USAGE


def test_an_upstream_that_knows_no_stream_options_is_not_sent_any(relay: Any, upstream: Upstream) -> None:
    server = relay(stream_usage=False)
    assert ask(server, {**CHAT, "stream": True}).status_code == 200
    assert "stream_options" not in upstream.asked[-1][2]


def test_a_client_that_goes_ends_the_request_at_the_upstream(relay: Any, upstream: Upstream, kit: Any) -> None:
    server = relay()
    upstream.mode = "endless"
    with server.client() as client, client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as got:
        next(got.iter_lines())
    assert upstream.gone.wait(20), "the upstream goes on writing"
    kit.until(lambda: _when(server, f'modelyard_inputs_lost_total{{{LABELS},reason="cancelled"}}', 1))
    assert server.figures()[f"modelyard_inputs_in_flight{{{LABELS}}}"] == 0


def test_a_slow_reader_holds_the_upstream_back_instead_of_filling_our_memory(
    relay: Any, upstream: Upstream, kit: Any
) -> None:
    import psutil

    server = relay()
    upstream.mode = "endless"
    before = psutil.Process(server.process.pid).memory_info().rss
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps({**CHAT, "stream": True}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        slow.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
        assert not upstream.gone.wait(3)
        assert psutil.Process(server.process.pid).memory_info().rss - before < 32 << 20
    assert upstream.gone.wait(20)


@pytest.mark.parametrize(
    ("mode", "status", "code", "family"),
    [
        ("busy", 503, "upstream_busy", "rejected"),
        ("broken", 502, "upstream_failed", "answered"),
        ("moved", 502, "upstream_failed", "answered"),
        ("garbage", 502, "upstream_failed", "answered"),
        ("cut", 502, "upstream_failed", "answered"),
        ("silent", 504, "upstream_timeout", "lost"),
    ],
)
def test_what_goes_wrong_there_has_a_code_here_and_a_place_in_the_account(
    relay: Any, upstream: Upstream, mode: str, status: int, code: str, family: str
) -> None:
    server = relay(timeout_ms=1500)
    upstream.mode = mode
    answer = ask(server)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert answer.json()["hint"]
    if mode == "busy":
        assert answer.headers["retry-after"] == "7"
    figures = server.figures()
    booked = {n: v for n, v in figures.items() if n.startswith(f"modelyard_inputs_{family}_total") and "chat" in n}
    assert list(booked.values()) == [1]
    assert figures[f"modelyard_inputs_in_flight{{{LABELS}}}"] == 0
    assert figures[f'modelyard_requests_total{{{LABELS},outcome="{code}"}}'] == 1
    upstream.mode = "well"
    upstream.go_on.set()
    assert ask(server).status_code == 200


def test_a_refusal_that_blames_the_question_comes_back_as_the_upstream_wrote_it(relay: Any, upstream: Upstream) -> None:
    server = relay()
    upstream.mode = "refuses"
    answer = ask(server)
    assert answer.status_code == 400
    assert answer.json() == {"error": {"message": "context too long", "code": "context_length_exceeded"}}
    assert server.figures()[f'modelyard_requests_total{{{LABELS},outcome="upstream_4xx"}}'] == 1


def test_a_stream_that_breaks_off_ends_with_an_error_event(relay: Any, upstream: Upstream) -> None:
    server = relay()
    upstream.mode = "dies"
    text = ask(server, {**CHAT, "stream": True}).text
    assert events(text)[-1]["error"]["code"] == "upstream_failed"
    assert "[DONE]" not in text


def test_an_upstream_that_is_away_is_spared_and_found_again(
    servers: Any, kit: Any, make_upstream: Callable[..., Upstream]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = servers.start(kit.table(relayed("chat", f"http://127.0.0.1:{port}/v1")))
    answer = kit.until(lambda: (got := ask(server)).json()["error"]["message"].startswith("no connection") and got)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    upstream = make_upstream(port=port)
    kit.until(lambda: ask(server).status_code == 200)
    upstream.mode = "broken"
    codes = [ask(server).json()["error"]["code"] for _ in range(6)]
    assert codes == ["upstream_failed"] * 5 + ["upstream_unreachable"]
    asked = len(upstream.asked)
    assert "lately" in ask(server).json()["error"]["message"]
    assert len(upstream.asked) == asked, "an upstream that is spared is not asked"
    upstream.mode = "well"
    kit.until(lambda: ask(server).status_code == 200)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": []}, "model"),
        ({"model": 7}, "model"),
        ({"model": "chat", "stream": "yes"}, "stream"),
        ({"model": "chat", "stream_options": []}, "stream_options"),
    ],
)
def test_a_question_that_cannot_be_placed_names_the_field(relay: Any, body: Any, field: str) -> None:
    answer = ask(relay(), body)
    assert answer.status_code == 400
    assert answer.json()["details"][0]["field"] == field
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"model":"chat","model":"other"}', b'{"model":"chat","n":NaN}'])
def test_what_is_no_strict_json_object_never_reaches_the_upstream(relay: Any, upstream: Upstream, text: bytes) -> None:
    server = relay()
    with server.client() as client:
        headers = {"content-type": "application/json"}
        answer = client.post("/v1/chat/completions", content=text, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_json")
    assert not [path for path, _, body in upstream.asked if body]


def test_tensors_and_chats_are_told_apart(servers: Any, kit: Any, packages: Any, upstream: Upstream) -> None:
    model = kit.service("m1", kit.backend(packages.linear()))
    server = servers.start(kit.table(model, relayed("chat", f"{upstream.url()}/v1")))
    kit.until(server.is_ready)
    with server.client() as client:
        refused = client.post("/v2/models/chat/infer", json=kit.question())
        assert (refused.status_code, refused.json()["code"]) == (501, "not_supported")
        refused = client.post("/v1/chat/completions", json={**CHAT, "model": "m1"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (501, "not_supported")
        refused = client.post("/v1/chat/completions", json={**CHAT, "model": "nobody"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert client.post("/v2/models/m1/infer", json=kit.question()).status_code == 200
        assert client.get("/v2/models/chat").json()["platform"] == "openai"
        assert client.get("/v2/models/chat/ready").status_code == 200
        listed = client.get("/v1/models").json()
        assert listed["models"] == ["chat", "m1"]
        assert [item["id"] for item in listed["data"]] == ["chat"]
        assert client.get("/v1/models/chat").json()["object"] == "model"


def test_keys_and_limits_are_ours_and_the_upstreams_key_is_a_sealed_secret(
    servers: Any, kit: Any, upstream: Upstream, pepper: Path, tmp_path: Path
) -> None:
    upstream.key = "sk-the-upstreams-own"
    sealing = SealingKey.open(tmp_path / "sealing.key", make=True)
    sealed = SealedSecret(project="default", name="llm", sealed=sealing.seal(upstream.key, about="default/llm"))
    keys = [make_key() for _ in range(2)]
    records = [
        KeyRecord(id=key_id(key), mac=key_mac(key, pepper=bytes.fromhex("ab" * 32)), name="k", scopes=(scope,))
        for key, scope in zip(keys, [Scope(Verb.INFER), Scope(Verb.INFER, "default", "other")], strict=True)
    ]
    route = relayed("chat", f"{upstream.url()}/v1", secret="llm", route={"limits": Limits(requests_per_s=2)})
    from dataclasses import replace

    table = replace(kit.table(route, keys=tuple(records)), secrets=(sealed,))
    server = servers.start(table, pepper=str(pepper), sealing_key=str(tmp_path / "sealing.key"))
    kit.until(server.is_ready)
    assert ask(server).status_code == 401
    other = {"headers": {"authorization": f"Bearer {keys[1]}"}}
    assert ask(server, **other).json()["error"]["code"] in ("forbidden", "model_not_found")
    own = {"headers": {"authorization": f"Bearer {keys[0]}"}}
    assert ask(server, **own).status_code == 200
    assert upstream.asked[-1][1]["Authorization"] == f"Bearer {upstream.key}"
    codes = [ask(server, **own).status_code for _ in range(8)]
    assert 429 in codes
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "sealing.key"]
    assert not [path for path in kept if upstream.key.encode() in path.read_bytes()]


def test_a_key_that_the_upstream_refuses_is_the_operators_trouble_not_the_callers(
    servers: Any, kit: Any, upstream: Upstream
) -> None:
    upstream.key = "sk-right"
    server = servers.start(kit.table(relayed("chat", f"{upstream.url()}/v1")))
    answer = kit.until(lambda: (got := ask(server)).json()["error"]["message"].startswith("the upstream does") and got)
    assert answer.status_code == 503
    upstream.key = ""
    kit.until(server.is_ready)
    upstream.key = "sk-changed"
    answer = ask(server)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_refused")


def test_connections_are_kept_and_a_stale_one_is_replaced_without_an_error(
    servers: Any, kit: Any, make_upstream: Callable[..., Upstream]
) -> None:
    upstream = make_upstream()
    server = servers.start(kit.table(relayed("chat", f"{upstream.url()}/v1")))
    kit.until(server.is_ready)
    assert [ask(server).status_code for _ in range(20)] == [200] * 20
    assert upstream.connections == 1


def test_a_private_address_is_not_asked_where_the_rules_do_not_allow_it(
    servers: Any, kit: Any, upstream: Upstream
) -> None:
    server = servers.start(kit.table(relayed("chat", f"{upstream.url()}/v1"), allow_private=False))
    refused = kit.until(lambda: (got := ask(server)).json()["error"]["message"].startswith("127.0.0.1 is") and got)
    assert refused.status_code == 503
    assert upstream.connections == 0


def test_an_upstream_over_tls_has_to_prove_who_it_is(
    servers: Any, kit: Any, make_upstream: Callable[..., Upstream], tmp_path: Path
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    upstream = make_upstream(tls=context)
    good = relayed("chat", f"{upstream.url('localhost')}/v1")
    server = servers.start(kit.table(good, ca_file=str(tmp_path / "ca.pem")))
    kit.until(lambda: ask(server).status_code == 200)
    for wrong in (
        kit.table(good),
        kit.table(relayed("chat", f"{upstream.url()}/v1"), ca_file=str(tmp_path / "ca.pem")),
    ):
        other = servers.start(wrong)
        kit.until(lambda other=other: "certificate" in ask(other).json()["error"]["message"])


def test_many_callers_at_once_are_all_answered_over_the_connections_that_are_allowed(
    relay: Any, upstream: Upstream
) -> None:
    server = relay(max_connections=4)
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(server).status_code)) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 32
    assert upstream.connections <= 5  # one was the probe's


def _when(server: Any, name: str, value: float) -> dict[str, float] | None:
    figures: dict[str, float] = server.figures()
    return figures if figures.get(name) == value else None
