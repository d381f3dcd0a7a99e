"""One answer from elsewhere, as it comes in: head first, then parts, never more of them in memory than is allowed."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Final, Protocol

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import UpstreamFailed

HIGH: Final = 256 << 10
LOW: Final = 64 << 10


class Source(Protocol):
    """The connection, as an answer sees it."""

    def hold(self) -> None:
        """Read no more for now."""

    def go_on(self) -> None:
        """Read again."""


class Answer:
    """`status` and `headers` (lower case, repeated ones joined by commas) are there; the body is read once."""

    def __init__(self, status: int, headers: Mapping[bytes, bytes], source: Source) -> None:
        self.status = status
        self.headers = headers
        self._source = source
        self._parts: deque[bytes] = deque()
        self._waiting = 0
        self._error: ModelyardError | None = None
        self._more: asyncio.Future[None] | None = None
        self._held = False
        self.is_complete = False

    @property
    def content_type(self) -> str:
        """Its Content-Type, without parameters and in lower case."""
        return self.headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")

    async def parts(self) -> AsyncIterator[bytes]:
        """The body's parts as they arrive.

        Raises:
            ModelyardError: the answer ended before it was complete.
        """
        while True:
            while self._parts:
                part = self._parts.popleft()
                self._waiting -= len(part)
                if self._held and self._waiting <= LOW:
                    self._held = False
                    self._source.go_on()
                yield part
            if self._error is not None:
                raise self._error
            if self.is_complete:
                return
            self._more = asyncio.get_running_loop().create_future()
            await self._more

    async def read(self, most: int) -> bytes:
        """The whole body.

        Raises:
            UpstreamFailed: it is larger than `most` bytes, or did not arrive whole.
        """
        body = bytearray()
        async for part in self.parts():
            body += part
            if len(body) > most:
                raise too_large(most)
        return bytes(body)

    def add(self, part: bytes) -> None:
        """Some of the body (called by the connection)."""
        self._parts.append(part)
        self._waiting += len(part)
        if self._waiting > HIGH and not self._held:
            self._held = True
            self._source.hold()
        self._wake()

    def end(self, error: ModelyardError | None = None) -> None:
        """The body is complete, or never will be (called by the connection)."""
        if error is None:
            self.is_complete = True
        elif not self.is_complete:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        more, self._more = self._more, None
        if more is not None and not more.done():
            more.set_result(None)


def too_large(most: int) -> UpstreamFailed:
    """What is said of an answer beyond `most` bytes."""
    return UpstreamFailed(
        f"the upstream's answer is larger than {most} bytes", hint="the setting upstreams.max_answer_bytes bounds it"
    )
