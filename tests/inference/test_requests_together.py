"""Requests that come in one turn share admission, run and answer, and each gets what it would get alone."""

import json
import socket
import struct
import time
from contextlib import ExitStack

import pytest

from modelyard.domain.access import KeyRecord, Scope, Verb, key_id, key_mac, make_key
from modelyard.domain.routing import Limits

PEPPER = "ab" * 32


def whole(body: bytes, *lines: str, path: str = "/v2/models/m1/infer") -> bytes:
    head = "".join(f"{line}\r\n" for line in ("Host: localhost", "Content-Type: application/json", *lines))
    return f"POST {path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def read_answer(link: socket.socket) -> tuple[int, dict[str, str], bytes]:
    raw = b""
    while True:
        head, end, rest = raw.partition(b"\r\n\r\n")
        if end:
            lines = head.decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:])
            if len(rest) >= int(headers["content-length"]):
                return int(lines[0].split()[1]), headers, rest
        data = link.recv(65536)
        assert data, raw
        raw += data


@pytest.fixture
def links():
    with ExitStack() as stack:

        def connect(server, count: int) -> list[socket.socket]:
            made = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(count)]
            for link in made:
                stack.enter_context(link)
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made

        yield connect


def ask_all(
    connected: list[socket.socket], bodies: list[bytes], *lines: str
) -> list[tuple[int, dict[str, str], bytes]]:
    for link, body in zip(connected, bodies, strict=True):
        link.sendall(whole(body, *lines))
    return [read_answer(link) for link in connected]


def test_every_caller_gets_its_own_rows_and_the_account_adds_up(packages, servers, kit, links) -> None:
    server = servers.start(kit.table(kit.service("m1", kit.backend(packages.linear("m1")))))
    connected = links(server, 24)
    ids = set()
    for turn in range(6):
        bodies = [json.dumps(kit.question([turn, number, 0.5])).encode() for number in range(24)]
        bodies[7] = bodies[7].replace(b"0.5", b"0.5x")
        answers = ask_all(connected, bodies)
        assert [status for status, _, _ in answers] == [200] * 7 + [400] + [200] * 16
        for number, (status, headers, body) in enumerate(answers):
            ids.add(headers["x-request-id"])
            assert headers["x-model-version"] == "1"
            if status == 200:
                assert json.loads(body)["outputs"][0]["data"] == [turn, number]
    assert len(ids) == 6 * 24
    figures = server.figures()
    of = 'project="default",service="m1"'
    assert figures[f"modelyard_inputs_received_total{{{of}}}"] == 144
    assert figures[f"modelyard_inputs_answered_total{{{of}}}"] == 138
    assert figures[f'modelyard_inputs_rejected_total{{{of},reason="bad_json"}}'] == 6
    assert figures[f"modelyard_inputs_in_flight{{{of}}}"] == 0
    assert figures[f'modelyard_requests_total{{{of},outcome="ok"}}'] == 138
    assert figures[f'modelyard_inferences_total{{{of},model="m1",version="1"}}'] == 138
    assert figures[f'modelyard_request_duration_seconds_count{{{of},model="m1",version="1"}}'] == 138


def test_a_rate_holds_for_requests_that_come_together(packages, servers, kit, links) -> None:
    limits = Limits(requests_per_s=10)
    server = servers.start(kit.table(kit.service("m1", kit.backend(packages.linear("m1")), limits=limits)))
    body = json.dumps(kit.question()).encode()
    began = time.monotonic()
    statuses = [status for _ in range(6) for status, _, _ in ask_all(links(server, 8), [body] * 8)]
    took = time.monotonic() - began
    assert set(statuses) == {200, 429}
    assert 10 <= statuses.count(200) <= 11 + 10 * took


def test_a_key_that_expires_is_refused_though_its_requests_are_known(packages, servers, kit, links, pepper) -> None:
    key = make_key()
    expires_at = time.time() + 6
    record = KeyRecord(
        id=key_id(key) or "",
        mac=key_mac(key, pepper=bytes.fromhex(PEPPER)),
        name="k",
        scopes=(Scope(Verb.INFER),),
        expires_at=expires_at,
    )
    routes = kit.table(kit.service("m1", kit.backend(packages.linear("m1"))), keys=(record,))
    server = servers.start(routes, pepper=str(pepper))
    (link,) = links(server, 1)
    body = json.dumps(kit.question()).encode()
    statuses = []
    while not statuses or statuses[-1] == 200:
        assert time.time() < expires_at + 60
        link.sendall(whole(body, f"Authorization: Bearer {key}"))
        statuses.append(read_answer(link)[0])
    assert statuses[-1] == 401
    assert time.time() >= expires_at


def test_clients_that_go_before_their_answer_are_booked_as_lost(packages, servers, kit, links) -> None:
    server = servers.start(kit.table(kit.service("m1", kit.backend(packages.linear("m1")))))
    body = json.dumps(kit.question()).encode()
    ask_all(links(server, 2), [body] * 2)
    for _ in range(10):
        connected = links(server, 20)
        for link in connected:
            link.sendall(whole(body))
        for link in connected[::2]:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.close()
        assert [read_answer(link)[0] for link in connected[1::2]] == [200] * 10
    of = 'project="default",service="m1"'

    def settled() -> bool:
        figures = server.figures()
        received = figures[f"modelyard_inputs_received_total{{{of}}}"]
        answered = figures[f"modelyard_inputs_answered_total{{{of}}}"]
        lost = figures.get(f'modelyard_inputs_lost_total{{{of},reason="cancelled"}}', 0)
        return received == answered + lost and answered >= 102 and figures[f"modelyard_inputs_in_flight{{{of}}}"] == 0

    kit.until(settled)


def test_requests_of_one_turn_stand_in_the_access_log_one_by_one(packages, servers, kit, links, tmp_path) -> None:
    log = tmp_path / "access.log"
    routes = kit.table(kit.service("m1", kit.backend(packages.linear("m1"))))
    server = servers.start(routes, access_log=str(log))
    connected = links(server, 10)
    for turn in range(4):
        ask_all(connected, [json.dumps(kit.question([turn, number, 1])).encode() for number in range(10)])
    kit.until(lambda: len(log.read_text().splitlines()) == 40)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all((line["method"], line["path"], line["status"]) == ("POST", "/v2/models/m1/infer", 200) for line in lines)
    assert all(line["seconds"] >= 0 and line["sent"] > 200 for line in lines)
