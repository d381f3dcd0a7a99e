"""The sending side of one connection: answers within the client's windows, one write a turn of the loop.

An answer that fits goes out as three frames in one piece, a message of a stream as one. What does not fit waits, and
the waiting ones share what the client gives, a frame each in turn (RFC 9113 section 5.2). Nothing is cut before
it may be sent, so a client that takes nothing holds one copy of its answers, for as long as the write deadline allows.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Final

from modelyard.foundation.http2.answers import HEADERS_BLOCK, OK_BLOCK
from modelyard.foundation.http2.call import AnyCall, Call
from modelyard.foundation.http2.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    LARGEST_WINDOW,
    SMALLEST_FRAME_LIMIT,
    Code,
    ConnectionFault,
    StreamFault,
    frame,
    frame_head,
)
from modelyard.foundation.http2.streaming import StreamCall, Waiting

_BEGIN: Final = Struct(f">HBBBI{len(HEADERS_BLOCK)}sHBBBIBI")
_OK: Final = Struct(f">HBBBI{len(OK_BLOCK)}s")
_HEADERS_SIZE: Final = len(HEADERS_BLOCK)
_OK_SIZE: Final = len(OK_BLOCK)
_LAST: Final = END_HEADERS | END_STREAM
_PREFIX_SIZE: Final = 5
_A_TURN: Final = 1 << 20  # bytes of waiting answers that one connection sends in one turn of the loop


class Turns:
    """Flushes all connections of a listener that answered in this turn of the loop, with one callback."""

    __slots__ = ("_dirty", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._dirty: list[Outflow] = []

    def add(self, outflow: "Outflow") -> None:
        """Flush `outflow` soon."""
        if not self._dirty:
            self._loop.call_soon(self._flush)
        self._dirty.append(outflow)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for outflow in dirty:
            outflow.is_dirty = False
            outflow.flush()


class Outflow:
    """Windows, waiting answers and unsent bytes of one connection. It is the `Link` of its calls."""

    __slots__ = (
        "_turns", "answered", "calls", "corked", "ended", "frame_limit", "initial", "is_dirty", "out", "paused",
        "peer", "progress", "transport", "waiting", "window",
    )  # fmt: skip

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.ended: Callable[[StreamCall], None] = _nothing  # is told of each stream whose trailers are on their way
        self.transport: asyncio.Transport | None = None  # None: nothing can be sent any more
        self.peer = ""
        self.calls: dict[int, AnyCall] = {}
        self.out: list[bytes] = []
        self.waiting: deque[Waiting] = deque()
        self.window = DEFAULT_WINDOW
        self.initial = DEFAULT_WINDOW
        self.frame_limit = SMALLEST_FRAME_LIMIT
        self.corked = False
        self.paused = False
        self.is_dirty = False
        self.answered = 0
        self.progress = 0  # counts what left the queue, so that a standstill is noticed

    # -- answers

    def answer(self, call: Call, message: bytes, block: bytes) -> None:
        """Send headers, `message` and the trailers in `block`, now or when the client lets us."""
        size = len(message) + _PREFIX_SIZE
        sid = call.sid
        fits = size <= self.frame_limit and size <= self.window and size <= self.initial + call.credit
        if not fits or self.paused:
            self._queue(call, message, block)
            return
        self.window -= size
        begin = _BEGIN.pack(
            0, _HEADERS_SIZE, HEADERS, END_HEADERS, sid, HEADERS_BLOCK, size >> 8, size & 0xFF, DATA, 0, sid,
            0, size - _PREFIX_SIZE,
        )  # fmt: skip
        if block is OK_BLOCK:
            end = _OK.pack(0, _OK_SIZE, HEADERS, _LAST, sid, OK_BLOCK)
        else:
            end = frame(HEADERS, _LAST, sid, block)
        self.out += (begin, message, end)
        self.answered += 1
        self.calls.pop(sid, None)
        if not (self.corked or self.is_dirty):
            self._schedule()

    def refuse(self, call: Call, block: bytes) -> None:
        """Send `block` as trailers only."""
        self.answered += 1
        self.calls.pop(call.sid, None)
        self.send(frame(HEADERS, _LAST, call.sid, block))

    def send(self, data: bytes) -> None:
        """Send `data` (whole frames that no window counts) with this turn's write."""
        self.out.append(data)
        if not (self.corked or self.is_dirty):
            self._schedule()

    def send_message(self, call: StreamCall, message: bytes) -> None:
        """Send one message of a stream, now or when the client lets us."""
        if not call.begun:
            call.begun = True
            self.send(frame(HEADERS, END_HEADERS, call.sid, HEADERS_BLOCK))
        size = len(message) + _PREFIX_SIZE
        data = b"\0" + (size - _PREFIX_SIZE).to_bytes(4, "big") + message
        waiting = call.waiting
        if waiting is not None:
            call.backlog += size
            if waiting.more is None:
                waiting.more = deque()
            waiting.more.append(data)
        elif size <= min(self.frame_limit, self.window, self.initial + call.credit) and not self.paused:
            self.window -= size
            call.credit -= size
            self.send(frame(DATA, 0, call.sid, data))
        else:
            call.backlog += size
            call.waiting = Waiting(call, data, None)
            self.waiting.append(call.waiting)
            self.pump()

    def finish(self, call: StreamCall, block: bytes) -> None:
        """Send what waits of a stream, then the trailers in `block`."""
        if call.waiting is not None:
            call.waiting.block = block
        else:
            self._end(call, block)

    def forget(self, call: AnyCall) -> None:
        """The client gave `call` up: what waits for it is dropped."""
        if call.is_answered or isinstance(call, StreamCall):
            self.waiting = deque(each for each in self.waiting if each.call is not call)

    def _queue(self, call: Call, message: bytes, block: bytes) -> None:
        size = len(message)
        self.send(frame(HEADERS, END_HEADERS, call.sid, HEADERS_BLOCK))
        self.waiting.append(Waiting(call, b"\0" + size.to_bytes(4, "big") + message, block))
        self.pump()

    def pump(self) -> None:
        """Send what waits, as far as the windows, the transport and this turn allow."""
        waiting, budget, stuck = self.waiting, _A_TURN, 0
        while stuck < len(waiting) and budget > 0 and self.window > 0 and not self.paused:
            first = waiting.popleft()
            size = min(len(first.data) - first.at, self.frame_limit, self.window, self.initial + first.call.credit)
            if size <= 0:
                stuck += 1
                waiting.append(first)
                continue
            stuck = 0
            budget -= size
            if self._send_piece(first, size):
                waiting.append(first)
        if self.out and not (self.corked or self.is_dirty):
            self._schedule()

    def _send_piece(self, each: Waiting, size: int) -> bool:
        """Send the next `size` bytes; whether more waits."""
        call = each.call
        self.window -= size
        call.credit -= size
        self.progress += 1
        after = each.at + size
        self.out += (frame_head(size, DATA, 0, call.sid), each.data[each.at : after])
        each.at = after
        if isinstance(call, StreamCall):
            call.backlog -= size
        if after < len(each.data):
            return True
        if each.more:
            each.data, each.at = each.more.popleft(), 0
            return True
        self._all_sent(each)
        return False

    def _all_sent(self, each: Waiting) -> None:
        call = each.call
        if isinstance(call, StreamCall):
            call.waiting = None
        if each.block is not None:
            self._end(call, each.block)
        elif isinstance(call, StreamCall) and call.on_room is not None:
            call.on_room()

    def _end(self, call: AnyCall, block: bytes) -> None:
        self.answered += 1
        self.calls.pop(call.sid, None)
        self.send(frame(HEADERS, _LAST, call.sid, block))
        if isinstance(call, StreamCall):
            self.ended(call)

    # -- windows

    def widen(self, more: int) -> None:
        """The client gave more of the connection's window."""
        self.window += more
        if self.window > LARGEST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "the connection's window is too large")
        if self.waiting:
            self.pump()

    def widen_stream(self, call: AnyCall, more: int) -> None:
        """The client gave more of one stream's window."""
        call.credit += more
        if self.initial + call.credit > LARGEST_WINDOW:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, call.sid, "the stream's window is too large")
        if self.waiting:
            self.pump()

    def set_initial(self, size: int) -> None:
        """The client changed what each stream begins with (RFC 9113 section 6.9.2)."""
        self.initial = size
        if any(size + call.credit > LARGEST_WINDOW for call in self.calls.values()):
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a stream's window is too large")
        if self.waiting:
            self.pump()

    # -- writing

    def flush(self) -> None:
        """Write what there is; more follows in the next turn when answers still wait for this one's share."""
        out, transport = self.out, self.transport
        if transport is None:
            out.clear()
            return
        if out:
            data = b"".join(out)
            out.clear()
            transport.write(data)
        if self.waiting and not self.paused:
            self.pump()

    def _schedule(self) -> None:
        self.is_dirty = True
        self._turns.add(self)


def _nothing(call: StreamCall) -> None:
    del call
