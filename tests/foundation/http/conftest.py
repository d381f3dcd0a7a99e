"""A real listener on a loop of its own thread, and a client that sends bytes as they are."""

import asyncio
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from modelyard.foundation.http import (
    EdgeLimits,
    EdgeSettings,
    Handler,
    Listener,
    Reply,
    Request,
    TlsFiles,
    new_event_loop,
    serve,
)

LIVE = "/v2/health/live"
INFER = "/v2/models/m1/infer"


class Stand:
    """Answers as a model server would as far as the edge's cases go, and remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []

    def handle(self, request: Request, reply: Reply) -> None:
        self.seen.append((request.method, request.path, request.body))
        if request.path == LIVE:
            reply.send(200, b'{"live":true}')
        elif request.path == "/echo":
            reply.send(200, request.body, content_type="application/octet-stream")
        elif request.get(b"authorization") is None:
            reply.send(401, b'{"error":"no key","code":"auth_required"}', close=True)
        elif request.get(b"content-type") == b"text/plain":
            reply.send(415, b'{"error":"no","code":"unsupported_type"}')
        elif request.path == INFER and request.method == "POST":
            reply.send(200, b'{"outputs":[]}')
        else:
            reply.send(404, b'{"error":"no such path","code":"route_not_found"}')


@dataclass
class Talk:
    raw: bytes = b""
    closed: bool = False
    seconds: float = 0.0
    statuses: list[int] = field(default_factory=list)


@dataclass
class Running:
    """A listener that serves `handler` in a thread."""

    listener: Listener
    handler: Handler
    loop: asyncio.AbstractEventLoop

    @property
    def port(self) -> int:
        return self.listener.port

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def talk(self, *pieces: bytes, until: float = 5.0, answers: int = 1, linger: float = 0.0) -> Talk:
        """Send `pieces`; read until the server closes, or `answers` have come and `linger` seconds brought no more."""
        started = time.monotonic()
        talk = Talk()
        with self.connect() as client:
            for piece in pieces:
                try:
                    client.sendall(piece)
                except OSError:
                    break
                if len(pieces) > 1:
                    time.sleep(0.001)  # lets the pieces arrive one by one; nothing is waited for
            self._read(client, talk, started + until, answers, linger)
        talk.seconds = time.monotonic() - started
        talk.statuses = [int(each) for each in re.findall(rb"HTTP/1\.1 (\d{3}) ", talk.raw) if each != b"100"]
        return talk

    def _read(self, client: socket.socket, talk: Talk, end: float, answers: int, linger: float) -> None:
        while time.monotonic() < end:
            enough = count_whole(talk.raw) >= answers
            if enough and not linger:
                return
            client.settimeout(linger if enough else max(end - time.monotonic(), 0.01))
            try:
                data = client.recv(65536)
            except TimeoutError:
                return
            except OSError:
                data = b""
            if not data:
                talk.closed = True
                return
            talk.raw += data

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)


def count_whole(raw: bytes) -> int:
    """How many whole answers with a Content-Length stand in `raw`."""
    count = 0
    while (end := raw.find(b"\r\n\r\n")) >= 0:
        size = re.search(rb"content-length: (\d+)", raw[:end])
        length = int(size[1]) if size else 0
        if len(raw) < end + 4 + length:
            break
        raw = raw[end + 4 + length :]
        count += 1
    return count


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Start listeners; all are closed at the end, and their loops with them."""
    running: list[tuple[Running, threading.Thread]] = []

    def begin(
        handler: Handler,
        *,
        uv: bool = True,
        limits: EdgeLimits | None = None,
        tls: TlsFiles | None = None,
        **settings: object,
    ) -> Running:
        loop = new_event_loop() if uv else asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        made = EdgeSettings(limits=limits or EdgeLimits(), **settings)  # type: ignore[arg-type]
        opening = serve(handler, address=("127.0.0.1", 0), settings=made, tls=tls)
        listener = asyncio.run_coroutine_threadsafe(opening, loop).result(10)
        found = Running(listener, handler, loop)
        running.append((found, thread))
        return found

    yield begin
    for each, thread in running:
        each.call(each.listener.close(0))
        each.loop.call_soon_threadsafe(each.loop.stop)
        thread.join(10)
        each.loop.close()


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def edge(start: Callable[..., Running], request: pytest.FixtureRequest) -> Running:
    """A listener with the stand-in handler and deadlines short enough for a test."""
    limits = EdgeLimits(receipt_deadline_s=0.6, idle_s=5.0, linger_s=0.3)
    return start(Stand(), uv=request.param, limits=limits)
