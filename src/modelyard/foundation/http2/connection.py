"""One HTTP/2 connection: frames in, whole unary calls out to the handler, answers back (RFC 9113).

The common path is a HEADERS frame whose block was seen before (one dictionary look-up, see `_head_of`) and a DATA
frame with the whole message: nothing is scheduled, and all answers of a turn leave in one write. The connection owns no
timer; the listener's clock looks at it about once a second.
"""

import asyncio
import logging
import math
from typing import Final, cast

from modelyard.foundation.http.flow import WriteWatch
from modelyard.foundation.http2 import control
from modelyard.foundation.http2.answers import OLD_HTTP, failure_block
from modelyard.foundation.http2.call import Call, UnaryHandler
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
    PREFACE,
    SETTING_FRAME_SIZE,
    SETTING_LIST_SIZE,
    SETTING_STREAMS,
    SETTING_WINDOW,
    SETTINGS,
    Code,
    ConnectionFault,
    StreamFault,
    frame,
    goaway,
    reset,
    settings,
    unpad,
    window_update,
)
from modelyard.foundation.http2.head import CallHead, Malformed, check_trailers, read_head
from modelyard.foundation.http2.hpack import Decoder, HpackError
from modelyard.foundation.http2.messages import MessageRefused, open_message
from modelyard.foundation.http2.outflow import Outflow
from modelyard.foundation.http2.patience import Patience
from modelyard.foundation.http2.receiving import PREFIX_SIZE, Arriving, Block
from modelyard.foundation.http2.shared import Shared

_LOG: Final = logging.getLogger(__name__)
_CHECK_S: Final = 1.0
_KNOWN_HEADS: Final = 256
_LONGEST_KNOWN: Final = 512
_ABANDONED: Final = 1024
_GAPS: Final = 64
_LOOKS_LIKE_HTTP1: Final = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ")
DRAIN_PING: Final = b"drain\0\0\0"
RESOURCE_EXHAUSTED: Final = 8
DEADLINE_EXCEEDED: Final = 4
INTERNAL: Final = 13


