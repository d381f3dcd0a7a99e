import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from modelyard.foundation.http2 import Call, GrpcListener, GrpcSettings, Methods, StreamCall, serve_grpc

sys.path.insert(0, str(Path(__file__).parent))

from wire_client import PREFACE, SETTINGS, WireClient, frame


class Served:
    """A listener with an echo, calls that wait, and one that breaks."""

    def __init__(self) -> None:
        self.held: list[Call] = []
        self.cancelled = 0
        self.seen: list[Call] = []
        self.streams: list[StreamCall] = []
        self.messages: list[bytes] = []

    def echo(self, call: Call) -> None:
        self.seen.append(call)
        call.reply(call.message)

    def hold(self, call: Call) -> None:
        self.held.append(call)
        call.on_cancel(self._cancelled)

    def _cancelled(self) -> None:
        self.cancelled += 1

    @staticmethod
    def broken(call: Call) -> None:
        raise ValueError("a secret")

    @staticmethod
    def refuse(call: Call) -> None:
        call.fail(9, "nötig: 100 %\n", [(b"reason", b"why")])

    @staticmethod
    def big(call: Call) -> None:
        call.reply(b"z" * int(call.message), [(b"done", b"yes")])

    def chat(self, call: StreamCall) -> None:
        self.streams.append(call)
        call.on_cancel(self._cancelled)
        call.listen(call.send, call.finish)

    def count(self, call: StreamCall) -> None:
        def end() -> None:
            call.send(b"%d" % len(self.messages))
            call.finish()

        call.listen(self.messages.append, end)

    def keep_held(self, call: StreamCall) -> None:
        self.streams.append(call)
        call.on_cancel(self._cancelled)
        call.listen(self.messages.append, lambda: None)
        call.hold()

    @staticmethod
    def first(call: StreamCall) -> None:
        def answer(body: bytes) -> None:
            call.send(body)
            call.finish([(b"done", b"yes")])

        call.listen(answer, call.finish)

    @staticmethod
    def fails(call: StreamCall) -> None:
        def answer(body: bytes) -> None:
            call.send(body)
            call.fail(9, "enough", [(b"reason", b"why")])

        call.listen(answer, call.finish)

    @staticmethod
    def breaks(call: StreamCall) -> None:
        call.listen(Served.broken, call.finish)

    @staticmethod
    def repeat(call: StreamCall) -> None:
        def answer(body: bytes) -> None:
            for _ in range(20):
                call.send(body)
            call.finish()

        call.listen(answer, lambda: None)

    def streams_by_path(self) -> dict[bytes, Callable[[StreamCall], None]]:
        return {
            b"/t.T/Chat": self.chat,
            b"/t.T/Count": self.count,
            b"/t.T/Held": self.keep_held,
            b"/t.T/First": self.first,
            b"/t.T/Fails": self.fails,
            b"/t.T/Breaks": self.breaks,
            b"/t.T/Repeat": self.repeat,
        }

    def methods(self) -> Methods:
        return Methods({
            b"/t.T/Echo": self.echo,
            b"/t.T/Hold": self.hold,
            b"/t.T/Broken": self.broken,
            b"/t.T/Refuse": self.refuse,
            b"/t.T/Big": self.big,
        }, self.streams_by_path())  # fmt: skip


@pytest.fixture
def served() -> Served:
    return Served()


Start = Callable[..., Awaitable[GrpcListener]]
Connect = Callable[..., Awaitable[WireClient]]


@pytest.fixture
async def start(served: Served) -> AsyncIterator[Start]:
    listeners: list[GrpcListener] = []

    async def begin(settings: GrpcSettings | None = None, tls: object = None) -> GrpcListener:
        bound = socket.create_server(("127.0.0.1", 0), backlog=256)
        listener = await serve_grpc(served.methods(), sockets=[bound], settings=settings, tls=tls)
        listeners.append(listener)
        return listener

    yield begin
    for each in listeners:
        await each.close(drain_s=0.2)


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    clients: list[WireClient] = []

    async def begin(listener: GrpcListener, first: bytes = PREFACE + frame(SETTINGS, 0, 0)) -> WireClient:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        client = WireClient(reader, writer)
        clients.append(client)
        client.send(first)
        return client

    yield begin
    for each in clients:
        each.writer.close()
        with contextlib.suppress(OSError):
            await each.writer.wait_closed()
