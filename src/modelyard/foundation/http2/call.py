"""One call: what the handler gets of it, and how it answers. Here what all calls have, and the call of one message."""

import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from modelyard.foundation.http2.answers import OK_BLOCK, failure_block, ok_block
from modelyard.foundation.http2.head import CallHead
from modelyard.foundation.http2.hpack import Field

_LOG: Final = logging.getLogger(__name__)


class Link(Protocol):
    """The connection, as a call sees it."""

    peer: str

    def answer(self, call: "Call", message: bytes, block: bytes) -> None:
        """Send headers, `message` and the trailers in `block`."""

    def refuse(self, call: "Call", block: bytes) -> None:
        """Send `block` as trailers only."""


class AnyCall:
    """What all calls have. A call is answered once; when it was cancelled, answers are dropped."""

    __slots__ = ("_watchers", "cancelled", "credit", "head", "is_answered", "sid")

    def __init__(self, head: CallHead, sid: int, credit: int) -> None:
        self._watchers: list[Callable[[], None]] | None = None
        self.head = head
        self.sid = sid
        self.credit = credit  # what the client gave of its window for this stream beyond the initial one
        self.cancelled = False
        self.is_answered = False

    @property
    def path(self) -> bytes:
        """`/package.Service/Method`."""
        return self.head.path

    @property
    def authority(self) -> bytes:
        """The host that the client meant."""
        return self.head.authority

    @property
    def metadata(self) -> tuple[Field, ...]:
        """All header fields in order, names in lower case, binary ones still in base64."""
        return self.head.metadata

    @property
    def deadline_s(self) -> float | None:
        """Seconds that the client gave from when the call came (grpc-timeout); None when it gave none."""
        return self.head.timeout_s

    def get(self, name: bytes) -> bytes | None:
        """The last value of a metadata field, by its lower-case name."""
        return self.head.fields.get(name)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the loop when the client gives up before the answer; at once if it has."""
        if self.cancelled:
            callback()
        elif self._watchers is None:
            self._watchers = [callback]
        else:
            self._watchers.append(callback)

    def cancel(self) -> None:
        """The client gave the call up, or is gone. For the connection only."""
        self.cancelled = True
        watchers, self._watchers = self._watchers, None
        if not self.is_answered:
            self._tell(watchers)

    @staticmethod
    def _tell(watchers: "list[Callable[[], None]] | None") -> None:
        for watcher in watchers or ():
            try:
                watcher()
            except Exception:  # noqa: BLE001  (the request edge: one watcher must not cost the connection)
                _LOG.exception("a call's cancellation could not be told")

    def _take(self) -> bool:
        if self.is_answered:
            raise RuntimeError("a call is answered once")
        self.is_answered = True
        self._watchers = None
        return not self.cancelled


class Call(AnyCall):
    """A call whose one message is in. It is answered by `reply` or `fail`."""

    __slots__ = ("_link", "message")

    def __init__(self, link: Link, head: CallHead, sid: int, message: bytes, credit: int) -> None:
        # what AnyCall.__init__ does, without the price of a second call
        self._watchers = None
        self.head = head
        self.sid = sid
        self.credit = credit
        self.cancelled = False
        self.is_answered = False
        self._link = link
        self.message = message

    @property
    def peer(self) -> str:
        """The client's address."""
        return self._link.peer

    def reply(self, message: bytes, trailing: Iterable[Field] = ()) -> None:
        """Answer OK with `message`, then `trailing` metadata (names in lower case, binary values in base64).

        Raises:
            RuntimeError: it was answered before.
            ValueError: `trailing` holds what gRPC does not allow.
        """
        block = ok_block(trailing) if trailing else OK_BLOCK
        if self._take():
            self._link.answer(self, message, block)

    def reply_encoded(self, message: bytes, block: bytes) -> None:
        """Answer OK with `message` and the trailers in `block`, which `ok_block` made, or what begins with its result.

        Raises:
            RuntimeError: it was answered before.
        """
        if self._take():
            self._link.answer(self, message, block)

    def fail(self, status: int, text: str, details: Iterable[Field] = ()) -> None:
        """Answer with the gRPC `status` (1 to 16), a `text` for people, and `details` as trailing metadata.

        Raises:
            RuntimeError: it was answered before.
            ValueError: `details` holds what gRPC does not allow.
        """
        block = failure_block(status, text, details)
        if self._take():
            self._link.refuse(self, block)
