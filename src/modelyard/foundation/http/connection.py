"""One connection: bytes in, requests out to the handler, answers back in order.

The common path is one `data_received` that holds one whole request whose head was seen before and has a route: it is
put on the list of the turn (`turns`), and answered with all the others. Everything else (a new head, a body in parts,
pipelining, a refusal) goes the longer way through `_receive`. The connection owns no timer: it only says by when it has
to be looked at, and the listener's clock does so.
"""

import asyncio
from typing import Final, cast

from modelyard.domain.errors.edge import BodyIncomplete, EdgeError, ReceiptDeadline
from modelyard.foundation.http.body import BodyStream, ChunkedBody, SizedBody, WholeBody, inflate
from modelyard.foundation.http.conversation import Conversation
from modelyard.foundation.http.exchange import Request
from modelyard.foundation.http.flow import WriteWatch
from modelyard.foundation.http.head import CHUNKED, Head, HeadRules, check_partial_head
from modelyard.foundation.http.recall import recall_head
from modelyard.foundation.http.refusal import Overloaded, Refused
from modelyard.foundation.http.wire import CONTINUE

_END: Final = b"\r\n\r\n"


class Connection(Conversation):
    """The protocol of one client connection."""

    __slots__ = ()

    # -- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there; one too many is told so."""
        edge = self.edge
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._watch = WriteWatch(self._transport, edge.limits)
        settings = edge.settings
        self._rules = HeadRules(
            limits=edge.limits,
            hosts=settings.hosts,
            proxies=settings.proxies,
            routes=settings.routes,
            default_rule=edge.default_rule,
            peer=str(peer[0]) if isinstance(peer, tuple) else "",
            scheme="https" if self._tls else "http",
        )
        edge.connections.add(self)
        if len(edge.connections) > edge.limits.max_connections:
            self._refuse(Refused(503, Overloaded("too many connections are open")))

    def data_received(self, data: bytes) -> None:
        """Some bytes from the client."""
        if self._fresh and self.asked is None and not self._replies:
            end = data.find(_END) + 4
            head = self._heads.get(data[:end])
            if head is not None and head.route is not None and head.length == len(data) - end and self._left > 1:
                self._left -= 1
                self.deadline = self.edge.idle_at
                self.asked = head
                turn = self._turn
                arrived = turn.arrived
                arrived.append((self, head, data[end:]))
                if len(arrived) == 1:
                    turn.begin()
                return
        self._receive(bytes(data))

    def eof_received(self) -> bool:
        """The client sends no more. What it asked for may still be answered, for a short while."""
        if self._finished:
            return False
        self._set_apart()
        self._fresh = False
        if self._shut or (self._reader is None and not self._buffer):
            if not self._replies:
                return False
            self._shut = self.closes = self._half_closed = True
            self.deadline = self.edge.now + self.edge.limits.half_close_grace_s
            return not self._tls
        what = "the body" if self._reader is not None else "the request"
        error = BodyIncomplete(f"{what} ended before it was complete")
        self._refuse(Refused(400, error if self._reader is not None else EdgeError(error.detail)))
        return not self._tls

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over: whoever still works for it is told."""
        del exc
        self.is_gone = True
        self._shut = True
        self._fresh = False
        self.asked = self._singled = None
        self.edge.connections.discard(self)
        self._release_memory()
        if self._stream is not None:
            self._stream.fail(BodyIncomplete("the client went away"))
            self._stream = None
        replies = list(self._replies)
        self._replies.clear()
        for reply in replies:
            reply.lost()
        self._wake_drainers()

    def pause_writing(self) -> None:
        """The client does not take what we send."""
        self._set_apart()
        self._write_paused = True
        self._fresh = False
        self._watch.begin()
        self.deadline = self.edge.now + self._watch.step_s
        self._hold()

    def resume_writing(self) -> None:
        """The client takes bytes again."""
        self._write_paused = False
        self._receiving = False
        self._wake_drainers()
        if self._finished:
            return
        self._settle()
        self._unhold()

    # -- from the clock

    @property
    def is_busy(self) -> bool:
        """Whether a request is being received or answered."""
        return (
            bool(self._replies)
            or self.asked is not None
            or self._receiving
            or self._reader is not None
            or self._finished
        )

    def expire(self, now: float) -> None:
        """The deadline has come: of receiving, of idling, of writing, or of closing."""
        self._set_apart()
        if self.is_gone or (self._half_closed and not self._finished):
            self.abort()
        elif self._write_paused or self._watch.is_on or self._finished:
            self._check_taking(now)
        elif self._stream is not None and self._reader is not None:
            self._check_rate(self._stream, now)
        elif self._receiving and not self._shut:
            self._refuse(Refused(408, ReceiptDeadline("the request did not arrive in time")))
        elif self._replies or self._held:
            self.deadline = self.edge.idle_at
        elif self._shut or self._transport.get_write_buffer_size():
            self.abort()
        else:
            self._shut = True
            self._fresh = False
            self.deadline = now + self.edge.limits.linger_s
            self._transport.close()

    def close_idle(self) -> None:
        """Close now, if nothing is under way."""
        if not self.is_busy and not self._shut:
            self._shut = True
            self._fresh = False
            self._transport.close()

    def _check_taking(self, now: float) -> None:
        """Drop a client that does not take its answer."""
        enough = self._watch.goes_on(self.edge.limits.min_write_rate_bytes_s)
        if not enough or (self._finished and not self._watch.is_on):
            self.abort()
            return
        self.deadline = now + self._watch.step_s if self._watch.is_on else self.edge.idle_at

    def _check_rate(self, stream: BodyStream, now: float) -> None:
        rule = self._head.rule if self._head is not None else self.edge.default_rule
        came = stream.received - self._rate_mark
        if self._reading and came < rule.min_rate_bytes_s * rule.rate_window_s:
            self._refuse(Refused(408, ReceiptDeadline("the body arrived too slowly")))
            return
        self._rate_mark = stream.received
        self.deadline = now + rule.rate_window_s

    # -- receiving

    def _receive(self, data: bytes) -> None:
        if self._shut:
            return
        if self.asked is not None:
            self._set_apart()
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        self._corked = True
        try:
            data = self._read_requests(data)
        except Refused as refused:
            self._refuse(refused)
        self._corked = False
        self._keep(data)
        self._flush()

    def _keep(self, data: bytes) -> None:
        """`data` is the beginning of something, or comes too late."""
        if self._shut:
            self._lingers = self._lingers or bool(data)
            return
        self._buffer = data
        self._settle()

    def _read_requests(self, data: bytes) -> bytes:
        """Read what there is; what is left over is the beginning of something."""
        while data and not self._shut and not self._held:
            if self._reader is None:
                rest = self._read_head(data)
                if rest is None:
                    return data
            else:
                rest = self._reader.feed(data)
                if self._body is not None:
                    self._account(self._body.size)
                if rest is None:
                    return b""
                self._end_body()
            data = rest
        return data

    def _read_head(self, data: bytes) -> bytes | None:
        """Read one head; None while it is incomplete."""
        if not self._skipped and data.startswith(b"\r"):  # one empty line may come first (RFC 9112 section 2.2)
            if data == b"\r":
                return None
            if data.startswith(b"\r\n"):
                self._skipped = True
                return data[2:]
        last = self._last
        if last is not None and data.startswith(last.raw):
            head, end = last, len(last.raw)
        else:
            end = data.find(_END) + 4
            if end < 4:  # noqa: PLR2004  (not found)
                check_partial_head(data, self.edge.limits)
                return None
            head = recall_head(data[:end], self._rules, self.edge.memory)
            self._last = head
        self._skipped = False
        length = head.length
        if 0 <= length <= len(data) - end and not head.rule.streamed:
            body = data[end : end + length]
            self._deliver(head, body)
            return data[end + length :]
        self._begin_body(head, wait=len(data) == end)
        return data[end:]

    def _begin_body(self, head: Head, *, wait: bool) -> None:
        self._head = head
        sink: WholeBody | BodyStream
        if head.rule.streamed:
            sink = self._stream = BodyStream(self._update_reading)
            self._receiving = True
            self._rate_mark = 0
            self.deadline = self.edge.now + head.rule.rate_window_s
        else:
            sink = self._body = WholeBody()
            self._account(max(head.length, 0))
        if head.length == CHUNKED:
            self._reader = ChunkedBody(self.edge.limits, head.rule.max_body_bytes, sink)
        else:
            self._reader = SizedBody(head.length, sink)
        if head.expects_continue and wait and not self._replies and head.length:
            self._out.append(CONTINUE)
        if self._stream is not None:
            self._dispatch(head, b"", self._stream)
            if head.length == 0:
                self._end_body()

    def _end_body(self) -> None:
        head, body, stream = self._head, self._body, self._stream
        self._head = self._reader = self._body = self._stream = self._stream_reply = None
        self._receiving = False
        if stream is not None:
            stream.finish()
            self._shut = self._shut or (head is not None and not head.keep_alive)
            self._update_reading()
        elif head is not None and body is not None:
            data = body.collected()
            self._release_memory()
            self._deliver(head, data)

    def _deliver(self, head: Head, body: bytes) -> None:
        """A request is whole."""
        if head.gzip:
            limits = self.edge.limits
            body = inflate(body, max_bytes=head.rule.max_body_bytes, max_ratio=limits.max_inflate_ratio)
        self._receiving = False
        if head.plain and not (self._replies or self.closes or self.asked is not None) and self._left > 1:
            if head.route is None:
                head.route = self._turn.route(head)
            if head.route is not None:
                self._left -= 1
                self.asked = head
                self._turn.add((self, head, body))
                return
        self._dispatch(head, body)

    def _dispatch(self, head: Head, body: bytes, stream: BodyStream | None = None) -> None:
        if self.asked is not None:
            self._set_apart()
        self.edge.requests += 1
        reply = self._line_up(head)
        self._left -= 1
        if not head.keep_alive or self._left <= 0:
            self.closes = True
            if stream is None:
                self._shut = True
                self._fresh = False
        if stream is not None:
            self._stream_reply = reply
        self._hand_over(Request(head, body, self, reply.number, stream), reply)
        if len(self._replies) >= self.edge.limits.max_pipelined:
            self._hold()
