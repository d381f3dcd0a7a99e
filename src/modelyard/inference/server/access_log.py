"""The access log: one JSON line a request, gathered in memory and written a few times a second.

The path stands in it without its query, which may carry what nobody should keep.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import Final

import msgspec

_EVERY_S: Final = 0.25
_MOST: Final = 4096
_LINE_END: Final = "}\n"
_KEPT_PATHS: Final = 256


class AccessLog:
    """Appends to a file. `dropped` counts lines that could not be written (a full disk must not stop serving)."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._loop = asyncio.get_running_loop()
        self._texts: list[str] = []
        self._lines = 0
        self._armed = False
        self._shown: dict[str, str] = {}
        self.dropped = 0

    def add(self, method: str, path: str, status: int, seconds: float, sent: int) -> None:
        """Take one answered request."""
        self.add_many(method, path, status, seconds, (sent,))

    def add_many(self, method: str, path: str, status: int, seconds: float, sent: Sequence[int]) -> None:
        """Take requests of one kind that were answered at the same moment, each with the bytes that it got."""
        shown = self._shown.get(path)
        if shown is None:
            if len(self._shown) >= _KEPT_PATHS:
                self._shown.clear()
            shown = self._shown[path] = msgspec.json.encode(path).decode()
        what = f'"method":"{method}","path":{shown},"status":{status}'
        start = f'{{"time":{time():.2f},{what},"seconds":{seconds:.6f},"sent":'
        self._texts.append(start + (_LINE_END + start).join(map(str, sent)) + _LINE_END)
        self._lines += len(sent)
        if not self._armed:
            self._armed = True
            self._loop.call_later(_EVERY_S, self._flush)
        elif self._lines >= _MOST:
            self._write()

    def close(self) -> None:
        """Write what is there and let go of the file."""
        self._write()
        os.close(self._fd)

    def _flush(self) -> None:
        self._armed = False
        self._write()

    def _write(self) -> None:
        texts, lines = self._texts, self._lines
        self._texts, self._lines = [], 0
        if not texts:
            return
        try:
            os.write(self._fd, "".join(texts).encode())
        except OSError:
            self.dropped += lines
