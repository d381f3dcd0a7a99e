"""Read the Huffman code of HPACK (RFC 7541 section 5.2 and appendix B), a byte at a time.

The code is canonical, so the lengths alone give it. The rows of the machine are made as they are first needed.
"""

from typing import Final

_EOS: Final = 256
_LENGTHS: Final = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b0806060605050506"
    "06060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f05060506050606"
    "060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617"
    "1617171816151416161717151716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a1819"
    "13151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)
Row = list[tuple[int, bytes]]
"""For each byte: the node after it (-1 when it cannot stand here) and the symbols that ended in it."""


class HuffmanError(ValueError):
    """The bytes are no valid Huffman string."""


def _tree() -> list[list[int]]:
    """Nodes as [child of 0, child of 1]; a child below zero is the symbol -1 - child."""
    nodes = [[0, 0]]
    code, length = 0, 0
    for symbol in sorted(range(_EOS + 1), key=lambda each: (_LENGTHS[each], each)):
        code <<= _LENGTHS[symbol] - length
        length = _LENGTHS[symbol]
        at = 0
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if not nodes[at][bit]:
                nodes.append([0, 0])
                nodes[at][bit] = len(nodes) - 1
            at = nodes[at][bit]
        nodes[at][code & 1] = -1 - symbol
        code += 1
    return nodes


_NODES: Final = _tree()
_rows: Final[list[Row | None]] = [None] * len(_NODES)


def _make_row(start: int) -> Row:
    return [_walk(start, byte) for byte in range(256)]


def _walk(at: int, byte: int) -> tuple[int, bytes]:
    symbols = bytearray()
    for shift in range(7, -1, -1):
        at = _NODES[at][byte >> shift & 1]
        if at == -1 - _EOS:
            return -1, b""
        if at < 0:
            symbols.append(-1 - at)
            at = 0
    return at, bytes(symbols)


def _ends() -> frozenset[int]:
    """Where a string may end: at most seven ones into the next symbol (EOS is all ones)."""
    found, at = {0}, 0
    for _ in range(7):
        at = _NODES[at][1]
        found.add(at)
    return frozenset(found)


_ENDS: Final = _ends()


def decode(data: bytes) -> bytes:
    """The plain string; at most 8/5 of the size of `data`.

    Raises:
        HuffmanError: EOS stands in the string, or what pads it is longer than seven bits or not all ones.
    """
    at = 0
    parts = []
    for byte in data:
        row = _rows[at]
        if row is None:
            row = _rows[at] = _make_row(at)
        at, symbols = row[byte]
        if at < 0:
            raise HuffmanError("the end symbol stands in a string")
        parts.append(symbols)
    if at not in _ENDS:
        raise HuffmanError("a string is padded wrongly")
    return b"".join(parts)
