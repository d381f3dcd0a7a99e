"""A call that takes or gives more than one message: messages come as they are whole, and leave as the client lets us.

Both directions are held back where one side is slow: `hold` stops the client's messages (it gets no more window for
this stream), and `backlog` says how much of ours waits for the client's window.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from modelyard.foundation.http2.answers import OK_BLOCK, failure_block, failure_trailers, ok_block, only_trailers
from modelyard.foundation.http2.call import AnyCall
from modelyard.foundation.http2.head import CallHead
from modelyard.foundation.http2.hpack import Field


class StreamLink(Protocol):
    """The sending side of the connection, as a streaming call sees it."""

    peer: str

    def send_message(self, call: "StreamCall", message: bytes) -> None:
        """Send one message, after the headers if it is the first."""

    def finish(self, call: "StreamCall", block: bytes) -> None:
        """Send what waits, then the trailers in `block`."""


class Inlet(Protocol):
    """The receiving side of one streaming call."""

    def hold(self) -> None:
        """Deliver nothing more for now."""

    def go_on(self) -> None:
        """Deliver again."""


class Waiting:
    """Messages of one call that wait for window: `data` is being sent from `at`, `more` follows, then `block`."""

    __slots__ = ("at", "block", "call", "data", "more")

    def __init__(self, call: AnyCall, data: bytes, block: bytes | None) -> None:
        self.call = call
        self.data = data
        self.block = block
        self.at = 0
        self.more: deque[bytes] | None = None


class StreamCall(AnyCall):
    """A call with streams. `listen` to it; `send` any number of messages; end it with `finish` or `fail`.

    All callbacks run on the loop. None is called after the end of the call; `on_cancel` tells when the client gave up.
    """

    __slots__ = ("_inlet", "_link", "backlog", "begun", "on_end", "on_message", "on_room", "waiting")

    def __init__(self, link: StreamLink, head: CallHead, sid: int) -> None:
        super().__init__(head, sid, 0)
        self._link = link
        self._inlet: Inlet | None = None
        self.on_message: Callable[[bytes], None] = _ignore
        self.on_end: Callable[[], None] = _nothing
        self.on_room: Callable[[], None] | None = None
        self.waiting: Waiting | None = None
        self.backlog = 0
        """Bytes that were sent here and wait for the client's window."""
        self.begun = False  # the headers are out

    @property
    def peer(self) -> str:
        """The client's address."""
        return self._link.peer

    def listen(
        self,
        message: Callable[[bytes], None],
        end: Callable[[], None],
        *,
        room: Callable[[], None] | None = None,
    ) -> None:
        """Take the client's messages with `message`, its half close with `end`; `room`: all that was sent has left."""
        self.on_message, self.on_end, self.on_room = message, end, room

    def attach(self, inlet: Inlet) -> None:
        """Say where `hold` and `go_on` go. For the connection only."""
        self._inlet = inlet

    def hold(self) -> None:
        """Deliver no message for now; the client may send what its window still allows, and that waits unread."""
        if self._inlet is not None:
            self._inlet.hold()

    def go_on(self) -> None:
        """Deliver messages again, at once if some are there."""
        if self._inlet is not None and not (self.cancelled or self.is_answered):
            self._inlet.go_on()

    def send(self, message: bytes) -> None:
        """Send one message. What the client gives no window for waits here: look at `backlog`."""
        if self.is_answered:
            raise RuntimeError("the call has ended")
        if not self.cancelled:
            self._link.send_message(self, message)

    def finish(self, trailing: Iterable[Field] = ()) -> None:
        """End the call well, with `trailing` metadata.

        Raises:
            RuntimeError: it has ended before.
            ValueError: `trailing` holds what gRPC does not allow.
        """
        block = ok_block(trailing) if trailing else OK_BLOCK
        if self._take():
            self._link.finish(self, block if self.begun else only_trailers(block))

    def fail(self, status: int, text: str, details: Iterable[Field] = ()) -> None:
        """End the call with a gRPC `status`, after the messages that were sent.

        Raises:
            RuntimeError: it has ended before.
            ValueError: `details` holds what gRPC does not allow.
        """
        make = failure_trailers if self.begun else failure_block
        block = make(status, text, details)
        if self._take():
            self._link.finish(self, block)

    def break_off(self, status: int, text: str) -> None:
        """End the call for the connection's own reasons; the handler is told as of a cancellation."""
        watchers = self._watchers
        self.fail(status, text)
        self._tell(watchers)


def _ignore(message: bytes) -> None:
    del message


def _nothing() -> None:
    pass
