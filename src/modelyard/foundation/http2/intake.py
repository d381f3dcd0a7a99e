"""The receiving side of one connection: frames in, calls out to the handler (RFC 9113 sections 4 to 6 and 8).

The common path is a HEADERS frame whose block was seen before (one dictionary look-up, see `Heads`) and a DATA frame
with the whole message. Nothing is scheduled for a call.
"""

import logging
from typing import Final

from modelyard.foundation.http2 import control
from modelyard.foundation.http2.answers import failure_block
from modelyard.foundation.http2.call import Call
from modelyard.foundation.http2.frames import (
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD,
    HAS_PRIORITY,
    HEAD_SIZE,
    HEADERS,
    LARGEST_ID,
    PADDED,
    PING,
    SETTINGS,
    Code,
    ConnectionFault,
    StreamFault,
    frame,
    goaway,
    reset,
    unpad,
    window_update,
)
from modelyard.foundation.http2.handling import GrpcHandler
from modelyard.foundation.http2.head import CallHead, Malformed
from modelyard.foundation.http2.heads import Heads
from modelyard.foundation.http2.inflow import Inflow
from modelyard.foundation.http2.messages import MessageRefused, open_message
from modelyard.foundation.http2.outflow import Outflow
from modelyard.foundation.http2.patience import Patience
from modelyard.foundation.http2.receiving import PREFIX_SIZE, Arriving, Block, Closed
from modelyard.foundation.http2.shared import Shared
from modelyard.foundation.http2.status import Status, log_refused
from modelyard.foundation.http2.streaming import StreamCall

_LOG: Final = logging.getLogger(__name__)
DRAIN_PING: Final = b"drain\0\0\0"
_ANNOUNCED: Final = 1
_NAMED: Final = 2


