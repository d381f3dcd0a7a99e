"""Which backend a request goes to where the weights alone do not say it: by a coin, by its caller, by a match.

Shares by turns (`split`) repeat with a short period, and so do many clients: one that goes round ten rows would show
the canary the same row for ever. So while revisions are compared, an independent coin decides, and what is compared is
what the coin decided: a request that chose its side itself, by a match or by asking for a version, goes there *aside*,
which is the same backend under another identity, and is counted nowhere.
"""

import hashlib
import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Final, Generic, TypeVar

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.routing import Match
from modelyard.inference.admission import Caller
from modelyard.inference.routing.backends import ServedBackend

T = TypeVar("T")
Fields = Mapping[bytes, bytes]
Identify = Callable[[bytes | None], Caller]
MOST_CALLERS: Final = 100_000
_TURN: Final = 1 << 64


class Coin(Generic[T]):
    """Choices with weights, each drawn independently of all others; those of weight 0 are never drawn."""

    __slots__ = ("_ends", "_items", "_random", "_total")

    def __init__(self, choices: Sequence[tuple[T, int]], *, draw: Callable[[], float] = random.random) -> None:
        chosen = [(item, weight) for item, weight in choices if weight > 0]
        self._items = [item for item, _ in chosen]
        self._ends = list(accumulate(weight for _, weight in chosen))
        self._total = self._ends[-1] if chosen else 0
        self._random = draw

    @property
    def items(self) -> Sequence[T]:
        """What can be drawn."""
        return self._items

    def pick(self) -> T | None:
        """The next choice; None when there is nothing to choose."""
        if len(self._items) <= 1:
            return self._items[0] if self._items else None
        return self._items[bisect_right(self._ends, self._random() * self._total)]


class Callers:
    """Backends by the value of a header: the same value goes to the same side, and stays on a side that grows.

    Newer revisions have the lower end of the range of the hash, so a canary's part only grows at its upper end. When a
    caller's requests are compared, the first one of each caller is: the others are no independent witnesses.
    """

    def __init__(self, header: str, choices: Sequence[tuple[ServedBackend, int]], *, salt: str) -> None:
        ordered = sorted(((b, w) for b, w in choices if w > 0), key=lambda each: -each[0].key.revision)
        self._header = header.lower().encode()
        self._backends = [backend for backend, _ in ordered]
        self._asides = [backend.aside() for backend in self._backends]
        self._ends = list(accumulate(weight for _, weight in ordered))
        self._salt = salt.encode()[:16]
        self._met: set[int] = set()

    def pick(self, fields: Fields) -> ServedBackend | None:
        """The side of this caller; None where the header is not sent, or nothing can be chosen."""
        value = fields.get(self._header)
        if value is None or not self._backends:
            return None
        digest = int.from_bytes(hashlib.blake2b(value, digest_size=8, key=self._salt).digest())
        side = bisect_right(self._ends, digest * self._ends[-1] / _TURN)
        side = min(side, len(self._backends) - 1)
        if digest in self._met or len(self._met) >= MOST_CALLERS:
            return self._asides[side]
        self._met.add(digest)
        return self._backends[side]


class Matches:
    """Backends by what a request says of itself; the first match that fits decides.

    `identify` gives the caller behind an Authorization header.
    """

    def __init__(self, matches: Sequence[Match], backends: Mapping[int, ServedBackend], identify: Identify) -> None:
        self._identify = identify
        self._rules = [
            (
                tuple((name.lower().encode(), value.encode()) for name, value in match.headers.items()),
                frozenset(match.keys),
                backends[match.revision].aside(),
            )
            for match in matches
            if match.revision in backends and (match.headers or match.keys)
        ]

    def pick(self, fields: Fields) -> ServedBackend | None:
        """Where the first match sends it; None when none fits."""
        for headers, keys, backend in self._rules:
            if all(fields.get(name) == value for name, value in headers) and (not keys or self._key(fields) in keys):
                return backend
        return None

    def _key(self, fields: Fields) -> str:
        try:
            return self._identify(fields.get(b"authorization")).key
        except ModelyardError:
            return ""
