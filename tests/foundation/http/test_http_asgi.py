"""FastAPI behind the edge: bodies, streams, disconnects, lifespan."""

import asyncio
import contextlib
import os
import re
import threading
import time
from contextlib import asynccontextmanager

import httpx
import psutil
import pytest
from fastapi import FastAPI
from fastapi import Request as AppRequest
from fastapi.responses import StreamingResponse

from modelyard.domain.errors.platform import StartRefused
from modelyard.foundation.http import AsgiHandler, EdgeLimits, RouteRule, problem_errors

MIB = 1024 * 1024


class House:
    """An application that records what happens to it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.gone = threading.Event()
        self.hold = threading.Event()
        self.app = FastAPI(lifespan=self.life)
        self.app.add_api_route("/items/{name}", self.item)
        self.app.add_api_route("/json", self.json, methods=["POST"])
        self.app.add_api_route("/upload", self.upload, methods=["PUT"])
        self.app.add_api_route("/slow-upload", self.slow_upload, methods=["PUT"])
        self.app.add_api_route("/deaf", self.deaf, methods=["PUT"])
        self.app.add_api_route("/events", self.stream)
        self.app.add_api_route("/endless", self.endless)
        self.app.add_api_route("/fails", self.fails)
        self.app.add_api_route("/wait", self.wait)

    @asynccontextmanager
    async def life(self, app):
        self.events.append("up")
        yield {"greeting": "hello"}
        self.events.append("down")

    async def item(self, name: str, request: AppRequest):
        return {"name": name, "greeting": request.state.greeting, "id": request.state.request_id}

    async def json(self, body: dict):
        return body

    async def upload(self, request: AppRequest):
        total = 0
        async for part in request.stream():
            total += len(part)
        return {"total": total}

    async def slow_upload(self, request: AppRequest):
        await asyncio.to_thread(self.hold.wait)
        return await self.upload(request)

    async def deaf(self):
        return {"read": False}

    async def stream(self):
        async def parts():
            for number in range(3):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0)

        return StreamingResponse(parts(), media_type="text/event-stream")

    async def endless(self):
        async def parts():
            try:
                while True:
                    yield bytes(MIB)
            finally:
                self.gone.set()

        return StreamingResponse(parts())

    async def fails(self):
        raise RuntimeError("secret reason")

    async def wait(self, request: AppRequest):
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.gone.set()


def rules(method: str, path: str) -> RouteRule | None:
    if path in {"/upload", "/slow-upload", "/deaf"}:
        return RouteRule(max_body_bytes=1 << 40, streamed=True, min_rate_bytes_s=10_000, rate_window_s=0.5)
    return None


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def house(start, request):
    made = House()
    handler = AsgiHandler(made.app, stop_s=2)
    limits = EdgeLimits(receipt_deadline_s=1, linger_s=0.2, write_deadline_s=1)
    made.edge = start(handler, uv=request.param, limits=limits, routes=rules, errors=problem_errors)
    made.edge.call(handler.start())
    made.url = f"http://127.0.0.1:{made.edge.port}"
    yield made
    made.hold.set()
    made.edge.call(made.edge.listener.close(0.2))
    made.edge.call(handler.stop())
    assert made.events == ["up", "down"]


def test_an_application_is_asked_and_answers(house):
    with httpx.Client(base_url=house.url) as client:
        item = client.get("/items/a%20b")
        assert item.json() == {"name": "a b", "greeting": "hello", "id": item.headers["x-request-id"]}
        assert client.post("/json", json={"a": 1}).json() == {"a": 1}
        assert client.get("/nowhere").status_code == 404
        events = client.get("/events")
        assert events.text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert events.headers["transfer-encoding"] == "chunked"


def test_an_encoded_slash_is_refused(house):
    answer = httpx.get(house.url + "/items/..%2fetc")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_application_that_fails_is_answered_500_without_its_reason(house, caplog):
    answer = httpx.get(house.url + "/fails")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    end = time.monotonic() + 5
    while "secret reason" not in caplog.text:  # it is logged once the framework lets go
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_client_that_goes_ends_an_endless_answer(house):
    with house.edge.connect() as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b" 200 " in client.recv(4000)
    assert house.gone.wait(5)


def test_a_client_that_stops_reading_is_dropped_and_the_application_told(house):
    with house.edge.connect() as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert house.gone.wait(5)


def test_a_waiting_application_hears_of_the_disconnect(house):
    with house.edge.connect() as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        time.sleep(0.05)
    assert house.gone.wait(5)


def test_a_large_upload_is_received_in_flat_memory(house):
    size, part = 256 * MIB, bytes(MIB)
    process = psutil.Process(os.getpid())
    with house.edge.connect() as client:
        client.sendall(b"PUT /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % size)
        client.sendall(part)
        before = most = process.memory_info().rss
        for _ in range(size // MIB - 1):
            client.sendall(part)
            most = max(most, process.memory_info().rss)
        assert b'{"total":%d}' % size in client.recv(4000)
    assert most - before < 32 * MIB


def test_an_application_that_does_not_read_holds_the_client_back_and_is_not_timed_out(house):
    sent = 0
    with house.edge.connect() as client:
        client.sendall(b"PUT /slow-upload HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.settimeout(1.2)  # longer than the window of the receive rate
        with contextlib.suppress(TimeoutError):
            for _ in range(200):
                client.sendall(b"%x\r\n" % MIB)
                client.sendall(bytes(MIB))
                client.sendall(b"\r\n")
                sent += 1
        assert sent < 100
        house.hold.set()


def test_an_upload_that_drips_is_answered_408(house):
    with house.edge.connect() as client:
        client.sendall(b"PUT /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n")
        client.settimeout(0.02)
        answer, end = b"", time.monotonic() + 5
        while not answer and time.monotonic() < end:
            client.send(b"a")
            with contextlib.suppress(TimeoutError):
                answer = client.recv(4000)
        assert b" 408 " in answer
        assert answer.count(b"HTTP/1.1 ") == 1


def test_an_upload_answered_before_it_is_read_closes_the_connection(house):
    talk = house.edge.talk(b"PUT /deaf HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\nabc", answers=2)
    assert talk.statuses == [200]
    assert talk.closed
    assert b"connection: close" in talk.raw


def test_an_upload_with_a_broken_chunk_is_refused_once(house):
    talk = house.edge.talk(
        b"PUT /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX", answers=2
    )
    assert talk.statuses == [400]
    assert talk.closed


def test_a_whole_upload_leaves_the_connection_open_for_the_next_request(house):
    upload = b"PUT /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n\r\nabc"
    talk = house.edge.talk(upload * 3, answers=3)
    assert re.findall(rb'"total":(\d+)', talk.raw) == [b"3"] * 3


def test_an_application_that_cannot_start_says_why(start):
    @asynccontextmanager
    async def life(app):
        raise OSError("the disk is away")
        yield

    handler = AsgiHandler(FastAPI(lifespan=life))
    edge = start(handler)
    with pytest.raises(StartRefused, match="disk is away"):
        edge.call(handler.start())
