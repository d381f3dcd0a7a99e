"""The receiving side of one streaming call: frames in, whole messages out, window given as messages are taken."""

import logging
from typing import Final, Protocol

from modelyard.foundation.http.edge import Edge
from modelyard.foundation.http2.frames import Code, StreamFault
from modelyard.foundation.http2.messages import MessageRefused, next_message
from modelyard.foundation.http2.status import Status
from modelyard.foundation.http2.streaming import StreamCall

_LOG: Final = logging.getLogger(__name__)


class Giver(Protocol):
    """What an inflow needs of its connection."""

    edge: Edge

    def give_window(self, inflow: "Inflow") -> None:
        """Let the client send more on this stream, if it has used enough of what it had."""


class Inflow:
    """What came of a stream and was not taken yet. `window` more bytes may come before we give more.

    While it is `held`, nothing is delivered and no window is given, so what waits is bounded by the window.
    """

    __slots__ = ("_advancing", "_giver", "_received", "_reserved", "_told", "began", "body", "call", "ended", "held",
                 "late_at", "window")  # fmt: skip

    def __init__(self, giver: Giver, call: StreamCall, window: int) -> None:
        self.call = call
        self.window = window
        self.body = bytearray()
        self.held = False
        self.ended = False  # the client half-closed the stream
        self.began = giver.edge.now  # of the message in `body`
        timeout_s = call.deadline_s
        self.late_at = None if timeout_s is None else giver.edge.now + timeout_s
        self._giver = giver
        self._received = 0
        self._reserved = 0
        self._advancing = False
        self._told = False

    @property
    def is_partial(self) -> bool:
        """Whether the rest of a message is awaited."""
        return bool(self.body) and not self.held and not self.ended

    def take(self, payload: bytes, *, end: bool) -> None:
        """Some bytes came; with `end` they are the last.

        Raises:
            StreamFault: the client sent another size than it declared.
        """
        self._received += len(payload)
        if end:
            self.ended = True
            length = self.call.head.length
            if 0 <= length != self._received:
                raise StreamFault(Code.PROTOCOL_ERROR, self.call.sid, "the content length is not what came")
        if self.call.is_answered:
            return  # nobody reads it any more
        if not self.body:
            self.began = self._giver.edge.now
        self.body += payload
        self._advance()

    def hold(self) -> None:
        """Deliver nothing more for now."""
        self.held = True

    def go_on(self) -> None:
        """Deliver again."""
        if self.held:
            self.held = False
            if not self._advancing:
                self.began = self._giver.edge.now
                self._advance()

    def let_go(self) -> None:
        """Forget what came; the call is over."""
        self.body.clear()
        self._reserve()

    def _advance(self) -> None:
        """Deliver what is whole; also called by `hold` and `go_on` within a delivery, which must not nest."""
        self._advancing = True
        try:
            self._deliver()
        except MessageRefused as refused:
            self.call.break_off(refused.status, refused.text)
        except Exception:  # noqa: BLE001  (the request edge: what the handler did not foresee is logged, answered INTERNAL)
            _LOG.exception("a streaming call failed")
            if not self.call.is_answered:
                self.call.break_off(Status.INTERNAL, "the server failed; its log says why")
        finally:
            self._advancing = False
        if self.call.is_answered or self.call.cancelled:
            self.let_go()
            return
        if not self._reserve():
            self.call.break_off(Status.RESOURCE_EXHAUSTED, "the server is receiving as much as it can hold")
            self.let_go()
        elif not (self.held or self.ended):
            self._giver.give_window(self)

    def _deliver(self) -> None:
        call, limits = self.call, self._giver.edge.limits
        while self.body and not (self.held or call.is_answered or call.cancelled):
            message = next_message(self.body, call.head.encoding, limits)
            if message is None:
                break
            self.began = self._giver.edge.now
            self._giver.edge.requests += 1
            call.on_message(message)
        if not self.ended or self.held or self._told or call.is_answered or call.cancelled:
            return
        if self.body:
            raise MessageRefused(Status.INTERNAL, "the message is cut short")
        self._told = True
        call.on_end()

    def _reserve(self) -> bool:
        """Book what waits here in the listener's memory for bodies; False when there is not that much left."""
        edge, more = self._giver.edge, len(self.body) - self._reserved
        if more > 0 and not edge.reserve(more):
            return False
        if more < 0:
            edge.buffered += more
        self._reserved = len(self.body)
        return True
