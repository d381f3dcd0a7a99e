"""What is being received: the header block and the messages that are not whole yet, and streams that are closed."""

from typing import Final

from modelyard.foundation.http2.frames import Code, ConnectionFault
from modelyard.foundation.http2.head import CallHead
from modelyard.foundation.http2.limits import Http2Limits
from modelyard.foundation.http2.patience import Patience

PREFIX_SIZE: Final = 5
"""What gRPC puts before each message: a flag and the size."""
_RESET: Final = 1024
_GAPS: Final = 64


class Block:
    """A header block that CONTINUATION frames go on with."""

    __slots__ = ("began", "count", "flags", "parts", "sid", "size")

    def __init__(self, sid: int, flags: int, first: bytes, began: float) -> None:
        self.sid = sid
        self.flags = flags
        self.parts = [first]
        self.size = len(first)
        self.count = 0
        self.began = began

    def add(self, payload: bytes, limits: Http2Limits) -> None:
        """A CONTINUATION frame came.

        Raises:
            ConnectionFault: the block is too long.
        """
        self.parts.append(payload)
        self.size += len(payload)
        self.count += 1
        self.check(limits)

    def check(self, limits: Http2Limits) -> None:
        """Raise `ConnectionFault` when the block is too long (CVE-2024-27316)."""
        if self.size > limits.max_header_block_bytes or self.count > limits.max_continuations:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header block is too long")


class Arriving:
    """A call whose message is not whole.

    `window` more bytes may come before we give more; `reserved` of the listener's memory is taken for the body.
    """

    __slots__ = ("began", "body", "credit", "head", "reserved", "window")

    def __init__(self, head: CallHead, window: int, began: float) -> None:
        self.head = head
        self.body = bytearray()  # one buffer: many small frames must not cost more than they bring
        self.window = window
        self.credit = 0
        self.reserved = 0
        self.began = began

    def declared(self) -> int:
        """Size of the message as its prefix says; 0 while the prefix is not whole."""
        return int.from_bytes(self.body[1:PREFIX_SIZE], "big") if len(self.body) >= PREFIX_SIZE else 0


class Closed:
    """Which streams we reset (what is still under way for them is dropped), and which the client skipped."""

    __slots__ = ("_gaps", "_reset")

    def __init__(self) -> None:
        self._reset: dict[int, None] = {}
        self._gaps: list[tuple[int, int]] = []

    def add_reset(self, sid: int) -> None:
        """We reset this stream."""
        if len(self._reset) >= _RESET:
            del self._reset[next(iter(self._reset))]
        self._reset[sid] = None

    def was_reset(self, sid: int) -> bool:
        """Whether we reset this stream, not too long ago."""
        return sid in self._reset

    def skip(self, low: int, high: int) -> None:
        """The streams between these numbers were never opened, and are closed by that."""
        self._gaps = [*self._gaps[-_GAPS:], (low, high)]

    def judge_headers(self, sid: int, patience: Patience) -> None:
        """A header block came on a stream that is not open.

        Raises:
            ConnectionFault: it was not we who closed it.
        """
        if sid in self._reset:
            patience.control()
        elif any(low < sid < high for low, high in self._gaps):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a stream's number is lower than one before")
        else:
            raise ConnectionFault(Code.STREAM_CLOSED, "the stream is closed")
