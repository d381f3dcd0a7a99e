"""Cursor paging: a page names where the next one starts, so that inserts and deletes between two pages do no harm."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from modelyard.domain.errors.platform import InvalidRequest

T = TypeVar("T")
DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 1000
_MAX_CURSOR: Final = 1024

Position = tuple[str | int | float | None, ...]
"""The sort values of the last row of a page."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items, and the cursor of what follows (None at the end)."""

    items: tuple[T, ...]
    next_cursor: str | None = None

    def document(self, show: Callable[[T], Any]) -> dict[str, Any]:
        """The answer's body: `{"items": [...], "next_cursor": ...}`."""
        return {"items": [show(item) for item in self.items], "next_cursor": self.next_cursor}


def cut(rows: Sequence[T], *, limit: int, position: Callable[[T], Position]) -> Page[T]:
    """A page of `limit` items out of `rows`, which were read with one more than `limit`."""
    kept = tuple(rows[:limit])
    return Page(kept, write_cursor(position(kept[-1])) if len(rows) > limit else None)


def write_cursor(position: Position) -> str:
    """An opaque text for URLs."""
    return base64.urlsafe_b64encode(json.dumps(position, separators=(",", ":")).encode()).rstrip(b"=").decode()


def read_cursor(cursor: str, *, kinds: Sequence[type]) -> Position:
    """The position in `cursor`; its values are of `kinds`, or it is none of ours (`InvalidRequest`)."""
    if len(cursor) > _MAX_CURSOR:
        raise _not_ours()
    try:
        values = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise _not_ours() from error
    if not isinstance(values, list) or len(values) != len(kinds):
        raise _not_ours()
    if not all(type(value) is kind for value, kind in zip(values, kinds, strict=True)):
        raise _not_ours()
    return tuple(values)


def _not_ours() -> InvalidRequest:
    return InvalidRequest("the cursor is not one of this listing", hint="use `next_cursor` of the page before as it is")
