"""Requests that came in one turn go together, and each still gets the answer that it would get alone."""

import asyncio
import contextlib
import socket
import struct
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.foundation.http import EdgeLimits
from modelyard.foundation.http.turns import Answers

HEAD = b"POST /joint HTTP/1.1\r\nHost: localhost\r\n"


def ask(body: bytes, *extra: bytes) -> bytes:
    lines = b"".join(line + b"\r\n" for line in extra)
    return b"%b%bContent-Length: %d\r\n\r\n%b" % (HEAD, lines, len(body), body)


class Together:
    """Answers `/joint` together, after `delay_s` if there is one; everything else alone, saying so."""

    def __init__(self, delay_s: float = 0.0, *, raises: bool = False) -> None:
        self.delay_s = delay_s
        self.raises = raises
        self.sizes: list[int] = []
        self.given: list[int] = []
        self.alone = 0

    def handle(self, request, reply):
        self.alone += 1
        reply.send(200, b"<alone %b>" % request.body)

    def route(self, head):
        return self if head.path == "/joint" else None

    def take(self, arrivals, turn):
        self.sizes.append(len(arrivals))
        if self.raises:
            raise RuntimeError("boom")
        if self.delay_s:
            asyncio.get_running_loop().call_later(self.delay_s, self.answer, arrivals, turn)
        else:
            self.answer(arrivals, turn)

    def answer(self, arrivals, turn):
        answers = Answers(b"<", [body for _, _, body in arrivals], b">")
        self.given.append(turn.answer(arrivals, answers, content_type="text/plain", headers=b"", began=turn.began))


def answers_on(link: socket.socket, count: int) -> list[bytes]:
    """`count` answers in order: the body of each."""
    raw, bodies = b"", []
    while len(bodies) < count:
        head, end, rest = raw.partition(b"\r\n\r\n")
        if end:
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            if len(rest) >= size:
                bodies.append(rest[:size])
                raw = rest[size:]
                continue
        data = link.recv(65536)
        assert data, (raw, bodies)
        raw += data
    assert raw == b""
    return bodies


def until(check, seconds=10.0):
    limit = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_many_connections_are_answered_together(start):
    handler = Together()
    edge = start(handler)
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(edge.connect()) for _ in range(20)]
        for turn in range(5):
            for number, link in enumerate(links):
                link.sendall(ask(b"%d-%d" % (turn, number)))
            for number, link in enumerate(links):
                assert answers_on(link, 1) == [b"<%d-%d>" % (turn, number)]
    until(lambda: sum(handler.given) == 100)
    assert sum(handler.sizes) == 100
    assert handler.alone == 0
    assert edge.listener.requests == 100


def test_every_answer_has_an_id_of_its_own_or_that_of_the_request(start):
    edge = start(Together())
    with edge.connect() as link:
        ids = []
        for _ in range(3):
            link.sendall(ask(b"a"))
            ids.append(link.recv(4000).split(b"x-request-id: ")[1].split(b"\r\n")[0])
        link.sendall(ask(b"a", b"X-Request-Id: mine-1"))
        assert b"x-request-id: mine-1\r\n" in link.recv(4000)
    assert len(set(ids)) == 3


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["joint", "other", "chunked", "gone"]), min_size=1, max_size=12), st.booleans())
def test_pipelined_requests_are_answered_in_order(shared, kinds, at_once):
    pieces, wanted = [], []
    for number, kind in enumerate(kinds):
        body = b"%d" % number
        if kind == "other":
            pieces.append(ask(body).replace(b"/joint", b"/other"))
            wanted.append(b"<alone %b>" % body)
        elif kind == "chunked":
            head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
            pieces.append(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            wanted.append(None)
        else:
            pieces.append(ask(body))
            wanted.append(None)
    with shared.connect() as link:
        if at_once:
            link.sendall(b"".join(pieces))
        else:
            for piece in pieces:
                link.sendall(piece)
        found = answers_on(link, len(pieces))
    for number, (one, expected) in enumerate(zip(found, wanted, strict=True)):
        assert one == expected if expected else one in (b"<%d>" % number, b"<alone %d>" % number)


@pytest.fixture
def shared(start):
    return start(Together(delay_s=0.002))


def test_a_client_that_goes_is_not_counted_as_answered(start):
    handler = Together(delay_s=0.4)
    edge = start(handler)
    with edge.connect() as stays:
        with edge.connect() as goes:
            goes.sendall(ask(b"goes"))
            until(lambda: handler.sizes)
            goes.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves by a reset
        stays.sendall(ask(b"stays"))
        assert answers_on(stays, 1) == [b"<stays>"]
    until(lambda: len(handler.given) == 2)
    assert sum(handler.given) == 1


def test_a_half_closed_client_still_gets_its_answer_and_a_close(start):
    edge = start(Together(delay_s=0.1))
    with edge.connect() as link:
        link.sendall(ask(b"half"))
        link.shutdown(socket.SHUT_WR)
        raw = b""
        while data := link.recv(4000):
            raw += data
    assert raw.endswith(b"<half>")
    assert b"connection: close" in raw


def test_a_drain_answers_what_is_with_a_route_and_says_close(start):
    handler = Together(delay_s=0.2)
    edge = start(handler)
    with edge.connect() as link:
        link.sendall(ask(b"last"))
        until(lambda: handler.sizes)
        asyncio.run_coroutine_threadsafe(edge.listener.close(5), edge.loop).result(10)
        raw = link.recv(4000)
        assert raw.endswith(b"<last>")
        assert b"connection: close" in raw


def test_a_route_that_raises_is_answered_500_and_the_connection_lives(start, caplog):
    handler = Together(raises=True)
    edge = start(handler)
    with edge.connect() as link:
        link.sendall(ask(b"bad"))
        assert b" 500 " in link.recv(4000)
        link.sendall(ask(b"well").replace(b"/joint", b"/other"))
        assert link.recv(4000).endswith(b"<alone well>")
    assert "boom" in caplog.text


def test_the_last_request_that_a_connection_may_send_is_answered_with_close(start):
    edge = start(Together(), limits=EdgeLimits(max_requests=3))
    with edge.connect() as link:
        said = []
        for _ in range(3):
            link.sendall(ask(b"x"))
            said.append(b"connection: close" in link.recv(4000))
        assert said == [False, False, True]


def test_large_answers_leave_as_they_would_alone(start):
    handler = Together()
    edge = start(handler)
    with edge.connect() as link:
        for _ in range(3):
            link.sendall(ask(b"z" * 300_000))
            assert answers_on(link, 1) == [b"<%b>" % (b"z" * 300_000)]
    until(lambda: sum(handler.given) == 3)


def test_answers_that_leave_together_stand_in_the_access_log(start):
    lines = []
    edge = start(Together(), access_log=lambda *each: lines.append(each))
    with edge.connect() as link:
        for _ in range(3):
            link.sendall(ask(b"x"))
            answers_on(link, 1)
    assert [line[:3] for line in lines] == [("POST", "/joint", 200)] * 3
    assert all(line[3] >= 0 and line[4] > 100 for line in lines)
