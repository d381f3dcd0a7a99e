"""One connection's line of answers: every request gets one, in order, and the last one ends the connection cleanly.

The base of `connection.Connection`, which reads. Here is what was asked and is not answered yet, what leaves when, how
a refusal takes its turn, and when the client is held back.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Final

from modelyard.domain.errors.edge import BodyIncomplete
from modelyard.foundation.http.body import BodyReader, BodyStream, WholeBody
from modelyard.foundation.http.edge import Edge
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.foundation.http.flow import LARGE_ANSWER, WriteWatch
from modelyard.foundation.http.head import Head, HeadRules, unread_head
from modelyard.foundation.http.refusal import InternalError, Overloaded, Refused
from modelyard.foundation.http.turns import Turn

Handle = Callable[[Request, Reply], None]

_LOG: Final = logging.getLogger(__name__)
_LARGE: Final = 16384
_MANY: Final = 64


class Conversation(asyncio.Protocol):
    """The state of one client connection, and its answers."""

    __slots__ = (
        "_body", "_buffer", "_closing", "_corked", "_drainers", "_final", "_finished", "_fresh", "_half_closed",
        "_handle", "_head", "_heads", "_held", "_last", "_left", "_lingers", "_out", "_rate_mark", "_reader",
        "_reading", "_receiving", "_replies", "_reserved", "_rules", "_shut", "_singled", "_skipped", "_stream",
        "_stream_reply", "_tls", "_transport", "_turn", "_watch", "_write_paused", "asked", "closes", "deadline",
        "edge", "is_gone",
    )  # fmt: skip

    _transport: asyncio.Transport  # these three are set when the connection is made
    _watch: WriteWatch
    _rules: HeadRules

    def __init__(self, edge: Edge, handle: Handle, turn: Turn, *, tls: bool = False) -> None:
        self.edge = edge
        self._handle = handle
        self._tls = tls
        self._left = edge.limits.max_requests
        self._buffer = b""
        self._replies: deque[Reply] = deque()
        self._out: list[bytes] = []
        self._drainers: list[asyncio.Future[None]] = []
        self._turn = turn
        self._heads = edge.memory.heads
        self.asked: Head | None = None  # of the one request that is on a turn's list, or with its route
        self._singled: tuple[Request, Reply] | None = None  # that request, once something unusual happened
        self._last: Head | None = None  # the head that the next one is compared with, byte for byte
        self._head: Head | None = None  # of the request whose body is being received
        self._reader: BodyReader | None = None
        self._body: WholeBody | None = None
        self._stream: BodyStream | None = None
        self._stream_reply: Reply | None = None
        self._rate_mark = 0
        self._reserved = 0
        self._fresh = True  # nothing is buffered, held or shut: the common path is open
        self._receiving = False  # the deadline in force is that of a request being received
        self._held = False  # requests are not read until answers have left
        self._shut = False  # no further request is read
        self._reading = True
        self._write_paused = False
        self._corked = False
        self._skipped = False
        self._final: Reply | None = None
        self._finished = False  # the last answer is out
        self._closing = False
        self._lingers = False  # input may still be under way: drain it before closing
        self._half_closed = False
        self.closes = edge.draining
        self.is_gone = False
        self.deadline = edge.receipt_at

    def close_after_answer(self) -> None:
        """The next answer is the last."""
        self._set_apart()
        self.closes = True

    def abort(self) -> None:
        """Drop the connection."""
        self._shut = True
        self._fresh = False
        self._transport.abort()

    # -- from the handler

    def _line_up(self, head: Head) -> Reply:
        """A reply that answers in its turn."""
        edge = self.edge
        edge.numbers = number = edge.numbers + 1
        reply = Reply(self, head, number)
        self._replies.append(reply)
        if edge.access_log is not None:
            reply.began = edge.loop.time()
        return reply

    def _hand_over(self, request: Request, reply: Reply) -> None:
        try:
            self._handle(request, reply)
        except Exception:  # noqa: BLE001  (the request edge: whatever the handler did not foresee is logged, answered 500)
            _LOG.exception("request %s failed", request.id)
            self.fail(reply)

    # -- together with others

    def answer(self, data: bytes) -> None:
        """Send the whole answer to what `asked` stands for."""
        self.asked = None
        self._transport.write(data)

    def single_out(self, head: Head, body: bytes) -> tuple[Request, Reply] | None:
        """The request that went to a route, to be answered through its reply; None when its client has gone."""
        if self.asked is head:
            self._set_apart()
        pair, self._singled = self._singled, None
        if pair is None:
            return None
        pair[0].body = body
        return pair

    def ask_alone(self, head: Head, body: bytes) -> None:
        """Give the request to the handler as if there were no turns."""
        pair = self.single_out(head, body)
        if pair is not None:
            self._hand_over(*pair)

    def _set_apart(self) -> None:
        """Something unusual happens: the request that went to a route gets a reply of its own."""
        head = self.asked
        if head is not None:
            self.asked = None
            reply = self._line_up(head)
            self._singled = (Request(head, b"", self, reply.number, None), reply)

    def fail(self, reply: Reply) -> None:
        """The handler raised."""
        if reply.is_answered:
            if not reply.is_finished:
                self.abort()
            return
        reply.refuse(500, InternalError("the request could not be answered"))

    # -- answering

    def complete(self, reply: Reply, data: bytes) -> None:
        """The last bytes of an answer."""
        replies = self._replies
        if not replies or replies[0] is not reply:
            if not self.is_gone:
                reply.size += len(data)
                reply.parts.append(data)
            return
        replies.popleft()
        self._out.append(data)
        if self.edge.access_log is not None:
            self._log(reply, len(data))
        if reply is self._final or reply is self._stream_reply:
            self._end()
        elif replies:
            self._release()
        if not self._corked:
            self._flush()
        elif len(data) > _LARGE or len(self._out) > _MANY:
            self._write_out()  # not gathered further: what a client does not read must not pile up here
        if self._held:
            self._unhold()

    def add(self, reply: Reply, data: bytes) -> None:
        """Some bytes of an answer that goes on."""
        if self.is_gone:
            return
        reply.size += len(data)
        if self._replies and self._replies[0] is reply:
            self._out.append(data)
            if not self._corked:
                self._flush()
        else:
            reply.parts.append(data)

    def ends_with(self, reply: Reply, *, close: bool) -> bool:
        """Whether the connection closes after `reply`."""
        early = reply is self._stream_reply  # answered before its body was read: the rest is not waited for
        if close or early or (self.closes and self._replies and reply is self._replies[-1]):
            self._final = reply
            self.closes = True
            self._shut = True
            self._fresh = False
            if early and self._stream is not None:
                self._lingers = True
                self._stream.fail(BodyIncomplete("the request was answered before its body was read"))
            return True
        return False

    async def drained(self, reply: Reply) -> None:
        """Until `reply` is first in line and the client takes bytes, or is gone."""
        await asyncio.sleep(0)  # others get their turn, and a lost connection is noticed even if nothing is ever full
        while not self.is_gone and (self._write_paused or (self._replies and self._replies[0] is not reply)):
            waiter = self.edge.loop.create_future()
            self._drainers.append(waiter)
            await waiter

    def _release(self) -> None:
        """Let out the answers that waited for their turn."""
        replies = self._replies
        while replies and (replies[0].parts or replies[0].is_finished):
            reply = replies[0]
            self._out.extend(reply.parts)
            reply.parts.clear()
            if not reply.is_finished:
                break
            replies.popleft()
            if self.edge.access_log is not None:
                self._log(reply, 0)
            if reply is self._final:
                self._end()
                break
        self._wake_drainers()

    def _end(self) -> None:
        """The last answer is out: nothing that came after it is answered."""
        self._shut = self._finished = self.closes = True
        self._fresh = False
        self._lingers = self._lingers or bool(self._buffer) or self._reader is not None
        self._stream = self._stream_reply = None
        dropped = list(self._replies)
        self._replies.clear()
        for each in dropped:
            each.lost()
            each.revoke()

    def _flush(self) -> None:
        if self._out:
            self._write_out()
        if self._finished:
            self._close_gently()

    def _write_out(self) -> None:
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._transport.write(data)
        if len(data) > LARGE_ANSWER and not (self._receiving or self._held or self._shut):
            self._watch.begin()
            self.deadline = self.edge.now + self._watch.step_s

    def _close_gently(self) -> None:
        """Send what is left, then close; input is drained a while, so that no reset overtakes the answer."""
        if self._closing or self.is_gone:
            return
        self._closing = True
        edge = self.edge
        if not self._lingers:
            self._close_now()
            return
        self.deadline = math.inf
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._set_reading(on=True)
        edge.loop.call_later(edge.limits.linger_s, self._close_now)

    def _close_now(self) -> None:
        if self.is_gone:
            return
        self._watch.begin()
        self.deadline = self.edge.now + self._watch.step_s
        self._transport.close()

    def _log(self, reply: Reply, size: int) -> None:
        log = self.edge.access_log
        if log is not None:
            head = reply.head
            log(head.method, head.path, reply.status, self.edge.loop.time() - reply.began, reply.size + size)

    def peer_of(self, head: Head) -> str:
        """The client's address, as a trusted proxy says or as connected."""
        rules = self._rules
        return rules.proxies.client(rules.peer, head.fields)

    # -- refusing

    def _refuse(self, refused: Refused) -> None:
        """Answer what cannot be let in, in its turn, and close."""
        self._lingers = True
        self._release_memory()
        reply = self._stream_reply
        if reply is not None:
            if self._stream is not None:
                self._stream.fail(refused.error)
                self._stream = None
            if reply.is_answered:
                self.abort()
                return
            self._stream_reply = None
        else:
            self._set_apart()
            self.edge.requests += 1
            method = self._head.method if self._head is not None else "GET"
            reply = self._line_up(unread_head(method))
        reply.refuse(refused.status, refused.error, close=True)
        reply.revoke()

    # -- holding back

    def _hold(self) -> None:
        self._held = True
        self._fresh = False
        self._update_reading()

    def _unhold(self) -> None:
        if self._shut or self._write_paused or len(self._replies) >= self.edge.limits.max_pipelined:
            return
        self._held = False
        self._update_reading()
        if not self._corked:
            self._receive(b"")

    def _update_reading(self) -> None:
        full = self._stream is not None and self._stream.is_full
        self._set_reading(on=not self._held and not full)

    def _set_reading(self, *, on: bool) -> None:
        if on == self._reading or self._transport.is_closing():
            return
        self._reading = on
        if on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _settle(self) -> None:
        """Say by when to look again, after something came in."""
        if self._held:
            self._fresh = False
            if not self._write_paused:
                self.deadline = math.inf
            self._receiving = False
        elif self._buffer or self._reader is not None or self._skipped:
            self._fresh = False
            if not self._receiving:
                self._receiving = True
                self._watch.is_on = False
                self.deadline = self.edge.receipt_at
        else:
            self._fresh = True
            self._receiving = False
            self.deadline = self.edge.idle_at

    def _account(self, size: int) -> None:
        """Hold `size` bytes of the listener's memory for bodies."""
        more = size - self._reserved
        if more > 0:
            if not self.edge.reserve(more):
                raise Refused(503, Overloaded("the server is receiving as much as it can hold"))
            self._reserved = size

    def _release_memory(self) -> None:
        self.edge.buffered -= self._reserved
        self._reserved = 0

    def _wake_drainers(self) -> None:
        waiters, self._drainers = self._drainers, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _receive(self, data: bytes) -> None:
        """Read what came, and what was left over before."""
        raise NotImplementedError
