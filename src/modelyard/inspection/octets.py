"""Reading hostile bytes: a file mapped into memory, and a cursor that never reads past the end.

A mapping keeps memory flat: what is skipped is never loaded. Every number that a file states is compared with what is
left before anything is done with it.
"""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from modelyard.domain.errors.uploads import WeightsFormat

Octets = bytes | mmap.mmap

_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")


@contextmanager
def mapped(path: Path) -> Iterator[Octets]:
    """The bytes of a file, mapped read-only; an empty file gives `b""`."""
    with path.open("rb") as stream:
        if path.stat().st_size == 0:
            yield b""
            return
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


class Cursor:
    """A position in `data`, in [start, end). Running out raises `WeightsFormat` naming `what`."""

    __slots__ = ("data", "end", "pos", "what")

    def __init__(self, data: Octets, what: str, *, start: int = 0, end: int | None = None) -> None:
        self.data = data
        self.what = what
        self.pos = start
        self.end = len(data) if end is None else end

    @property
    def left(self) -> int:
        """Bytes between here and the end."""
        return self.end - self.pos

    def skip(self, count: int) -> int:
        """Move on by `count` bytes and return where they begin."""
        if count < 0 or count > self.end - self.pos:
            raise self.ends_early(count)
        begin = self.pos
        self.pos += count
        return begin

    def take(self, count: int) -> bytes:
        """The next `count` bytes; the caller has bounded `count`."""
        begin = self.skip(count)
        return self.data[begin : begin + count]

    def u8(self) -> int:
        """An unsigned byte."""
        return self.data[self.skip(1)]

    def u16(self) -> int:
        """A little-endian unsigned 16-bit number."""
        return int(_U16.unpack(self.take(2))[0])

    def u32(self) -> int:
        """A little-endian unsigned 32-bit number."""
        return int(_U32.unpack(self.take(4))[0])

    def u64(self) -> int:
        """A little-endian unsigned 64-bit number."""
        return int(_U64.unpack(self.take(8))[0])

    def ends_early(self, wanted: int) -> WeightsFormat:
        """The error for a file that promises more than it holds."""
        return WeightsFormat(
            f"{self.what}: byte {self.pos} asks for {wanted} more, and {max(self.left, 0)} are there",
            hint="the file is cut short or damaged: write and upload it again",
        )
