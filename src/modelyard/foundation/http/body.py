"""Receive bodies: by length or by chunks, whole or as a stream that holds the client back.

A reader takes bytes and says what is left over once the body is complete. Chunks follow RFC 9112 section 7.1 to the
letter: hexadecimal size, bounded extensions, CRLF after the data, bounded trailers.
"""

import asyncio
import re
import zlib
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.edge import BodyTooLarge, UnsupportedEncoding
from modelyard.foundation.http.head import read_trailers
from modelyard.foundation.http.limits import MIB, EdgeLimits
from modelyard.foundation.http.refusal import Refused, bad_framing

_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_CHUNK_START: Final = re.compile(rb"[0-9A-Fa-f]{1,16}(?:[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?)?\r?")
_FREE_CHUNKS: Final = 10_000
_BYTES_PER_CHUNK: Final = 64
_STREAM_HIGH: Final = 256 * 1024
_STREAM_LOW: Final = 64 * 1024


class BodySink(Protocol):
    """Where the bytes of a body go."""

    def take(self, data: bytes) -> None:
        """Some of the body; never empty."""


class WholeBody:
    """The body in memory, for handlers that get it in one piece."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def take(self, data: bytes) -> None:
        """Keep `data`."""
        self._data += data

    @property
    def size(self) -> int:
        """Bytes kept."""
        return len(self._data)

    def collected(self) -> bytes:
        """All of it; our own copy is let go."""
        data = bytes(self._data)
        self._data = bytearray()
        return data


class BodyStream:
    """The body as it comes, for one reader. Reading has to stay ahead: beyond 256 KiB unread the client waits."""

    __slots__ = ("_changed", "_chunks", "_error", "_kept", "_over", "_waiter", "finished", "received")

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._chunks: deque[bytes] = deque()
        self._kept = 0
        self._over = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: ModelyardError | None = None
        self.finished = False
        """Whether the last byte has come in (it may still be unread)."""
        self.received = 0
        """Bytes that have come in."""

    @property
    def is_full(self) -> bool:
        """Whether the client has to wait until more is read."""
        return self._over

    def take(self, data: bytes) -> None:
        """Some of the body."""
        self._chunks.append(data)
        self._kept += len(data)
        self.received += len(data)
        if self._kept > _STREAM_HIGH and not self._over:
            self._over = True
            self._changed()
        self._wake()

    def finish(self) -> None:
        """The body is complete."""
        self.finished = True
        self._wake()

    def fail(self, error: ModelyardError) -> None:
        """The rest will not come: the reader gets `error`."""
        if not self.finished and self._error is None:
            self._error = error
            self._wake()

    async def read(self) -> bytes:
        """Some more of the body; empty at its end.

        Raises:
            ModelyardError: the body broke off, came too slowly or was not well formed.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.finished:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._chunks.popleft()
        self._kept -= len(data)
        if self._over and self._kept < _STREAM_LOW:
            self._over = False
            self._changed()
        return data

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class SizedBody:
    """A body of Content-Length bytes."""

    __slots__ = ("_left", "_sink")

    def __init__(self, length: int, sink: BodySink) -> None:
        self._left = length
        self._sink = sink

    def feed(self, data: bytes) -> bytes | None:
        """Take what belongs to the body; what is left over once it is complete, None before."""
        if len(data) < self._left:
            self._left -= len(data)
            self._sink.take(data)
            return None
        self._sink.take(data[: self._left])
        return data[self._left :]


class ChunkedBody:
    """A chunked body.

    Clients may cut it as they like, within reason: past ten thousand chunks the average has to reach 64 bytes, so that
    a million one-byte chunks cost the sender more than us.
    """

    __slots__ = ("_buffer", "_chunks", "_left", "_limits", "_max_bytes", "_sink", "_step", "_total")

    def __init__(self, limits: EdgeLimits, max_bytes: int, sink: BodySink) -> None:
        self._limits = limits
        self._max_bytes = max_bytes
        self._sink = sink
        self._buffer = b""
        self._left = 0
        self._total = 0
        self._chunks = 0
        self._step = self._read_size

    def feed(self, data: bytes) -> bytes | None:
        """Take what belongs to the body; what is left over once it is complete, None before.

        Raises:
            Refused: the chunks are not well formed, or more than the route allows.
        """
        data = self._buffer + data if self._buffer else data
        position = 0
        while True:
            advanced = self._step(data, position)
            if advanced is None:
                self._buffer = data[position:]
                return None
            position = advanced
            if self._step == self._ended:
                return data[position:]

    def _read_size(self, data: bytes, position: int) -> int | None:
        limit = self._limits.max_chunk_line_bytes
        match = _CHUNK_LINE.match(data, position)
        if match is None or match.end() - position > limit:
            rest = data[position : position + limit + 1]
            if len(rest) > limit or (rest and not _CHUNK_START.fullmatch(rest)):
                raise bad_framing("a chunk size line is not valid")
            return None
        self._left = int(match[1], 16)
        if self._left == 0:
            self._step = self._read_trailers
            return match.end()
        self._chunks += 1
        self._total += self._left
        if self._total > self._max_bytes:
            raise Refused(413, BodyTooLarge(f"the body may have {self._max_bytes} bytes"))
        if self._chunks > _FREE_CHUNKS + self._total // _BYTES_PER_CHUNK:
            raise bad_framing("the body is cut into too many tiny chunks")
        self._step = self._read_data
        return match.end()

    def _read_data(self, data: bytes, position: int) -> int | None:
        if position >= len(data):
            return None
        part = data[position : position + self._left]
        self._sink.take(part)
        self._left -= len(part)
        if self._left == 0:
            self._step = self._read_data_end
        return position + len(part)

    def _read_data_end(self, data: bytes, position: int) -> int | None:
        end = data[position : position + 2]
        if not b"\r\n".startswith(end):
            raise bad_framing("a chunk is not followed by CRLF")
        if len(end) < 2:  # noqa: PLR2004  (the length of CRLF)
            return None
        self._step = self._read_size
        return position + 2

    def _read_trailers(self, data: bytes, position: int) -> int | None:
        if data.startswith(b"\r\n", position):
            self._step = self._ended
            return position + 2
        end = data.find(b"\r\n\r\n", position)
        size = (end + 4 if end >= 0 else len(data)) - position
        if size > self._limits.max_trailer_bytes:
            raise bad_framing("the trailer section is too large")
        if end < 0:
            return None
        read_trailers(data[position : end + 2], self._limits)
        self._step = self._ended
        return end + 4

    def _ended(self, data: bytes, position: int) -> int | None:
        del data
        return position


BodyReader = SizedBody | ChunkedBody


def inflate(data: bytes, *, max_bytes: int, max_ratio: int) -> bytes:
    """The one gzip member in `data`, inflated to at most `max_bytes`.

    Raises:
        Refused: 413 when it would become larger or grows more than `max_ratio` times (beyond the first MiB); 400 when
            it is cut short, is no gzip, or something follows it.
    """
    bound = min(max_bytes, max(MIB, len(data) * max_ratio))
    machine = zlib.decompressobj(wbits=31)
    try:
        plain = machine.decompress(data, bound + 1)
    except zlib.error as error:
        raise Refused(400, UnsupportedEncoding("the body is not valid gzip")) from error
    if len(plain) > bound:
        raise Refused(413, BodyTooLarge(f"the body inflates to more than {bound} bytes"))
    if not machine.eof or machine.unused_data:
        raise Refused(400, UnsupportedEncoding("the body is not one whole gzip member"))
    return plain
