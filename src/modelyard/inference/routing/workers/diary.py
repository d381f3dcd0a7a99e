"""Which run a worker is in, kept where it survives the worker: 16 mapped bytes beside its socket.

When a worker dies, several runs may have been in its hands, of several model servers. Only the one that was under way
can be the cause; the others were waiting and have nothing to answer for.
"""

import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

_ENTRY: Final = struct.Struct("<QQ")


def diary_path(socket: str) -> Path:
    """Where the diary of the worker behind `socket` lies."""
    return Path(f"{socket}.d") / "now"


class Diary:
    """The worker's end."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, _ENTRY.size)
            self._cells = mmap.mmap(fd, _ENTRY.size)
        finally:
            os.close(fd)
        self.ended()

    def began(self, connection: int, number: int) -> None:
        """Run `number` of `connection` is under way."""
        _ENTRY.pack_into(self._cells, 0, connection, number)

    def ended(self) -> None:
        """None is."""
        _ENTRY.pack_into(self._cells, 0, 0, 0)


def last_entry(socket: str) -> tuple[int, int] | None:
    """(connection, run) that the worker behind `socket` is in or was in when it died; None when that is not known."""
    with suppress(OSError, struct.error):
        return _ENTRY.unpack(diary_path(socket).read_bytes())
    return None
