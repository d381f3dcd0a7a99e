"""Delay for whoever tries wrong keys, and for nobody else.

Counted are pairs of source and key id; ids that do not exist share one pair a source, so trying many is no way round.
A right key from another source, or another key from the same one, is never delayed. Tries are forgotten after a quiet
time; the table is bounded and forgets the oldest first.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from modelyard.domain.errors.platform import RateLimited
from modelyard.foundation.clock import Clock
from modelyard.foundation.settings import KeySettings

_ENTRIES: Final = 10_000
_FIRST_DELAY_S: Final = 0.1
_FORGET_AFTER_S: Final = 600.0
_MAX_DOUBLINGS: Final = 32

Pair = tuple[str, str]


@dataclass(slots=True)
class _Tries:
    count: int = 0
    last: float = 0.0
    free_at: float = 0.0


class Throttle:
    """Counts wrong tries. Threads may call it at the same time."""

    def __init__(self, settings: KeySettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._tries: OrderedDict[Pair, _Tries] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, pair: Pair) -> None:
        """`RateLimited` while this pair has to wait; its key is not even looked at."""
        with self._lock:
            tries = self._tries.get(pair)
            wait = 0.0 if tries is None else tries.free_at - self._clock.monotonic()
        if wait > 0:
            raise RateLimited(
                "too many wrong keys from here", retry_after_s=wait, hint="wait, then check which key is sent"
            )

    def failed(self, pair: Pair) -> None:
        """Count a wrong try; after the free ones each doubles the delay."""
        now = self._clock.monotonic()
        with self._lock:
            tries = self._tries.pop(pair, None)
            if tries is None or now - tries.last > _FORGET_AFTER_S:
                tries = _Tries()
            tries.count += 1
            tries.last = now
            over = tries.count - self._settings.free_tries
            if over > 0:
                delay = _FIRST_DELAY_S * 2.0 ** min(over - 1, _MAX_DOUBLINGS)
                tries.free_at = now + min(delay, self._settings.longest_delay_s)
            self._tries[pair] = tries
            while len(self._tries) > _ENTRIES:
                self._tries.popitem(last=False)

    def succeeded(self, pair: Pair) -> None:
        """Forget what this pair did."""
        with self._lock:
            self._tries.pop(pair, None)