class Http2Connection(asyncio.Protocol):
    """The protocol of one client connection."""

    def __init__(self, shared: Shared, handler: UnaryHandler, *, tls: bool = False) -> None:
        self.shared = shared
        self.edge = shared.edge
        self.limits = shared.limits
        self._handle = handler.handle
        self._tls = tls
        self._transport: asyncio.Transport
        self._watch: WriteWatch
        self.outflow = Outflow(shared.turns)
        self.calls = self.outflow.calls
        self.arriving: dict[int, Arriving] = {}
        self._decoder = Decoder(max_list=self.limits.max_metadata_bytes, max_fields=self.limits.max_metadata_fields)
        self._heads: dict[bytes, CallHead] = {}
        self._buffer = b""
        self._block: Block | None = None
        self.last = 0  # the highest stream the client opened
        self._gaps: list[tuple[int, int]] = []  # streams that were skipped, and are closed by that
        self._abandoned: dict[int, None] = {}  # streams that we reset: what is still under way for them is dropped
        self._given = 0  # bytes of the connection's window that were used and not given back
        self.patience = Patience(self.limits)
        self._preface = False
        self._settled = False  # the client's first SETTINGS came
        self._shut = False  # nothing more is read
        self._goodbye = 0  # 0: none; 1: announced; 2: the last stream is named
        self._ends_at = 0.0
        self._active_at = self.edge.now
        self._began = self.edge.now  # of what is buffered
        self._taken_at = math.inf  # when to see whether what is on its way was taken
        self._progress = 0
        self._moved_at = self.edge.now  # when a waiting answer last went on
        self.is_gone = False
        self.deadline = self.edge.now + min(_CHECK_S, self.edge.limits.receipt_deadline_s / 4)

    # -- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there: our settings go first."""
        self._transport = self.outflow.transport = cast("asyncio.Transport", transport)
        self._watch = WriteWatch(self._transport, self.edge.limits)
        peer = transport.get_extra_info("peername")
        self.outflow.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self.edge.connections.add(self)
        if len(self.edge.connections) > self.edge.limits.max_connections:
            self.abort()
            return
        limits = self.limits
        hello = settings({
            SETTING_STREAMS: limits.max_streams,
            SETTING_WINDOW: limits.stream_window_bytes,
            SETTING_FRAME_SIZE: limits.max_frame_bytes,
            SETTING_LIST_SIZE: limits.max_metadata_bytes,
        })  # fmt: skip
        more = limits.connection_window_bytes - DEFAULT_WINDOW
        self._hello = hello + (window_update(0, more) if more > 0 else b"")

    def data_received(self, data: bytes) -> None:
        """Some bytes from the client."""
        if self._shut:
            return
        data = self._buffer + data if self._buffer else bytes(data)
        size = len(data)
        outflow = self.outflow
        outflow.corked = True
        try:
            if not self._preface:
                data = self._read_preface(data)
            if self._preface:
                data = self._read_frames(data)
        except ConnectionFault as fault:
            self._end(fault.code, fault.text)
            data = b""
        except Exception:  # noqa: BLE001  (the loop's edge: one connection's surprise must not reach the loop)
            _LOG.exception("a connection failed")
            self._end(Code.INTERNAL_ERROR, "")
            data = b""
        if len(data) < size or not self._buffer:  # something whole came, or something began
            self._began = self.edge.now
        self._buffer = data
        outflow.corked = False
        outflow.flush()
        if self._goodbye:
            self._leave_if_done()

    def eof_received(self) -> bool:
        """The client sends no more. Without window updates and pings no HTTP/2 client goes on: it is gone."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over: whoever still works for it is told."""
        del exc
        self.is_gone = self._shut = True
        self.outflow.transport = None
        self.edge.connections.discard(self)
        for sid in list(self.arriving):
            self._drop(sid)
        self.outflow.waiting.clear()
        calls = list(self.calls.values())
        self.calls.clear()
        for call in calls:
            call.cancel()

    def pause_writing(self) -> None:
        """The client does not take what we send: nothing more is read from it."""
        self.outflow.paused = True
        self._watch.begin()
        self._taken_at = self.edge.now + self._watch.step_s
        if not self._shut:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client takes bytes again."""
        self.outflow.paused = False
        now = self._began = self._moved_at = self.edge.now  # while nothing was read, nothing could arrive
        for each in self.arriving.values():
            each.began = now
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self.outflow.pump()

    # -- from the clock and the listener

    @property
    def is_busy(self) -> bool:
        """Whether a call is being received or answered."""
        return bool(self.calls or self.arriving or self.outflow.waiting)

    @property
    def closes(self) -> bool:
        """Whether the client was told to go elsewhere."""
        return self._goodbye > 0

    @closes.setter
    def closes(self, value: bool) -> None:
        """Begin the graceful end (RFC 9113 section 6.8): say so, then name the last stream a round trip later."""
        if value and not self._goodbye and not self._shut and self._preface:
            self._goodbye = 1
            self.outflow.send(goaway(LARGEST_ID, Code.NO_ERROR) + frame(PING, 0, 0, DRAIN_PING))

    def name_last(self) -> None:
        """The client has seen that we go: nothing that it opens from now on is taken."""
        if self._goodbye < 2:  # noqa: PLR2004  (see the field)
            self._goodbye = 2
            self.outflow.send(goaway(self.last, Code.NO_ERROR))

    def expire(self, now: float) -> None:
        """Look at the connection: what takes too long is ended."""
        limits = self.edge.limits
        self.deadline = now + min(_CHECK_S, limits.receipt_deadline_s / 4, limits.write_deadline_s / 4)
        if self._shut:
            if now >= self._ends_at:
                self._close_now()
            return
        self.patience.refill(now)
        if now >= self._taken_at:
            self._check_taking(now)
        if not self.outflow.paused:
            self._check_standstill(now)
            self._check_receipt(now - limits.receipt_deadline_s)
        if self._goodbye:
            self._leave_if_done()
        elif not self.is_busy and now - self._active_at >= limits.idle_s:
            self._end(Code.NO_ERROR, "idle")

    def close_idle(self) -> None:
        """Close now, if nothing is under way."""
        if not self._shut and not self.is_busy:
            self._end(Code.NO_ERROR, "")

    def abort(self) -> None:
        """Drop the connection."""
        self._shut = True
        self._transport.abort()

    def _check_taking(self, now: float) -> None:
        if not self._watch.goes_on(self.edge.limits.min_write_rate_bytes_s):
            self.abort()
        self._taken_at = now + self._watch.step_s if self._watch.is_on else math.inf

    def _check_standstill(self, now: float) -> None:
        """End a connection that asks for answers and then gives no window for them."""
        outflow = self.outflow
        if not outflow.waiting or outflow.progress != self._progress:
            self._progress = outflow.progress
            self._moved_at = now
        elif now - self._moved_at >= self.edge.limits.write_deadline_s:
            self._end(Code.ENHANCE_YOUR_CALM, "answers are not taken")

    def _check_receipt(self, before: float) -> None:
        block = self._block
        partial = (not self._settled or self._buffer) and self._began <= before
        if partial or (block is not None and block.began <= before):
            self._end(Code.ENHANCE_YOUR_CALM, "a frame did not arrive in time")
            return
        late = [sid for sid, each in self.arriving.items() if each.began <= before]
        for sid in late:
            self._refuse(sid, DEADLINE_EXCEEDED, "the request did not arrive in time")

    # -- frames

    def _read_preface(self, data: bytes) -> bytes:
        if data.startswith(PREFACE):
            self._preface = True
            self.outflow.send(self._hello)
            if self.edge.draining:
                self.closes = True
            return data[len(PREFACE) :]
        if PREFACE.startswith(data):
            return data
        if data.startswith(_LOOKS_LIKE_HTTP1):
            self.outflow.send(OLD_HTTP)
            self._shut_down()
            return b""
        self.outflow.send(self._hello)
        raise ConnectionFault(Code.PROTOCOL_ERROR, "this is not HTTP/2")

    def _read_frames(self, data: bytes) -> bytes:
        at, end = 0, len(data)
        most = self.limits.max_frame_bytes
        while end - at >= HEAD_SIZE and not self._shut:
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
                if self._block is not None or not self._settled:
                    self._read_bound(kind, flags, sid, data[start:after])
                elif kind == DATA:
                    self._on_data(flags, sid, data[start:after])
                elif kind == HEADERS:
                    self._on_headers(flags, sid, data[start:after])
                else:
                    control.read(self, kind, flags, sid, data[start:after])
            except StreamFault as fault:
                self.stop_stream(fault.sid, fault.code)
        return b"" if self._shut else data[at:]

    def _read_bound(self, kind: int, flags: int, sid: int, payload: bytes) -> None:
        """A frame where only one kind may come: SETTINGS at first, CONTINUATION in a block."""
        block = self._block
        if block is None:
            if kind != SETTINGS or flags & 1:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "SETTINGS have to come first")
            control.read(self, kind, flags, sid, payload)
            self._settled = True
            return
        if kind != CONTINUATION or sid != block.sid:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a header block is interrupted")
        block.parts.append(payload)
        block.size += len(payload)
        block.count += 1
        if block.size > self.limits.max_header_block_bytes or block.count > self.limits.max_continuations:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header block is too long")
        if flags & END_HEADERS:
            self._block = None
            self._end_headers(block.flags, sid, b"".join(block.parts))

    def _on_headers(self, flags: int, sid: int, payload: bytes) -> None:
        if not sid & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a client's streams have odd numbers")
        if flags & (PADDED | HAS_PRIORITY):
            payload = control.strip_headers(flags, sid, payload)
        if not flags & END_HEADERS:
            if len(payload) > self.limits.max_header_block_bytes:
                raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header block is too long")
            self._block = Block(sid, flags, payload, self.edge.now)
            return
        self._end_headers(flags, sid, payload)

    def _end_headers(self, flags: int, sid: int, block: bytes) -> None:
        if sid <= self.last:
            self._end_trailers(flags, sid, block)
            return
        if sid != self.last + 2:
            self._gaps = [*self._gaps[-_GAPS:], (self.last, sid)]
        self.last = sid
        try:
            head = self._heads.get(block) or self._head_of(block)
        except Malformed as error:
            raise StreamFault(Code.PROTOCOL_ERROR, sid, str(error)) from error
        if self._goodbye > 1 or len(self.calls) + len(self.arriving) >= self.limits.max_streams:
            raise StreamFault(Code.REFUSED_STREAM, sid, "too many calls at once")
        self._active_at = self.edge.now
        self.arriving[sid] = Arriving(head, self.limits.stream_window_bytes, self.edge.now)
        if head.status:
            self._refuse(sid, head.status, head.text, head.http_status, ended=bool(flags & END_STREAM))
        elif flags & END_STREAM:
            self._deliver(sid, self.arriving.pop(sid), b"")

    def _end_trailers(self, flags: int, sid: int, block: bytes) -> None:
        """A block on a stream that is there already, or was."""
        fields = self._decode(block)
        arriving = self.arriving.get(sid)
        if arriving is not None:
            try:
                check_trailers(fields or [])
            except Malformed as error:
                raise StreamFault(Code.PROTOCOL_ERROR, sid, str(error)) from error
            if not flags & END_STREAM:
                raise StreamFault(Code.PROTOCOL_ERROR, sid, "a second block does not end the stream")
            del self.arriving[sid]
            self._deliver(sid, arriving, arriving.body)
        elif sid in self.calls:
            raise StreamFault(Code.STREAM_CLOSED, sid, "the stream was ended")
        elif sid in self._abandoned:
            self.patience.control()
        elif any(low < sid < high for low, high in self._gaps):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a stream's number is lower than one before")
        else:
            raise ConnectionFault(Code.STREAM_CLOSED, "the stream is closed")

    def _decode(self, block: bytes) -> list[tuple[bytes, bytes]] | None:
        try:
            fields = self._decoder.decode(block)
        except HpackError as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, str(error)) from error
        if self._decoder.changed:
            self._heads.clear()
        return fields

    def _head_of(self, block: bytes) -> CallHead:
        """The head that `block` says; remembered as long as the table stays as it is."""
        fields = self._decode(block)
        if fields is None:
            return CallHead(status=RESOURCE_EXHAUSTED, text="the metadata is too large")
        head = read_head(fields)
        if not self._decoder.changed and len(block) <= _LONGEST_KNOWN:
            if len(self._heads) >= _KNOWN_HEADS:
                self._heads.clear()
            self._heads[block] = head
        return head

    def _on_data(self, flags: int, sid: int, payload: bytes) -> None:
        size = len(payload)
        self._count_window(size)
        if flags & PADDED:
            payload = unpad(payload)
        arriving = self.arriving.get(sid)
        if arriving is None:
            self._stray_data(sid)
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
            self._refuse(sid, RESOURCE_EXHAUSTED, f"the message is larger than {most} bytes")
            return
        if not self.edge.reserve(size):
            self._refuse(sid, RESOURCE_EXHAUSTED, "the server is receiving as much as it can hold")
            return
        arriving.reserved += size
        full = self.limits.stream_window_bytes
        if arriving.window < full // 2:
            self.outflow.send(window_update(sid, full - arriving.window))
            arriving.window = full

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
        if sid not in self._abandoned:
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
            self._answer_refused(sid, refused.status, refused.text)
            return
        call = Call(self.outflow, head, sid, message, arriving.credit)
        self.calls[sid] = call
        try:
            self._handle(call)
        except Exception:  # noqa: BLE001  (the request edge: what the handler did not foresee is logged, answered INTERNAL)
            _LOG.exception("a call failed")
            if not call.is_answered:
                call.fail(INTERNAL, "the server failed; its log says why")

    def _answer_refused(self, sid: int, status: int, text: str, http_status: int = 0) -> None:
        block = failure_block(status, text, http_status=http_status)
        self.outflow.send(frame(HEADERS, END_HEADERS | END_STREAM, sid, block))

    def _refuse(self, sid: int, status: int, text: str, http_status: int = 0, *, ended: bool = False) -> None:
        """Answer a call whose message is not wanted; the rest of it is dropped (RFC 9113 section 8.1)."""
        self._answer_refused(sid, status, text, http_status)
        self._drop(sid)
        if not ended:
            self._abandon(sid)
            self.outflow.send(reset(sid, Code.NO_ERROR))

    def _release(self, arriving: Arriving) -> None:
        self.edge.buffered -= arriving.reserved
        arriving.reserved = 0

    def _drop(self, sid: int) -> None:
        arriving = self.arriving.pop(sid, None)
        if arriving is not None:
            self._release(arriving)

    def _abandon(self, sid: int) -> None:
        if len(self._abandoned) >= _ABANDONED:
            del self._abandoned[next(iter(self._abandoned))]
        self._abandoned[sid] = None

    def stop_stream(self, sid: int, code: Code) -> None:
        """Reset a stream that cannot go on."""
        self.end_call(sid)
        self._abandon(sid)
        self.patience.reset(self.outflow.answered)
        self.outflow.send(reset(sid, code))

    def end_call(self, sid: int) -> None:
        """The stream is over before its answer is."""
        self._drop(sid)
        call = self.calls.pop(sid, None)
        if call is not None:
            self.outflow.forget(call)
            call.cancel()

    # -- the end

    def _leave_if_done(self) -> None:
        if self._goodbye > 1 and not self.is_busy and not self._shut and not self.outflow.out:
            self._shut_down()
            self.outflow.flush()

    def _end(self, code: Code, text: str) -> None:
        """Say why and close."""
        if self._shut:
            return
        said = code == Code.NO_ERROR and (self._goodbye > 1 or not self._preface)  # it knows, or never began
        if not said:
            self.outflow.send(goaway(self.last, code, text))
        self._shut_down()
        if not self.outflow.corked:
            self.outflow.flush()

    def _shut_down(self) -> None:
        """Read nothing more; close once what was said is out, a little later so that no reset overtakes it."""
        self._shut = True
        self._buffer = b""
        for sid in [*self.arriving, *self.calls]:
            self.end_call(sid)
        self._ends_at = self.edge.now + self.edge.limits.linger_s
        self.deadline = min(self.deadline, self._ends_at)
        self.edge.loop.call_soon(self._half_close)

    def _half_close(self) -> None:
        if self.is_gone or self._transport.is_closing():
            return
        self.outflow.flush()
        if self._tls or not self._transport.can_write_eof():
            self._close_now()
        else:
            self._transport.write_eof()

    def _close_now(self) -> None:
        if self._transport.is_closing():
            self._transport.abort()
            return
        self._ends_at = self.edge.now + self.edge.limits.write_deadline_s
        self._transport.close()
