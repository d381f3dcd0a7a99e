"""One HTTP/2 connection: the transport's side of it, and what time does to it. What comes in is read by `Intake`.

The connection owns no timer; the listener's clock looks at it about once a second.
"""

import asyncio
import logging
import math
from typing import Final, cast

from modelyard.foundation.http.flow import WriteWatch
from modelyard.foundation.http2.answers import OLD_HTTP
from modelyard.foundation.http2.frames import (
    DEFAULT_WINDOW,
    PING,
    PREFACE,
    SETTING_FRAME_SIZE,
    SETTING_LIST_SIZE,
    SETTING_STREAMS,
    SETTING_WINDOW,
    Code,
    ConnectionFault,
    frame,
    goaway,
    settings,
    window_update,
)
from modelyard.foundation.http2.handling import GrpcHandler
from modelyard.foundation.http2.intake import Intake
from modelyard.foundation.http2.limits import Http2Limits
from modelyard.foundation.http2.outflow import Outflow
from modelyard.foundation.http2.shared import Shared

_LOG: Final = logging.getLogger(__name__)
_CHECK_S: Final = 1.0
_LOOKS_LIKE_HTTP1: Final = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ")
ALIVE_PING: Final = b"alive\0\0\0"


class Http2Connection(asyncio.Protocol):
    """The protocol of one client connection."""

    def __init__(self, shared: Shared, handler: GrpcHandler, *, tls: bool = False) -> None:
        self.edge = shared.edge
        self.limits = shared.limits
        self._tls = tls
        self._transport: asyncio.Transport
        self._watch: WriteWatch
        self.outflow = Outflow(shared.turns)
        self.intake = Intake(shared, handler, self.outflow)
        self._buffer = b""
        self._preface = False
        self._shut = False  # nothing more is read
        self._ends_at = 0.0
        now = self.edge.now
        self._began = now  # of what is buffered
        self._heard_at = now
        self._asked_at = math.inf  # when a silent client was asked whether it is there
        self._taken_at = math.inf  # when to see whether what is on its way was taken
        self._progress = 0
        self._moved_at = now  # when a waiting answer last went on
        self.is_gone = False
        self.deadline = now + min(_CHECK_S, self.edge.limits.receipt_deadline_s / 4)

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

    def data_received(self, data: bytes) -> None:
        """Some bytes from the client."""
        if self._shut:
            return
        self._heard_at = self.edge.now
        data = self._buffer + data if self._buffer else bytes(data)
        size = len(data)
        outflow = self.outflow
        outflow.corked = True
        try:
            if not self._preface:
                data = self._read_preface(data)
            if self._preface:
                data = self.intake.read(data)
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
        if self.intake.goodbye:
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
        self.intake.end_all()

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
        now = self._began = self._moved_at = self._heard_at = self.edge.now  # nothing was read, so nothing could arrive
        self.intake.begin_again(now)
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self.outflow.pump()

    # -- from the clock and the listener

    @property
    def is_busy(self) -> bool:
        """Whether a call is being received or answered."""
        return self.intake.is_busy

    @property
    def closes(self) -> bool:
        """Whether the client was told to go elsewhere."""
        return self.intake.closes

    def close_after_answer(self) -> None:
        """Begin the graceful end."""
        if not self._shut and self._preface:
            self.intake.announce_end()

    def expire(self, now: float) -> None:
        """Look at the connection: what takes too long is ended."""
        limits = self.edge.limits
        self.deadline = now + min(_CHECK_S, limits.receipt_deadline_s / 4, limits.write_deadline_s / 4)
        if self._shut:
            if now >= self._ends_at:
                self._close_now()
            return
        self.intake.patience.refill(now)
        if now >= self._taken_at:
            self._check_taking(now)
        if not self.outflow.paused:
            self._check_standstill(now)
            self._check_receipt(now - limits.receipt_deadline_s)
        if self.intake.goodbye:
            self._leave_if_done()
        elif self.is_busy:
            self._check_alive(now)
        elif now - self.intake.active_at >= limits.idle_s:
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
        intake = self.intake
        block = intake.block
        partial = (not intake.settled or self._buffer) and self._began <= before
        if partial or (block is not None and block.began <= before):
            self._end(Code.ENHANCE_YOUR_CALM, "a frame did not arrive in time")
            return
        intake.refuse_late(before)

    def _check_alive(self, now: float) -> None:
        """Ask a client with calls under way that is silent; drop it when it does not answer."""
        if self._heard_at >= self._asked_at or self._asked_at == math.inf:
            self._asked_at = math.inf
            if now - self._heard_at >= self.limits.keepalive_s:
                self._asked_at = now
                self.outflow.send(frame(PING, 0, 0, ALIVE_PING))
        elif now - self._asked_at >= self.limits.keepalive_timeout_s:
            self.abort()

    # -- the beginning and the end

    def _read_preface(self, data: bytes) -> bytes:
        if data.startswith(PREFACE):
            self._preface = True
            self.outflow.send(_hello(self.limits))
            if self.edge.draining:
                self.close_after_answer()
            return data[len(PREFACE) :]
        if PREFACE.startswith(data):
            return data
        if data.startswith(_LOOKS_LIKE_HTTP1):
            self.outflow.send(OLD_HTTP)
            self._shut_down()
            return b""
        self.outflow.send(_hello(self.limits))
        raise ConnectionFault(Code.PROTOCOL_ERROR, "this is not HTTP/2")

    def _leave_if_done(self) -> None:
        if self.intake.goodbye > 1 and not self.is_busy and not self._shut and not self.outflow.out:
            self._shut_down()
            self.outflow.flush()

    def _end(self, code: Code, text: str) -> None:
        """Say why and close."""
        if self._shut:
            return
        said = code == Code.NO_ERROR and (self.intake.goodbye > 1 or not self._preface)  # it knows, or never began
        if not said:
            self.outflow.send(goaway(self.intake.last, code, text))
        self._shut_down()
        if not self.outflow.corked:
            self.outflow.flush()

    def _shut_down(self) -> None:
        """Read nothing more; close once what was said is out, a little later so that no reset overtakes it."""
        self._shut = True
        self._buffer = b""
        self.intake.end_all()
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


def _hello(limits: Http2Limits) -> bytes:
    """Our settings, and what the connection's window is widened by."""
    values = settings({
        SETTING_STREAMS: limits.max_streams,
        SETTING_WINDOW: limits.stream_window_bytes,
        SETTING_FRAME_SIZE: limits.max_frame_bytes,
        SETTING_LIST_SIZE: limits.max_metadata_bytes,
    })  # fmt: skip
    more = limits.connection_window_bytes - DEFAULT_WINDOW
    return values + (window_update(0, more) if more > 0 else b"")
