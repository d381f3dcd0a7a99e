"""One request and the one answer to it: what a handler sees of the edge."""

from collections.abc import Callable
from typing import Final, Protocol

from modelyard.domain.errors.base import ModelyardError
from modelyard.foundation.http.body import BodyStream
from modelyard.foundation.http.edge import Edge
from modelyard.foundation.http.head import Head
from modelyard.foundation.http.wire import BODILESS, NO_HEADERS, HeaderLines, HeaderPairs, header_lines

JSON: Final = "application/json"

OPEN: Final = 0
STARTED: Final = 1
DONE: Final = 2


class Wire(Protocol):
    """The connection, as a reply sees it."""

    edge: Edge
    closes: bool
    is_gone: bool

    def complete(self, reply: "Reply", data: bytes) -> None:
        """The last bytes of this answer."""

    def add(self, reply: "Reply", data: bytes) -> None:
        """Some bytes of this answer."""

    def ends_with(self, reply: "Reply", *, close: bool) -> bool:
        """Whether the connection closes after this answer; decided here, once."""

    def abort(self) -> None:
        """Drop the connection."""

    def peer_of(self, head: Head) -> str:
        """The client's address, as a trusted proxy says or as connected."""

    async def drained(self, reply: "Reply") -> None:
        """Until this answer is first in line and the client takes bytes."""


class Request:
    """One request, complete (`stream` is None) or with its body still coming (`stream`)."""

    __slots__ = ("_connection", "_number", "body", "head", "stream")

    def __init__(self, head: Head, body: bytes, connection: Wire, number: int, stream: BodyStream | None) -> None:
        self.head = head
        self.body = body
        self.stream = stream
        self._connection = connection
        self._number = number

    @property
    def method(self) -> str:
        """One of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS."""
        return self.head.method

    @property
    def path(self) -> str:
        """The path as sent: ASCII, percent signs undecoded (each is followed by two hex digits, none is %00)."""
        return self.head.path

    @property
    def query(self) -> str:
        """What follows the question mark, as sent; empty when nothing does."""
        return self.head.query

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """All headers in order, names in lower case. Not to be changed: the list may serve later requests too."""
        return self.head.headers

    def get(self, name: bytes, default: bytes | None = None) -> bytes | None:
        """The value of the header `name` (lower case); repeated list headers are joined with commas."""
        return self.head.fields.get(name, default)

    @property
    def peer(self) -> str:
        """The client's address, as a trusted proxy says or as connected; empty on a Unix socket."""
        return self._connection.peer_of(self.head)

    @property
    def scheme(self) -> str:
        """`http` or `https`, as a trusted proxy says or as connected."""
        return self.head.scheme

    @property
    def id(self) -> str:
        """The caller's `x-request-id` when it sent a sound one, else ours; on every answer and error document."""
        own = self.head.request_id
        return own.decode() if own is not None else f"{self._connection.edge.id_prefix}{self._number:08x}"