class Intake:
    """What one client opened and did not finish, and how far the connection is said goodbye to."""

    def __init__(self, shared: Shared, handler: GrpcHandler, outflow: Outflow) -> None:
        self.edge = shared.edge
        self.limits = shared.limits
        self.outflow = outflow
        self.calls = outflow.calls
        self.arriving: dict[int, Arriving] = {}
        self.streams: dict[int, Inflow] = {}  # of streaming calls; each of them is in `calls` as well
        self.patience = Patience(shared.limits)
        self.active_at = shared.edge.now
        self.last = 0  # the highest stream the client opened
        self.goodbye = 0  # 0: none; 1: announced; 2: the last stream is named
        self.block: Block | None = None
        self.settled = False  # the client's first SETTINGS came
        self._handle = handler.handle
        self._open = handler.open
        self._heads = Heads(shared.limits, handler.streams)
        self._known = self._heads.known
        self._closed = Closed()
        self._given = 0  # bytes of the connection's window that were used and not given back
        outflow.ended = self._stream_ended

    # -- frames

    def read(self, data: bytes) -> bytes:
        """Act on all whole frames in `data`; gives the rest.

        Raises:
            ConnectionFault: the connection cannot go on.
        """
        at, end = 0, len(data)
        most = self.limits.max_frame_bytes
        while end - at >= HEAD_SIZE:
            high, low, kind, flags, sid = FRAME_HEAD.unpack_from(data, at)
            size = high << 8 | low
            if size > most:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a frame is larger than we allow")
            start = at + HEAD_SIZE
            after = start + size
            if after > end:
                break
            at = after
            sid &= LARGEST_ID
            try:
                if self.block is not None or not self.settled:
                    self._read_bound(kind, flags, sid, data[start:after])
                elif kind == DATA:
                    self._on_data(flags, sid, data[start:after])
                elif kind == HEADERS:
                    self._on_headers(flags, sid, data[start:after])
                else:
                    control.read(self, kind, flags, sid, data[start:after])
            except StreamFault as fault:
                self.stop_stream(fault.sid, fault.code)
        return data[at:]

    def _read_bound(self, kind: int, flags: int, sid: int, payload: bytes) -> None:
        """A frame where only one kind may come: SETTINGS at first, CONTINUATION in a block."""
        block = self.block
        if block is None:
            if kind != SETTINGS or flags & 1:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "SETTINGS have to come first")
            control.read(self, kind, flags, sid, payload)
            self.settled = True
            return
        if kind != CONTINUATION or sid != block.sid:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a header block is interrupted")
        block.add(payload, self.limits)
        if flags & END_HEADERS:
            self.block = None
            self._end_headers(block.flags, sid, b"".join(block.parts))

    # -- header blocks

    def _on_headers(self, flags: int, sid: int, payload: bytes) -> None:
        if not sid & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a client's streams have odd numbers")
        if flags & (PADDED | HAS_PRIORITY):
            payload = control.strip_headers(flags, sid, payload)
        if not flags & END_HEADERS:
            self.block = Block(sid, flags, payload, self.edge.now)
            self.block.check(self.limits)
            return
        self._end_headers(flags, sid, payload)

    def _end_headers(self, flags: int, sid: int, block: bytes) -> None:
        if sid <= self.last:
            self._end_trailers(flags, sid, block)
            return
        if sid != self.last + 2:
            self._closed.skip(self.last, sid)
        self.last = sid
        try:
            head = self._known.get(block) or self._heads.read(block)
        except Malformed as error:
            raise StreamFault(Code.PROTOCOL_ERROR, sid, str(error)) from error
        if self.goodbye == _NAMED or len(self.calls) + len(self.arriving) >= self.limits.max_streams:
            raise StreamFault(Code.REFUSED_STREAM, sid, "too many calls at once")
        self.active_at = self.edge.now
        if head.streams and not head.status:
            self._open_stream(sid, head, ended=bool(flags & END_STREAM))
            return
        self.arriving[sid] = Arriving(head, self.limits.stream_window_bytes, self.edge.now)
        if head.status:
            self._refuse(sid, head.status, head.text, head.http_status, ended=bool(flags & END_STREAM))
        elif flags & END_STREAM:
            self._deliver(sid, self.arriving.pop(sid), b"")

    def _end_trailers(self, flags: int, sid: int, block: bytes) -> None:
        """A block on a stream that is there already, or was."""
        arriving, inflow = self.arriving.get(sid), self.streams.get(sid)
        is_open = arriving is not None or (inflow is not None and not inflow.ended)
        try:
            self._heads.check_trailers(block, of_call=is_open)
        except Malformed as error:
            raise StreamFault(Code.PROTOCOL_ERROR, sid, str(error)) from error
        if is_open and not flags & END_STREAM:
            raise StreamFault(Code.PROTOCOL_ERROR, sid, "a second block does not end the stream")
        if arriving is not None:
            del self.arriving[sid]
            self._deliver(sid, arriving, arriving.body)
        elif inflow is not None and is_open:
            inflow.take(b"", end=True)
        elif sid in self.calls:
            raise StreamFault(Code.STREAM_CLOSED, sid, "the stream was ended")
        else:
            self._closed.judge_headers(sid, self.patience)

    # -- messages

    def _on_data(self, flags: int, sid: int, payload: bytes) -> None:
        size = len(payload)
        self._count_window(size)
        if flags & PADDED:
            payload = unpad(payload)
        arriving = self.arriving.get(sid)
        if arriving is None:
            self._on_stream_data(flags, sid, payload, size)
            return
        arriving.window -= size
        if arriving.window < 0:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, sid, "more than the window was sent")
        if not flags & END_STREAM:
            self._keep(sid, arriving, payload)
            return
        del self.arriving[sid]
        if arriving.body:
            arriving.body += payload
            self._deliver(sid, arriving, arriving.body)
        else:
            self._deliver(sid, arriving, payload)

    def _on_stream_data(self, flags: int, sid: int, payload: bytes, size: int) -> None:
        inflow = self.streams.get(sid)
        if inflow is None or inflow.ended:
            self._stray_data(sid)
            return
        inflow.window -= size
        if inflow.window < 0:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, sid, "more than the window was sent")
        if payload:
            self.patience.traffic()
        elif not flags & END_STREAM:
            self.patience.control()
        inflow.take(payload, end=bool(flags & END_STREAM))

    def _keep(self, sid: int, arriving: Arriving, payload: bytes) -> None:
        """A part of a message came."""
        size = len(payload)
        if size:
            self.patience.traffic()
        else:
            self.patience.control()
        arriving.body += payload
        declared = arriving.declared()
        most = self.edge.limits.max_body_bytes
        if len(arriving.body) > most + PREFIX_SIZE or declared > most:
            self._refuse(sid, Status.RESOURCE_EXHAUSTED, f"the message is larger than {most} bytes")
            return
        if not self.edge.reserve(size):
            self._refuse(sid, Status.RESOURCE_EXHAUSTED, "the server is receiving as much as it can hold")
            return
        arriving.reserved += size
        full = self.limits.stream_window_bytes
        if arriving.window < full // 2:
            self.outflow.send(window_update(sid, full - arriving.window))
            arriving.window = full

    def give_window(self, inflow: Inflow) -> None:
        """Let the client send more on this stream, if it has used half of what it had."""
        full = self.limits.stream_window_bytes
        if inflow.window < full // 2:
            self.outflow.send(window_update(inflow.call.sid, full - inflow.window))
            inflow.window = full

    def _count_window(self, size: int) -> None:
        self._given = given = self._given + size
        most = max(self.limits.connection_window_bytes, DEFAULT_WINDOW)
        if given > most:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more than the connection's window was sent")
        if given > most // 2:
            self.outflow.send(window_update(0, given))
            self._given = 0

    def _stray_data(self, sid: int) -> None:
        if sid == 0 or sid > self.last or not sid & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "DATA on a stream that is not open")
        self.patience.control()
        if not self._closed.was_reset(sid):
            raise StreamFault(Code.STREAM_CLOSED, sid, "the stream is closed")

    # -- calls

    def _deliver(self, sid: int, arriving: Arriving, body: bytes | bytearray) -> None:
        """All that the client sends on this stream is in."""
        head = arriving.head
        if 0 <= head.length != len(body):
            self._release(arriving)
            raise StreamFault(Code.PROTOCOL_ERROR, sid, "the content length is not what came")
        self.edge.requests += 1
        self.patience.traffic()
        if arriving.reserved:
            self._release(arriving)
        try:
            message = open_message(body, head.encoding, self.edge.limits)
        except MessageRefused as refused:
            self._answer_refused(sid, head, refused.status, refused.text)
            return
        call = Call(self.outflow, head, sid, message, arriving.credit)
        self.calls[sid] = call
        try:
            self._handle(call)
        except Exception:  # noqa: BLE001  (the request edge: what the handler did not foresee is logged, answered INTERNAL)
            _LOG.exception("a call failed")
            if not call.is_answered:
                call.fail(Status.INTERNAL, "the server failed; its log says why")

    def _open_stream(self, sid: int, head: CallHead, *, ended: bool) -> None:
        call = StreamCall(self.outflow, head, sid)
        inflow = Inflow(self, call, self.limits.stream_window_bytes)
        call.attach(inflow)
        self.calls[sid] = call
        self.streams[sid] = inflow
        self.patience.traffic()
        try:
            self._open(call)
        except Exception:  # noqa: BLE001  (the request edge, as above)
            _LOG.exception("a streaming call failed")
            if not call.is_answered:
                call.break_off(Status.INTERNAL, "the server failed; its log says why")
        if ended:
            inflow.take(b"", end=True)

    def _stream_ended(self, call: StreamCall) -> None:
        """Our side of a stream is over; the client's is dropped (RFC 9113 section 8.1)."""
        inflow = self.streams.pop(call.sid, None)
        if inflow is not None:
            inflow.let_go()
            if not inflow.ended:
                self._closed.add_reset(call.sid)
                self.outflow.send(reset(call.sid, Code.NO_ERROR))

    def _answer_refused(self, sid: int, head: CallHead, status: int, text: str, http_status: int = 0) -> None:
        block = failure_block(status, text, http_status=http_status)
        self.outflow.send(frame(HEADERS, END_HEADERS | END_STREAM, sid, block))
        log_refused(self.edge, head.path, status, http_status=http_status)

    def _refuse(self, sid: int, status: int, text: str, http_status: int = 0, *, ended: bool = False) -> None:
        """Answer a call whose message is not wanted; the rest of it is dropped (RFC 9113 section 8.1)."""
        self._answer_refused(sid, self.arriving[sid].head, status, text, http_status)
        self._drop(sid)
        if not ended:
            self._closed.add_reset(sid)
            self.outflow.send(reset(sid, Code.NO_ERROR))

    def refuse_late(self, before: float) -> None:
        """Refuse what began to arrive before that time and is not whole, and end streams whose deadline has passed."""
        for sid in [sid for sid, each in self.arriving.items() if each.began <= before]:
            self._refuse(sid, Status.DEADLINE_EXCEEDED, "the request did not arrive in time")
        now = self.edge.now
        for inflow in list(self.streams.values()):
            if inflow.call.is_answered:
                continue
            if inflow.is_partial and inflow.began <= before:
                inflow.call.break_off(Status.DEADLINE_EXCEEDED, "the message did not arrive in time")
            elif inflow.late_at is not None and inflow.late_at <= now:
                inflow.call.break_off(Status.DEADLINE_EXCEEDED, "the call's deadline has passed")

    def begin_again(self, now: float) -> None:
        """What is arriving counts from now: while nothing was read, nothing could arrive."""
        for arriving in self.arriving.values():
            arriving.began = now
        for inflow in self.streams.values():
            inflow.began = now

    def _release(self, arriving: Arriving) -> None:
        self.edge.buffered -= arriving.reserved
        arriving.reserved = 0

    def _drop(self, sid: int) -> None:
        arriving = self.arriving.pop(sid, None)
        if arriving is not None:
            self._release(arriving)

    def stop_stream(self, sid: int, code: Code) -> None:
        """Reset a stream that cannot go on."""
        self.end_call(sid)
        self._closed.add_reset(sid)
        self.patience.reset(self.outflow.answered)
        self.outflow.send(reset(sid, code))

    def end_call(self, sid: int) -> None:
        """The stream is over before its answer is."""
        self._drop(sid)
        inflow = self.streams.pop(sid, None)
        if inflow is not None:
            inflow.let_go()
        call = self.calls.pop(sid, None)
        if call is not None:
            self.outflow.forget(call)
            call.cancel()

    def end_all(self) -> None:
        """The connection is over: whoever still works for it is told."""
        self.outflow.waiting.clear()
        for sid in [*self.arriving, *self.calls]:
            self.end_call(sid)

    # -- goodbye

    @property
    def is_busy(self) -> bool:
        """Whether a call is being received or answered."""
        return bool(self.calls or self.arriving or self.outflow.waiting)

    @property
    def closes(self) -> bool:
        """Whether the client was told to go elsewhere."""
        return self.goodbye > 0

    def announce_end(self) -> None:
        """Begin the graceful end (RFC 9113 section 6.8): say so, then name the last stream a round trip later."""
        if not self.goodbye:
            self.goodbye = _ANNOUNCED
            self.outflow.send(goaway(LARGEST_ID, Code.NO_ERROR) + frame(PING, 0, 0, DRAIN_PING))

    def name_last(self) -> None:
        """The client has seen that we go: nothing that it opens from now on is taken."""
        if self.goodbye < _NAMED:
            self.goodbye = _NAMED
            self.outflow.send(goaway(self.last, Code.NO_ERROR))
