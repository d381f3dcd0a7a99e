"""What a commit says besides its offset, written into its metadata: short, for brokers take 4,096 bytes of it.

`1;done;open`: ranges that are done behind the offset, and how often what is open was delivered; both count from the
offset, in base 36. `1;3-9,c;0:2` is: 3 to 9 and 12 are done, the first was delivered twice.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

_VERSION: Final = "1"
_MOST: Final = 3_900
_FURTHEST: Final = 1_000_000
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Notes:
    """Everything before `at` is done, of the rest `done`; `open` was delivered so often."""

    at: int
    done: frozenset[int] = frozenset()
    open: Mapping[int, int] = field(default_factory=dict)


def write_notes(notes: Notes) -> str:
    """The metadata of a commit. What has no place is left out, from the end: it comes again, or counts anew."""
    room = _MOST
    kept: list[list[str]] = []
    counts = (f"{_short(offset - notes.at)}:{_short(times)}" for offset, times in sorted(notes.open.items()))
    for parts in (_ranges(notes), counts):
        taken: list[str] = []
        for part in parts:
            room -= len(part) + 1
            if room < 0:
                break
            taken.append(part)
        kept.append(taken)
    return ";".join([_VERSION, *(",".join(taken) for taken in kept)])


def read_notes(at: int, text: str | None) -> Notes:
    """What `write_notes` wrote for the offset `at`; nothing where somebody else wrote it, or no one."""
    try:
        version, ranges, delivered = (text or "").split(";")
        if version != _VERSION:
            return Notes(at)
        done = frozenset(at + each for part in ranges.split(",") if part for each in _spread(part))
        counts = (part.split(":") for part in delivered.split(",") if part)
        return Notes(at, done, {at + int(offset, 36): int(times, 36) for offset, times in counts})
    except ValueError:
        return Notes(at)


def _ranges(notes: Notes) -> Iterator[str]:
    first = last = -1
    for each in sorted(offset - notes.at for offset in notes.done if offset >= notes.at):
        if each == last + 1 and first >= 0:
            last = each
            continue
        if first >= 0:
            yield _range(first, last)
        first = last = each
    if first >= 0:
        yield _range(first, last)


def _range(first: int, last: int) -> str:
    return _short(first) if first == last else f"{_short(first)}-{_short(last)}"


def _spread(text: str) -> range:
    first, _, last = text.partition("-")
    found = range(int(first, 36), int(last or first, 36) + 1)
    if len(found) > _FURTHEST:
        raise ValueError(text)
    return found


def _short(number: int) -> str:
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = _DIGITS[rest] + digits
    return digits or "0"
