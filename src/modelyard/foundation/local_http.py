"""Ask over a Unix socket: HTTP/1.1, one request a connection. How the platform's own processes speak to each other."""

import asyncio
from pathlib import Path
from typing import Final

from modelyard.domain.errors.platform import Unavailable

PATIENCE_S: Final = 10.0
_LARGEST_ANSWER: Final = 256 << 20
_NO_CONTENT, _NOT_MODIFIED = 204, 304


async def ask(
    socket: Path, method: str, path: str, *, body: bytes = b"", patience_s: float = PATIENCE_S
) -> tuple[int, bytes]:
    """Status and body of one request over a Unix socket.

    Raises:
        OSError, TimeoutError, EOFError: nobody answers, or not in time, or not to the end.
        Unavailable: the answer is not HTTP.
    """
    async with asyncio.timeout(patience_s):
        reader, writer = await asyncio.open_unix_connection(str(socket))
        try:
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            if body or method == "POST":
                head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"\r\n" + body)
            return await _read_answer(reader)
        finally:
            writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    parts = status_line.split(" ")
    if len(parts) < 2 or not parts[1].isdigit():  # noqa: PLR2004  (version and status)
        raise Unavailable("the control plane does not speak HTTP")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    status = int(parts[1])
    if status in (_NO_CONTENT, _NOT_MODIFIED):
        return status, b""
    if "chunked" in headers.get("transfer-encoding", ""):
        return status, await _read_chunks(reader)
    if "content-length" in headers:
        return status, await reader.readexactly(int(headers["content-length"]))
    return status, await reader.read(_LARGEST_ANSWER)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return bytes(body)
