"""One unary call: what the handler gets, and how it answers."""

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


class UnaryHandler(Protocol):
    """What answers calls."""

    def handle(self, call: "Call") -> None:
        """Take `call`; called on the loop, once the whole message is in. Answer now or later, on the loop."""


class Call:
    """A call whose message is in. It is answered once, by `reply` or `fail`; when it was cancelled, that is dropped."""

    __slots__ = ("_link", "_watchers", "cancelled", "credit", "head", "is_answered", "message", "sid")

    def __init__(self, link: Link, head: CallHead, sid: int, message: bytes, credit: int) -> None:
        self._link = link
        self._watchers: list[Callable[[], None]] | None = None
        self.head = head
        self.sid = sid
        self.message = message
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

    @property
    def peer(self) -> str:
        """The client's address."""
        return self._link.peer

    def get(self, name: bytes) -> bytes | None:
        """The last value of a metadata field, by its lower-case name."""
        return self.head.fields.get(name)

    def reply(self, message: bytes, trailing: Iterable[Field] = ()) -> None:
        """Answer OK with `message`, then `trailing` metadata (names in lower case, binary values in base64).

        Raises:
            RuntimeError: it was answered before.
            ValueError: `trailing` holds what gRPC does not allow.
        """
        block = ok_block(trailing) if trailing else OK_BLOCK
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
        if self.is_answered or watchers is None:
            return
        for watcher in watchers:
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
