"""A reader of UBJSON (draft 12) with the strongly typed containers that XGBoost writes.

Counts are compared with the bytes that are left before anything is made; nesting is bounded. Typed arrays become numpy
arrays, other arrays lists, so that a large model costs its size and little more.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from modelyard.domain.errors.uploads import WeightsFormat

DEPTH_LIMIT: Final = 32
_TYPED: Final[Mapping[bytes, np.dtype[Any]]] = {
    b"i": np.dtype("i1"),
    b"U": np.dtype("u1"),
    b"I": np.dtype(">i2"),
    b"l": np.dtype(">i4"),
    b"L": np.dtype(">i8"),
    b"d": np.dtype(">f4"),
    b"D": np.dtype(">f8"),
}
_NUMBERS: Final[Mapping[bytes, struct.Struct]] = {
    b"i": struct.Struct(">b"),
    b"U": struct.Struct(">B"),
    b"I": struct.Struct(">h"),
    b"l": struct.Struct(">i"),
    b"L": struct.Struct(">q"),
    b"d": struct.Struct(">f"),
    b"D": struct.Struct(">d"),
}
_COUNTS: Final = frozenset({b"i", b"U", b"I", b"l", b"L"})
_CONSTANTS: Final[Mapping[bytes, bool | None]] = {b"T": True, b"F": False, b"Z": None}


def loads(data: bytes) -> object:
    """The value in `data`, which must be all of it; `WeightsFormat` with the position otherwise."""
    reader = _Reader(data)
    value = reader.value(reader.marker(), depth=0)
    if reader.at != len(data):
        raise reader.broken("bytes follow the value")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def broken(self, text: str) -> WeightsFormat:
        return WeightsFormat(f"not valid UBJSON at byte {self.at}: {text}")

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._data) - self.at:
            raise self.broken(f"{count} bytes are announced, {len(self._data) - self.at} are left")
        self.at += count
        return self._data[self.at - count : self.at]

    def marker(self) -> bytes:
        found = self.take(1)
        while found == b"N":  # no-op
            found = self.take(1)
        return found

    def count(self) -> int:
        kind = self.marker()
        if kind not in _COUNTS:
            raise self.broken("a length must be a whole number")
        return int(self._number(kind))

    def value(self, kind: bytes, *, depth: int) -> object:
        if kind in _NUMBERS:
            return self._number(kind)
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        read: Callable[[int], object] | None = {
            b"S": self._string,
            b"C": self._char,
            b"[": self._array,
            b"{": self._object,
        }.get(kind)
        if read is None:
            raise self.broken(f"type {kind!r} is not known")
        if depth >= DEPTH_LIMIT:
            raise self.broken(f"nested deeper than {DEPTH_LIMIT}")
        return read(depth + 1)

    def _number(self, kind: bytes) -> int | float:
        layout = _NUMBERS[kind]
        found: int | float = layout.unpack(self.take(layout.size))[0]
        return found

    def _string(self, _depth: int = 0) -> str:
        raw = self.take(self.count())
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.broken("a string is not UTF-8") from error

    def _char(self, _depth: int) -> str:
        return self.take(1).decode("ascii", "replace")

    def _header(self) -> tuple[bytes | None, int | None]:
        """The optional type and count that a container may begin with."""
        kind = count = None
        if self._peek() == b"$":
            self.take(1)
            kind = self.take(1)
        if self._peek() == b"#":
            self.take(1)
            count = self.count()
            if not 0 <= count <= len(self._data) - self.at:
                raise self.broken(f"{count} items are announced, {len(self._data) - self.at} bytes are left")
        if kind is not None and (count is None or kind in _CONSTANTS or kind == b"N"):
            raise self.broken("a typed container needs a count and a type with a size")
        return kind, count

    def _peek(self) -> bytes:
        return self._data[self.at : self.at + 1]

    def _array(self, depth: int) -> object:
        kind, count = self._header()
        if kind is not None and kind in _TYPED:
            layout = _TYPED[kind]
            return np.frombuffer(self.take((count or 0) * layout.itemsize), layout)
        items: list[object] = []
        while self._more(len(items), count, b"]"):
            items.append(self.value(kind or self.marker(), depth=depth))
        return items

    def _object(self, depth: int) -> dict[str, object]:
        kind, count = self._header()
        items: dict[str, object] = {}
        while self._more(len(items), count, b"}"):
            key = self._string()
            if key in items:
                raise self.broken("a key stands twice in one object")
            items[key] = self.value(kind or self.marker(), depth=depth)
        return items

    def _more(self, have: int, count: int | None, end: bytes) -> bool:
        """Whether another item follows; takes the end marker of a container without a count."""
        if count is not None:
            return have < count
        while self._peek() == b"N":
            self.take(1)
        if self._peek() != end:
            return True
        self.take(1)
        return False
