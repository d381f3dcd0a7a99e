"""Read header blocks, and write small ones, as HPACK has it (RFC 7541).

Reading is bounded: the table by what we announced, a string by its block, the list by size and by count; what is over
the list limits is still read (the table has to stay in step) but not kept. Writing uses no table, so that a block can
be encoded once and sent on every connection.
"""

from collections import deque
from typing import Final

from modelyard.foundation.http2 import huffman

Field = tuple[bytes, bytes]
STATIC: Final[tuple[Field, ...]] = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)
_ENTRY_OVERHEAD: Final = 32  # RFC 7541 section 4.1
_LARGEST_NUMBER: Final = 2**28
_INDEXED: Final = 0x80
_LITERAL_KEPT: Final = 0x40
_SIZE_UPDATE: Final = 0x20
TABLE_SIZE: Final = 4096
"""The size of the table that we announce, by not announcing any (RFC 9113 section 6.5.2)."""


class HpackError(ValueError):
    """A block that cannot be read; the connection is lost with it (RFC 9113 section 4.3)."""


class Decoder:
    """The receiving side of one connection. `changed` says whether the last block changed the table."""

    __slots__ = ("_entries", "_limit", "_size", "changed", "max_fields", "max_list")

    def __init__(self, *, max_list: int, max_fields: int) -> None:
        self._entries: deque[Field] = deque()
        self._size = 0
        self._limit = TABLE_SIZE
        self.changed = False
        self.max_list = max_list
        self.max_fields = max_fields

    def decode(self, block: bytes) -> list[Field] | None:
        """The fields of `block` in order; None when they are larger or more than the limits allow.

        Raises:
            HpackError: the block is not valid.
        """
        self.changed = False
        fields: list[Field] = []
        at, end, size, over = 0, len(block), 0, False
        while at < end:
            first = block[at]
            if first & _INDEXED:
                index, at = _number(block, at, 0x7F)
                field = self._entry(index)
            elif first & 0xE0 == _SIZE_UPDATE:
                at = self._resize(block, at, begins=not (fields or over))
                continue
            else:
                field, at = self._literal(block, at, first)
            size += len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD
            over = over or size > self.max_list or len(fields) >= self.max_fields
            if not over:
                fields.append(field)
        return None if over else fields

    def _literal(self, block: bytes, at: int, first: int) -> tuple[Field, int]:
        kept = first & _LITERAL_KEPT
        index, at = _number(block, at, 0x3F if kept else 0x0F)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        if kept:
            self.changed = True
            self._size += len(name) + len(value) + _ENTRY_OVERHEAD
            self._entries.appendleft((name, value))
            self._evict()
        return (name, value), at

    def _resize(self, block: bytes, at: int, *, begins: bool) -> int:
        limit, at = _number(block, at, 0x1F)
        if not begins or limit > TABLE_SIZE:
            raise HpackError("a table size update is out of place or too large")
        self._limit = limit
        self.changed = True
        self._evict()
        return at

    def _evict(self) -> None:
        entries = self._entries
        while self._size > self._limit:
            name, value = entries.pop()
            self._size -= len(name) + len(value) + _ENTRY_OVERHEAD

    def _entry(self, index: int) -> Field:
        known = len(STATIC)
        if 0 < index <= known:
            return STATIC[index - 1]
        if known < index <= known + len(self._entries):
            return self._entries[index - known - 1]
        raise HpackError("a field names an entry that is not there")


def _number(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """An integer (RFC 7541 section 5.1) and where it ends."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    shift = 0
    while True:
        if at >= len(block):
            raise HpackError("an integer is cut short")
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if value > _LARGEST_NUMBER or shift > 28:  # noqa: PLR2004  (more octets than any sane number needs)
            raise HpackError("an integer is too large")
        if byte < 0x80:  # noqa: PLR2004  (the last octet)
            return value, at
        shift += 7


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """A string literal (RFC 7541 section 5.2) and where it ends."""
    if at >= len(block):
        raise HpackError("a string is missing")
    coded = block[at] & 0x80
    size, at = _number(block, at, 0x7F)
    after = at + size
    if after > len(block):
        raise HpackError("a string is longer than its block")
    text = block[at:after]
    if coded:
        try:
            text = huffman.decode(text)
        except huffman.HuffmanError as error:
            raise HpackError(str(error)) from error
    return text, after


def _write_number(value: int, mask: int, first: int) -> bytes:
    if value < mask:
        return bytes([first | value])
    out = bytearray([first | mask])
    value -= mask
    while value >= 0x80:  # noqa: PLR2004  (seven bits an octet)
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(fields: tuple[Field, ...] | list[Field]) -> bytes:
    """A block of literals that touches no table, readable on any connection."""
    out: list[bytes] = []
    for name, value in fields:
        out += (b"\0", _write_number(len(name), 0x7F, 0), name, _write_number(len(value), 0x7F, 0), value)
    return b"".join(out)
