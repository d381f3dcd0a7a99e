"""The frames beside HEADERS and DATA, and how each has to look (RFC 9113 sections 6.3 to 6.10)."""

from collections.abc import Callable
from struct import Struct
from typing import Final, Protocol

from modelyard.foundation.http2.call import AnyCall
from modelyard.foundation.http2.frames import (
    ACK,
    CONTINUATION,
    GOAWAY,
    HAS_PRIORITY,
    LARGEST_FRAME_LIMIT,
    LARGEST_ID,
    LARGEST_WINDOW,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTING_FRAME_SIZE,
    SETTING_PUSH,
    SETTING_WINDOW,
    SETTINGS,
    SETTINGS_ACK,
    SMALLEST_FRAME_LIMIT,
    WINDOW_UPDATE,
    Code,
    ConnectionFault,
    StreamFault,
    frame,
    unpad,
)
from modelyard.foundation.http2.limits import Http2Limits
from modelyard.foundation.http2.outflow import Outflow
from modelyard.foundation.http2.patience import Patience
from modelyard.foundation.http2.receiving import Arriving

_SETTING: Final = Struct(">HI")
_WORD: Final = 4
_PING_SIZE: Final = 8
_GOAWAY_SIZE: Final = 8
_PRIORITY_SIZE: Final = 5


class Controlled(Protocol):
    """The connection, as these frames see it."""

    limits: Http2Limits
    patience: Patience
    outflow: Outflow
    calls: dict[int, AnyCall]
    arriving: dict[int, Arriving]
    last: int

    @property
    def closes(self) -> bool:
        """Whether the client was told to go elsewhere."""

    def name_last(self) -> None:
        """Name the last stream that is taken."""

    def end_call(self, sid: int) -> None:
        """Give up a stream."""


def read(connection: Controlled, kind: int, flags: int, sid: int, payload: bytes) -> None:
    """Act on one frame; kinds that nobody knows are ignored (RFC 9113 section 5.5).

    Raises:
        ConnectionFault: the connection cannot go on.
        StreamFault: the stream cannot go on.
    """
    if kind != RST_STREAM:
        connection.patience.control(connection.outflow.progress)
    reader = _READERS.get(kind)
    if reader is not None:
        reader(connection, flags, sid, payload)


def strip_headers(flags: int, sid: int, payload: bytes) -> bytes:
    """A HEADERS payload without its padding and priority (which nothing is made of)."""
    if flags & PADDED:
        payload = unpad(payload)
    if flags & HAS_PRIORITY:
        if len(payload) < _PRIORITY_SIZE:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
        if int.from_bytes(payload[:_WORD], "big") & LARGEST_ID == sid:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a stream depends on itself")
        payload = payload[_PRIORITY_SIZE:]
    return payload


def _on_priority(connection: Controlled, flags: int, sid: int, payload: bytes) -> None:
    del connection, flags
    if sid == 0:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "PRIORITY without a stream")
    if len(payload) != _PRIORITY_SIZE:
        raise StreamFault(Code.FRAME_SIZE_ERROR, sid, "PRIORITY has five bytes")
    if int.from_bytes(payload[:_WORD], "big") & LARGEST_ID == sid:
        raise StreamFault(Code.PROTOCOL_ERROR, sid, "a stream depends on itself")


def _on_reset(connection: Controlled, flags: int, sid: int, payload: bytes) -> None:
    del flags
    if sid == 0 or sid > connection.last or not sid & 1:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "RST_STREAM for a stream that was never opened")
    if len(payload) != _WORD:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "RST_STREAM has four bytes")
    connection.patience.reset(connection.outflow.answered)
    connection.end_call(sid)


def _on_settings(connection: Controlled, flags: int, sid: int, payload: bytes) -> None:
    if sid != 0:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "SETTINGS belong to the connection")
    if len(payload) % _SETTING.size or (flags & ACK and payload):
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "SETTINGS have six bytes each, an acknowledgement none")
    if flags & ACK:
        return
    window = None
    for name, value in _SETTING.iter_unpack(payload):
        if name == SETTING_WINDOW:
            window = value
        _check_setting(connection, name, value)
    if window is not None:  # once, whatever a frame repeats: it goes over all calls
        connection.outflow.set_initial(window)
    connection.outflow.send(SETTINGS_ACK)


def _check_setting(connection: Controlled, name: int, value: int) -> None:
    if name == SETTING_WINDOW:
        if value > LARGEST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "the initial window is too large")
    elif name == SETTING_FRAME_SIZE:
        if not SMALLEST_FRAME_LIMIT <= value <= LARGEST_FRAME_LIMIT:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "the frame size is out of range")
        connection.outflow.frame_limit = min(value, connection.limits.max_frame_bytes)
    elif name == SETTING_PUSH and value > 1:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")


def _on_push(connection: Controlled, flags: int, sid: int, payload: bytes) -> None:
    del connection, flags, sid, payload
    raise ConnectionFault(Code.PROTOCOL_ERROR, "a client cannot push")


def _on_ping(connection: Controlled, flags: int, sid: int, payload: bytes) -> None:
    if sid != 0:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "PING belongs to the connection")
    if len(payload) != _PING_SIZE:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "PING has eight bytes")
    if not flags & ACK:
        connection.outflow.send(frame(PING, ACK, 0, payload))
    elif connection.closes:
        connection.name_last()


def _on_goaway(connection: Controlled, flags: int, sid: int, payload: bytes) -> None:
    del connection, flags
    if sid != 0:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "GOAWAY belongs to the connection")
    if len(payload) < _GOAWAY_SIZE:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "GOAWAY has eight bytes or more")


def _on_window_update(connection: Controlled, flags: int, sid: int, payload: bytes) -> None:
    del flags
    if len(payload) != _WORD:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes")
    more = int.from_bytes(payload, "big") & LARGEST_WINDOW
    if sid > connection.last or (sid and not sid & 1):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE for a stream that was never opened")
    if more == 0:
        if sid == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        raise StreamFault(Code.PROTOCOL_ERROR, sid, "WINDOW_UPDATE by nothing")
    if sid == 0:
        connection.outflow.widen(more)
        return
    call = connection.calls.get(sid)
    arriving = connection.arriving.get(sid)
    if call is not None:
        connection.outflow.widen_stream(call, more)
    elif arriving is not None:
        arriving.credit += more
        if connection.outflow.initial + arriving.credit > LARGEST_WINDOW:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, sid, "the stream's window is too large")


def _on_continuation(connection: Controlled, flags: int, sid: int, payload: bytes) -> None:
    del connection, flags, sid, payload
    raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION without a header block")


_READERS: Final[dict[int, Callable[[Controlled, int, int, bytes], None]]] = {
    PRIORITY: _on_priority,
    RST_STREAM: _on_reset,
    SETTINGS: _on_settings,
    PUSH_PROMISE: _on_push,
    PING: _on_ping,
    GOAWAY: _on_goaway,
    WINDOW_UPDATE: _on_window_update,
    CONTINUATION: _on_continuation,
}
