"""A reply that nobody waits for: what is sent is kept, byte for byte, instead of written to a connection."""

from collections.abc import Callable
from dataclasses import dataclass

from modelyard.foundation.http.exchange import JSON, Reply
from modelyard.foundation.http.wire import NO_HEADERS, HeaderLines, HeaderPairs, header_lines


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer, whole."""

    status: int
    body: bytes
    content_type: str
    headers: HeaderLines


class KeptReply(Reply):
    """Tells `done` the answer, once. `leave` is what a client that goes does: whoever works for it lets go."""

    __slots__ = ("_answered", "_done", "_gone")

    def __init__(self, done: Callable[[KeptAnswer], None]) -> None:
        self._done = done
        self._answered = False
        self._gone = False
        self._on_disconnect = None

    @property
    def closed(self) -> bool:
        """Whether the answer is not wanted any more."""
        return self._gone

    @property
    def is_answered(self) -> bool:
        """Whether it was given."""
        return self._answered

    def on_disconnect(self, call: Callable[[], None]) -> None:
        """Call `call` once if the answer stops being wanted."""
        if self._gone:
            call()
            return
        self._on_disconnect = call

    def send(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: str = JSON,
        headers: HeaderLines | HeaderPairs = NO_HEADERS,
        close: bool = False,
    ) -> None:
        """Keep the answer; the second and all later ones are nobody's."""
        if self._answered:
            return
        self._answered = True
        lines = headers if isinstance(headers, bytes) else header_lines(headers)
        self._done(KeptAnswer(status, body, content_type, HeaderLines(lines)))

    def leave(self) -> None:
        """The answer is not wanted any more."""
        self._gone = True
        call, self._on_disconnect = self._on_disconnect, None
        if call is not None and not self._answered:
            call()
