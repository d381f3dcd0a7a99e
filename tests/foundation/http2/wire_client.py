"""A client that sends any bytes as HTTP/2 and reads frames back: what a protocol test needs and a library forbids."""

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass

from modelyard.foundation.http2 import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIO = 1, 1, 4, 8, 0x20
CALL = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/t.T/Echo"),
    (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)


@dataclass
class Frame:
    kind: int
    flags: int
    sid: int
    payload: bytes

    @property
    def code(self) -> int:
        at = 4 if self.kind == GOAWAY else 0
        return int.from_bytes(self.payload[at : at + 4], "big")


def frame(kind: int, flags: int, sid: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", sid) + payload


def setting(name: int, value: int) -> bytes:
    return struct.pack(">HI", name, value)


def word(value: int) -> bytes:
    return struct.pack(">I", value)


def block(*more: tuple[bytes, bytes], without: tuple[bytes, ...] = ()) -> bytes:
    return hpack.encode([pair for pair in CALL if pair[0] not in without] + list(more))


def message(data: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + struct.pack(">I", len(data)) + data


def call(sid: int, data: bytes = b"hi", *more: tuple[bytes, bytes]) -> bytes:
    return frame(HEADERS, END_HEADERS, sid, block(*more)) + frame(DATA, END_STREAM, sid, message(data))


class WireClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.decoder = hpack.Decoder(max_list=1 << 16, max_fields=100)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def next(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        async with asyncio.timeout(5):
            try:
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
        return Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)

    async def until(self, kind: int, sid: int | None = None) -> Frame:
        while (got := await self.next()) is not None:
            if got.kind == kind and (sid is None or got.sid == sid) and not (kind == SETTINGS and got.flags & ACK):
                return got
        raise AssertionError(f"the connection ended before a frame of kind {kind}")

    async def answer(self, sid: int) -> tuple[dict[bytes, bytes], bytes]:
        """All fields and the DATA bytes of one stream, to its end."""
        fields: dict[bytes, bytes] = {}
        body = b""
        while (got := await self.next()) is not None:
            if got.kind == HEADERS:
                decoded = self.decoder.decode(got.payload)
                if got.sid == sid:
                    fields.update(decoded or [])
            if got.sid != sid:
                continue
            if got.kind == DATA:
                body += got.payload
            if got.kind == RST:
                raise AssertionError(f"the stream was reset with {got.code}")
            if got.flags & END_STREAM and got.kind in {DATA, HEADERS}:
                return fields, body
        raise AssertionError("the connection ended before the answer")

    async def fault(self) -> tuple[str, int]:
        """The first GOAWAY or RST_STREAM and its code; ("closed", 0) when the connection just ends."""
        while (got := await self.next()) is not None:
            if got.kind == GOAWAY:
                return "goaway", got.code
            if got.kind == RST:
                return "reset", got.code
        return "closed", 0

    async def is_alive(self, sid: int) -> bool:
        self.send(call(sid, b"still there"))
        _, body = await self.answer(sid)
        return body == message(b"still there")


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds, five seconds at most."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  (what is waited for has no event)
            await asyncio.sleep(0.01)
