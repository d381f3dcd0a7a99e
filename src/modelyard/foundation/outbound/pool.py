"""Connections to one origin: kept alive, bounded in number, asked again where that is safe."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from modelyard.domain.upstreams import Origin
from modelyard.foundation.outbound.answer import Answer
from modelyard.foundation.outbound.connection import ClientConnection, Gone
from modelyard.foundation.outbound.reaching import OutboundRules, connect

IDLE_S: Final = 30.0
Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Question:
    """One request. `target` is below the origin's own path; `headers` have neither length nor Host."""

    method: str
    target: str
    headers: Headers = ()
    body: bytes = b""


class Pool:
    """Belongs to one event loop. At most `size` requests are under way; more wait, within their own time."""

    def __init__(self, origin: Origin, rules: OutboundRules, *, size: int = 64) -> None:
        self.origin = origin
        self.rules = rules
        self._free = asyncio.Semaphore(size)
        self._idle: list[ClientConnection] = []
        self._busy: set[ClientConnection] = set()
        self._closed = False
        self.address = ""

    @property
    def open_connections(self) -> int:
        """Connections that stand."""
        return len(self._busy) + sum(connection.is_open for connection in self._idle)

    @asynccontextmanager
    async def ask(self, question: Question) -> AsyncIterator[Answer]:
        """The answer as soon as its head is there. Leaving early drops the connection, and with it the request.

        Raises:
            UpstreamUnreachable: there is no connection to be had.
            UpstreamFailed: what comes is no answer, or not a whole one.
        """
        async with self._free:
            connection, answer = await self._begin(question)
            try:
                yield answer
            finally:
                self._give_back(connection)

    def close(self) -> None:
        """Drop all connections."""
        self._closed = True
        for connection in (*self._idle, *self._busy):
            connection.abort()
        self._idle.clear()

    async def _begin(self, question: Question) -> tuple[ClientConnection, Answer]:
        request = self._encode(question)
        while True:
            connection = self._take() or await connect(self.origin, self.rules, ClientConnection)
            self.address = connection.address
            self._busy.add(connection)
            try:
                return connection, await connection.ask(request, question.body)
            except Gone:
                self._busy.discard(connection)
                # a kept connection that the server closed meanwhile: it has not seen this request (RFC 9112, 9.3.1)
                if connection.used == 1:
                    raise
            except BaseException:
                self._busy.discard(connection)
                connection.abort()
                raise

    def _take(self) -> ClientConnection | None:
        now = perf_counter()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and now - connection.idle_since < IDLE_S:
                return connection
            connection.abort()
        return None

    def _give_back(self, connection: ClientConnection) -> None:
        self._busy.discard(connection)
        if connection.is_reusable and not self._closed:
            connection.rest()
            connection.idle_since = perf_counter()
            self._idle.append(connection)
        else:
            connection.abort()

    def _encode(self, question: Question) -> bytes:
        target = self.origin.path + question.target
        lines = [f"{question.method} {target} HTTP/1.1\r\nhost: {self.origin.authority}\r\n".encode()]
        lines += [b"%b: %b\r\n" % pair for pair in question.headers]
        if question.body or question.method != "GET":
            lines.append(b"content-length: %d\r\n" % len(question.body))
        lines.append(b"accept-encoding: identity\r\n\r\n")
        return b"".join(lines)
