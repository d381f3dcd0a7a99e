"""One connection to a server elsewhere: a request out, its answer in, and then, where the server likes, the next."""

import asyncio
from typing import Any, Final, cast

from httptools import HttpParserError, HttpResponseParser

from modelyard.domain.errors.inference import UpstreamFailed, UpstreamUnreachable
from modelyard.foundation.outbound.answer import Answer

_MOST_HEAD: Final = 64 << 10
_FIRST_FINAL: Final = 200


class Gone(UpstreamUnreachable):
    """The server closed the connection before it answered anything."""


class ClientConnection(asyncio.Protocol):
    """Belongs to one pool. `is_open` says that it may carry another request; `used` how many it carried."""

    def __init__(self) -> None:
        self.used = 0
        self.is_open = True
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._head: asyncio.Future[Answer] | None = None
        self._answer: Answer | None = None
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._until_close = False
        self._is_kept = False

    # -- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self._transport = cast("asyncio.Transport", transport)

    @property
    def address(self) -> str:
        """The address and port at the other end."""
        peer = None if self._transport is None else self._transport.get_extra_info("peername")
        return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""

    def data_received(self, data: bytes) -> None:
        """Some bytes of the answer."""
        if self._parser is None:
            self.abort()  # nobody asked anything
            return
        if self._answer is None:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD and b"\r\n\r\n" not in data:
                self._broken("its head is too large")
                return
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._broken("it does not speak HTTP/1.1")

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over; an answer that ends with the connection is complete now."""
        self.is_open = False
        answer, head = self._answer, self._head
        if answer is not None and not answer.is_complete:
            answer.end(None if self._until_close and exc is None else _cut())
        if head is not None and not head.done():
            if self._head_bytes:
                head.set_exception(_cut())
            else:
                head.set_exception(Gone("the upstream closed the connection without an answer"))

    # -- for the pool

    def ask(self, request: bytes, body: bytes) -> "asyncio.Future[Answer]":
        """Send one request; the future has the answer as soon as its head is there."""
        assert self._transport is not None
        self.used += 1
        self._parser = HttpResponseParser(self)
        self._answer = None
        self._head_bytes = 0
        self._until_close = self._is_kept = False
        self._head = asyncio.get_running_loop().create_future()
        self._transport.write(request + body if len(body) < _MOST_HEAD else request)
        if len(body) >= _MOST_HEAD:
            self._transport.write(body)
        return self._head

    @property
    def is_reusable(self) -> bool:
        """Whether the last answer is complete and the server keeps the connection."""
        return self.is_open and self._is_kept

    def rest(self) -> None:
        """Wait for the next request."""
        self._parser = None
        self._answer = self._head = None

    def abort(self) -> None:
        """Drop it."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def hold(self) -> None:
        """Read no more for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- from the parser

    def on_message_begin(self) -> None:
        """An answer begins."""
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        name = name.lower()
        known = self._headers.get(name)
        self._headers[name] = value if known is None else known + b", " + value

    def on_headers_complete(self) -> None:
        """The head is there; an interim answer (RFC 9110 section 15.2) is passed over."""
        status = self._parser.get_status_code()
        if status < _FIRST_FINAL or self._head is None:
            return
        headers = self._headers
        framed = b"content-length" in headers or b"transfer-encoding" in headers
        self._until_close = not framed and status not in (204, 304)
        self._answer = Answer(status, headers, self)
        if self._head.done():
            self.abort()  # a second answer to one request
        else:
            self._head.set_result(self._answer)

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        if self._answer is not None:
            self._answer.add(body)

    def on_message_complete(self) -> None:
        """The answer is complete."""
        if self._answer is not None:
            self._is_kept = bool(self._parser.should_keep_alive())
            self._answer.end()

    def _broken(self, why: str) -> None:
        error = UpstreamFailed(f"the upstream's answer cannot be read: {why}", hint="its operator has to look")
        if self._answer is not None:
            self._answer.end(error)
        elif self._head is not None and not self._head.done():
            self._head.set_exception(error)
        self.abort()


def _cut() -> UpstreamFailed:
    return UpstreamFailed("the upstream's answer ended too early", hint="try again later")
