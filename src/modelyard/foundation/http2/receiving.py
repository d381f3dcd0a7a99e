"""What is being received: the header block and the messages that are not whole yet."""

from typing import Final

from modelyard.foundation.http2.head import CallHead

PREFIX_SIZE: Final = 5
"""What gRPC puts before each message: a flag and the size."""


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
