"""Requests that came in one turn of the event loop, handed to the handler together.

Under load most of what a turn brings is alike: whole requests with heads that were seen before, on connections with
nothing else under way. For those a handler may name a `Route`; the connection then only puts the request on the turn's
list, and when the turn is over each route takes all of its own at once and answers them at once. So what does not
differ from request to request (who asks, whether it is let in, the answer's head, the log line) is paid once a turn.

Whatever is unusual about a connection meanwhile (a second request, a half close, a drain) makes it fall back: the
request gets a `Reply` of its own, and the answer goes through it.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Protocol, cast, runtime_checkable

from modelyard.foundation.http.edge import Edge
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.foundation.http.head import Head
from modelyard.foundation.http.wire import HeaderLines

MOST_TOGETHER: Final = 256
"""How many answers one call of `Turn.answer` may carry."""

_LOG: Final = logging.getLogger(__name__)
_LARGEST: Final = 16384
_KEPT_FRAMES: Final = 64
_KEPT_SIZES: Final = 1024
_TAILS: Final = [b"%02x" % number for number in range(MOST_TOGETHER)]


class Asking(Protocol):
    """A connection, as a turn sees it."""

    is_gone: bool
    asked: Head | None
    """The head of the request that is with a route, as long as nothing unusual happened."""

    def answer(self, data: bytes) -> None:
        """Send the whole answer to what `asked` stands for."""

    def single_out(self, head: Head, body: bytes) -> tuple[Request, Reply] | None:
        """The request by itself, to be answered through its reply; None when its client has gone."""

    def ask_alone(self, head: Head, body: bytes) -> None:
        """Give the request to the handler as if there were no turns."""

    def fail(self, reply: Reply) -> None:
        """Answer 500."""


Arrival = tuple[Asking, Head, bytes]
"""A whole request: where it came from, its head, its body."""


class Route(Protocol):
    """Takes the requests of one kind. Heads that differ only in what does not matter to it share one."""

    def take(self, arrivals: list[Arrival], turn: "Turn") -> None:
        """Take the requests that came in one turn, in their order; each is answered once, now or later."""


@runtime_checkable
class JointHandler(Protocol):
    """A handler that takes some requests together."""

    def route(self, head: Head) -> Route | None:
        """Where requests with this head go together; None: each by itself. Asked once for a head that is remembered."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Bodies that differ in the middle: `opening`, one of `middles`, `closing`."""

    opening: bytes
    middles: Sequence[bytes]
    closing: bytes


class Turn:
    """What came in the present turn of one listener."""

    __slots__ = ("_edge", "_frames", "_loop", "_number", "_prefix", "arrived", "began", "route")

    def __init__(self, edge: Edge, route: "Callable[[Head], Route | None] | None" = None) -> None:
        self.arrived: list[Arrival] = []
        self.began = 0.0
        """When the first of the turn's requests came (`time.perf_counter`)."""
        self.route = route or _no_route
        self._edge = edge
        self._loop = edge.loop
        self._number = 0
        self._prefix = b"x-request-id: " + os.urandom(6).hex().encode()
        self._frames: dict[bytes, dict[int, bytes]] = {}

    def begin(self) -> None:
        """The first request of a turn is there."""
        self.began = perf_counter()
        self._loop.call_soon(self._end)

    def add(self, arrival: Arrival) -> None:
        """One more request of this turn."""
        self.arrived.append(arrival)
        if len(self.arrived) == 1:
            self.begin()

    def _end(self) -> None:
        arrived, self.arrived = self.arrived, []
        self._edge.requests += len(arrived)
        route = arrived[0][1].route
        groups: dict[object, list[Arrival]] = {route: arrived}
        if len(arrived) > 1 and any(arrival[1].route is not route for arrival in arrived):
            groups = {}
            for arrival in arrived:
                groups.setdefault(arrival[1].route, []).append(arrival)
        for one, arrivals in groups.items():
            try:
                if one is None:
                    self.each(arrivals)
                else:
                    cast("Route", one).take(arrivals, self)
            except Exception:  # noqa: BLE001  (the request edge: whatever the route did not foresee is answered 500)
                _LOG.exception("%d requests failed together", len(arrivals))
                self._refuse(arrivals)

    def each(self, arrivals: Sequence[Arrival]) -> None:
        """Give each request to the handler by itself."""
        for connection, head, body in arrivals:
            connection.ask_alone(head, body)

    def answer(
        self, arrivals: Sequence[Arrival], answers: Answers, *, content_type: str, headers: HeaderLines, began: float
    ) -> int:
        """Answer 200 to all of `arrivals` (at most `MOST_TOGETHER`); how many were still there to get it.

        `began` is when the requests came; `headers` comes from `header_lines`.
        """
        edge = self._edge
        self._number += 1
        opening, closing = answers.opening, answers.closing
        start = edge.prefixes.of(200, content_type) + headers
        own = start + b"x-request-id: "
        start = b"%b%b%06x" % (start, self._prefix, self._number)
        frames = self._frames_of(opening)
        around = len(opening) + len(closing)
        sizes: list[int] = []
        for (connection, head, body), middle, tail in zip(arrivals, answers.middles, _TAILS, strict=False):
            size = len(middle)
            if connection.asked is not head or size > _LARGEST:
                self._answer_alone(
                    (connection, head, body), answers, middle, content_type=content_type, headers=headers
                )
                continue
            frame = frames.get(size)
            if frame is None:
                frame = b"\r\ncontent-length: %d\r\n\r\n%b" % (around + size, opening)
                if len(frames) < _KEPT_SIZES:
                    frames[size] = frame
            if head.request_id is None:
                data = b"".join((start, tail, frame, middle, closing))
            else:
                data = b"".join((own, head.request_id, frame, middle, closing))
            sizes.append(len(data))
            connection.answer(data)
        if sizes and edge.log_many is not None:
            head = arrivals[0][1]
            edge.log_many(head.method, head.path, 200, perf_counter() - began, sizes)
        return len(arrivals) - sum([arrival[0].is_gone for arrival in arrivals])

    def _answer_alone(
        self, arrival: Arrival, answers: Answers, middle: bytes, *, content_type: str, headers: HeaderLines
    ) -> None:
        connection, head, body = arrival
        pair = connection.single_out(head, body)
        if pair is not None:
            whole = b"".join((answers.opening, middle, answers.closing))
            pair[1].send(200, whole, content_type=content_type, headers=headers)

    def _frames_of(self, opening: bytes) -> dict[int, bytes]:
        """What stands between the request's id and the middle of the body, by the size of the middle."""
        frames = self._frames.get(opening)
        if frames is None:
            if len(self._frames) >= _KEPT_FRAMES:
                self._frames.clear()
            frames = self._frames[opening] = {}
        return frames

    def _refuse(self, arrivals: Sequence[Arrival]) -> None:
        for connection, head, body in arrivals:
            if connection.asked is head:
                pair = connection.single_out(head, body)
                if pair is not None:
                    connection.fail(pair[1])


def _no_route(head: Head) -> Route | None:
    del head
    return None