class Reply:
    """The one answer to a request: `send` it whole, or `start`, `write` and `finish` it.

    It may come at any time, from the loop's thread; answers to pipelined requests leave in the order of the requests.
    A reply whose client has gone takes everything and does nothing.
    """

    __slots__ = ("_chunked", "_connection", "_on_disconnect", "_revoked", "_state", "began", "head", "number", "parts",
                 "size", "status")  # fmt: skip

    def __init__(self, connection: Wire, head: Head, number: int) -> None:
        self._connection = connection
        self.head = head
        self.number = number
        self.parts: list[bytes] = []
        self._state = OPEN
        self._chunked = False
        self._revoked = False
        self._on_disconnect: Callable[[], None] | None = None
        self.began = 0.0
        self.status = 0
        self.size = 0

    @property
    def closed(self) -> bool:
        """Whether nobody waits for this answer any more."""
        return self._connection.is_gone

    @property
    def is_answered(self) -> bool:
        """Whether the answer has begun."""
        return self._state != OPEN

    @property
    def is_finished(self) -> bool:
        """Whether the answer is complete."""
        return self._state == DONE

    def on_disconnect(self, call: Callable[[], None]) -> None:
        """Call `call` once if the client goes before the answer is complete; at once if it is gone already."""
        if self._connection.is_gone:
            call()
            return
        self._on_disconnect = call

    def send(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: str = JSON,
        headers: HeaderLines | HeaderPairs = NO_HEADERS,
        close: bool = False,
    ) -> None:
        """Answer, whole. `headers` is best made once by `header_lines`; `close` ends the connection afterwards.

        Raises:
            RuntimeError: answered already.
            ValueError: a header or content type that HTTP does not allow.
        """
        if self._state != OPEN:
            if self._revoked:
                return
            raise RuntimeError("this request is answered already")
        connection = self._connection
        edge = connection.edge
        head = self.head
        if not isinstance(headers, bytes):
            headers = header_lines(headers)
        prefix = edge.prefixes.of(status, content_type)
        self._state = DONE
        self.status = status
        if head.plain and not close and not connection.closes and status not in BODILESS:
            if head.request_id is None:
                data = b"%b%bcontent-length: %d\r\nx-request-id: %b%08x\r\n\r\n%b" % (
                    prefix, headers, len(body), edge.id_prefix_bytes, self.number, body,
                )  # fmt: skip
            else:
                data = b"%b%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n%b" % (
                    prefix, headers, len(body), head.request_id, body,
                )  # fmt: skip
            connection.complete(self, data)
            return
        framing = b"" if status in {204, 304} else b"content-length: %d\r\n" % len(body)
        data = self._head_block(prefix, headers, framing, close=close)
        if head.method != "HEAD" and status not in BODILESS:
            data += body
        connection.complete(self, data)

    def refuse(self, status: int, error: ModelyardError, *, close: bool = False) -> None:
        """Answer with the listener's error document for `error`."""
        edge = self._connection.edge
        own = self.head.request_id
        request_id = own.decode() if own is not None else f"{edge.id_prefix}{self.number:08x}"
        content_type, body = edge.errors(status, error, request_id)
        self.send(status, body, content_type=content_type, close=close)

    def start(
        self,
        status: int,
        *,
        content_type: str = "",
        headers: HeaderLines | HeaderPairs = NO_HEADERS,
        length: int | None = None,
        close: bool = False,
    ) -> None:
        """Begin an answer whose body follows by `write`; `length` is its size in bytes where it is known."""
        if self._state != OPEN:
            if self._revoked:
                return
            raise RuntimeError("this request is answered already")
        if not isinstance(headers, bytes):
            headers = header_lines(headers)
        prefix = self._connection.edge.prefixes.of(status, content_type)
        framing = b""
        if length is not None and status not in {204, 304}:
            framing = b"content-length: %d\r\n" % length
        elif length is None and status not in BODILESS:
            if self.head.http10:
                close = True
            else:
                framing = b"transfer-encoding: chunked\r\n"
                self._chunked = True
        self._state = STARTED
        self.status = status
        self._connection.add(self, self._head_block(prefix, headers, framing, close=close))

    def write(self, data: bytes) -> None:
        """Some of the body, after `start`."""
        if self._state != STARTED:
            if self._revoked:
                return
            raise RuntimeError("write belongs between start and finish")
        if not data or self.head.method == "HEAD" or self.status in BODILESS:
            return
        self._connection.add(self, b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        """The body is complete."""
        if self._state != STARTED:
            if self._revoked:
                return
            raise RuntimeError("finish belongs after start")
        self._state = DONE
        ended = self._chunked and self.head.method != "HEAD"
        self._connection.complete(self, b"0\r\n\r\n" if ended else b"")

    def abort(self) -> None:
        """Drop the connection: the only honest end of an answer that began and cannot be finished."""
        self._connection.abort()

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written."""
        await self._connection.drained(self)

    def revoke(self) -> None:
        """The edge has answered, or dropped, this request: what the handler still says goes nowhere."""
        self._revoked = True
        self._state = DONE

    def lost(self) -> None:
        """The client is gone (called by the connection)."""
        call, self._on_disconnect = self._on_disconnect, None
        if call is not None and self._state != DONE:
            call()

    def _head_block(self, prefix: bytes, headers: bytes, framing: bytes, *, close: bool) -> bytes:
        edge = self._connection.edge
        request_id = self.head.request_id or b"%b%08x" % (edge.id_prefix_bytes, self.number)
        connection = b""
        if self._connection.ends_with(self, close=close):
            connection = b"connection: close\r\n"
        elif self.head.http10:
            connection = b"connection: keep-alive\r\n"
        return b"%b%b%b%bx-request-id: %b\r\n\r\n" % (prefix, headers, framing, connection, request_id)


class Handler(Protocol):
    """What stands behind a listener.

    `handle` is called on the loop, once a request, and must not block. It may answer at once or keep the reply. What it
    raises is logged and answered 500.
    """

    def handle(self, request: Request, reply: Reply) -> None:
        """Take the request; answer through `reply`, now or later."""
