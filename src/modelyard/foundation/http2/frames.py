"""HTTP/2 frames as bytes (RFC 9113 section 6): their names, what a server sends, and the two kinds of fault."""

from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD: Final = Struct(">HBBBI")
HEAD_SIZE: Final = 9
LARGEST_WINDOW: Final = 2**31 - 1
LARGEST_ID: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65535
SMALLEST_FRAME_LIMIT: Final = 16384
LARGEST_FRAME_LIMIT: Final = 2**24 - 1

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

SETTING_TABLE_SIZE: Final = 1
SETTING_PUSH: Final = 2
SETTING_STREAMS: Final = 3
SETTING_WINDOW: Final = 4
SETTING_FRAME_SIZE: Final = 5
SETTING_LIST_SIZE: Final = 6

_WORD: Final = Struct(">I")
_PAIR: Final = Struct(">II")
_SETTING: Final = Struct(">HI")
SETTINGS_ACK: Final = b"\0\0\0\x04\x01\0\0\0\0"


class Code(IntEnum):
    """Error codes (RFC 9113 section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):
    """The connection cannot go on (RFC 9113 section 5.4.1): GOAWAY with `code`, then close."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class StreamFault(Exception):
    """One stream cannot go on (RFC 9113 section 5.4.2): RST_STREAM with `code`."""

    def __init__(self, code: Code, sid: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.sid = sid
        self.text = text


def frame(kind: int, flags: int, sid: int, payload: bytes = b"") -> bytes:
    """One frame. `payload` has at most 2**24 - 1 bytes; the receiver may allow less."""
    size = len(payload)
    return FRAME_HEAD.pack(size >> 8, size & 0xFF, kind, flags, sid) + payload


def frame_head(size: int, kind: int, flags: int, sid: int) -> bytes:
    """The nine bytes before a payload of `size`."""
    return FRAME_HEAD.pack(size >> 8, size & 0xFF, kind, flags, sid)


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def reset(sid: int, code: Code) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, sid, _WORD.pack(code))


def window_update(sid: int, more: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, sid, _WORD.pack(more))


def goaway(last: int, code: Code, text: str = "") -> bytes:
    """A GOAWAY frame that names the last stream that was taken."""
    return frame(GOAWAY, 0, 0, _PAIR.pack(last, code) + text.encode())


def unpad(payload: bytes) -> bytes:
    """What a PADDED payload holds (RFC 9113 section 6.1).

    Raises:
        ConnectionFault: the padding is as long as the payload, or longer.
    """
    if not payload:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a padded frame has no pad length")
    if payload[0] >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "the padding is longer than the frame")
    return payload[1 : len(payload) - payload[0]]
