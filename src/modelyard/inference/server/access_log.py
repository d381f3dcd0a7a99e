"""The access log: one JSON line a request, gathered in memory and written a few times a second.

The path stands in it without its query, which may carry what nobody should keep.
"""

import asyncio
import os
from pathlib import Path
from time import time
from typing import Final

import msgspec

_EVERY_S: Final = 0.25
_MOST: Final = 4096


class AccessLog:
    """Appends to a file. `dropped` counts lines that could not be written (a full disk must not stop serving)."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._loop = asyncio.get_running_loop()
        self._lines: list[tuple[str, str, int, float, int]] = []
        self._armed = False
        self.dropped = 0

    def add(self, method: str, path: str, status: int, seconds: float, sent: int) -> None:
        """Take one answered request."""
        self._lines.append((method, path, status, seconds, sent))
        if not self._armed:
            self._armed = True
            self._loop.call_later(_EVERY_S, self._flush)
        elif len(self._lines) >= _MOST:
            self._write()

    def close(self) -> None:
        """Write what is there and let go of the file."""
        self._write()
        os.close(self._fd)

    def _flush(self) -> None:
        self._armed = False
        self._write()

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if not lines:
            return
        now = b"%.2f" % time()
        encode = msgspec.json.encode
        text = b"".join(
            [
                b'{"time":%b,"method":"%b","path":%b,"status":%d,"seconds":%.6f,"sent":%d}\n'
                % (now, method.encode(), encode(path), status, seconds, sent)
                for method, path, status, seconds, sent in lines
            ]
        )
        try:
            os.write(self._fd, text)
        except OSError:
            self.dropped += len(lines)
