"""Write the head of an answer, from parts that are encoded once."""

import re
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, NewType

HeaderLines = NewType("HeaderLines", bytes)
"""Header lines ready to send, made by `header_lines`."""

HeaderPairs = Iterable[tuple[bytes, bytes]]

NO_HEADERS: Final = HeaderLines(b"")
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
BODILESS: Final = frozenset({204, 205, 304})
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
OURS: Final = frozenset(
    {b"connection", b"content-length", b"date", b"keep-alive", b"transfer-encoding", b"upgrade", b"x-request-id"}
)
"""Headers that the edge writes itself; `header_lines` refuses them."""


def header_lines(pairs: HeaderPairs) -> HeaderLines:
    """Encode `pairs` once, to be handed to many answers.

    Raises:
        ValueError: a name or value that would break the answer apart, or a header that is the edge's own.
    """
    lines = []
    for name, value in pairs:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError("a header holds characters that HTTP does not allow")
        if name.lower() in OURS:
            raise ValueError(f"{name.decode()} is written by the edge itself")
        lines.append(b"%b: %b\r\n" % (name, value))
    return HeaderLines(b"".join(lines))


class Prefixes:
    """Status line, Date and Content-Type of answers; encoded once a second for each pair in use."""

    __slots__ = ("_date", "_known")

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], bytes] = {}
        self._date = formatdate(usegmt=True).encode()

    def refresh(self) -> None:
        """Take the date of now (RFC 9110 section 6.6.1)."""
        date = formatdate(usegmt=True).encode()
        if date != self._date:
            self._date = date
            self._known.clear()

    def of(self, status: int, content_type: str) -> bytes:
        """Everything up to and including `Content-Type`; no such line when `content_type` is empty."""
        known = self._known.get((status, content_type))
        if known is not None:
            return known
        reason = _REASONS.get(status, "")
        prefix = b"HTTP/1.1 %d %b\r\ndate: %b\r\n" % (status, reason.encode(), self._date)
        if content_type:
            value = content_type.encode("latin-1")
            if not _VALUE.fullmatch(value):
                raise ValueError("the content type holds characters that HTTP does not allow")
            prefix += b"content-type: %b\r\n" % value
        if len(self._known) < 1024:  # noqa: PLR2004  (content types may come from outside: bounded)
            self._known[status, content_type] = prefix
        return prefix
