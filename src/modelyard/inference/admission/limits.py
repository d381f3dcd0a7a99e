"""Rates and bounds that hold for all processes of one machine together.

They live in one mapped file: a record a service with its token bucket and, for each process, what it has in flight. A
change is made under the file's lock. A process holds a byte-range lock on its own column for as long as it lives; what
stands in a column whose lock is free was left by a process that died, and is taken back.
"""

import fcntl
import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import clock_gettime
from typing import Final

_COLUMNS: Final = 64
RECORDS: Final = 1024
_HEAD: Final = 3  # hash of the name, tokens, time of the last change
_WIDTH: Final = _HEAD + _COLUMNS
_CLOCK: Final = 1  # CLOCK_MONOTONIC: one clock for all processes of a machine
_SHARE_S: Final = 0.0005  # a process takes the tokens of so long a time at once
_MOST_AT_ONCE: Final = 64.0
_KEPT_S: Final = 0.005


def machine_clock() -> float:
    """Seconds on a clock that all processes of this machine share and nobody sets."""
    return clock_gettime(_CLOCK)


class SharedLimits:
    """The mapped file, with room for so many `records`. Not for several threads at once."""

    def __init__(self, path: Path, *, records: int = RECORDS) -> None:
        self.path = path
        self._records = records
        self.in_use = records * _WIDTH  # the cell that says how many columns were ever taken
        size = (self.in_use + 1) * 8
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, size)
        self._map = mmap.mmap(self._fd, size)
        self.cells = memoryview(self._map).cast("d")
        self.column = self._take_column()

    def bucket(self, name: str, rate: float) -> "TokenBucket":
        """The token bucket of `name` with `rate` requests a second, and a burst of as many."""
        return TokenBucket(self, self.record(name), rate)

    def gate(self, name: str, bound: int) -> "Gate":
        """The bound of `name` on requests in flight."""
        return Gate(self, self.record(name), bound)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes a record meanwhile."""
        self.lock()
        try:
            yield
        finally:
            self.unlock()

    def lock(self) -> None:
        """Wait until nobody else changes a record."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Let others."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def reclaim(self) -> None:
        """Empty the columns of processes that have died. To be called under the lock."""
        for column in range(_COLUMNS):
            if column != self.column and self._try(column):
                self._clear(column)
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, column)

    def close(self) -> None:
        """Give the column back."""
        if self._fd >= 0:
            with self.locked():
                self._clear(self.column)
            os.close(self._fd)
            self._fd = -1

    def _take_column(self) -> int:
        with self.locked():
            for column in range(_COLUMNS):
                if self._try(column):
                    self._clear(column)
                    self.cells[self.in_use] = max(self.cells[self.in_use], column + 1)
                    return column
        raise OSError(f"more than {_COLUMNS} processes share the limits")

    def _try(self, column: int) -> bool:
        with suppress(OSError):
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, column)
            return True
        return False

    def _clear(self, column: int) -> None:
        for record in range(self._records):
            self.cells[record * _WIDTH + _HEAD + column] = 0.0

    def record(self, name: str) -> int:
        """Index of the first cell of the record of `name`; open addressing by hash."""
        wanted = hashlib.blake2b(name.encode(), digest_size=8).digest()
        first = int.from_bytes(wanted) % self._records
        with self.locked():
            for step in range(self._records):
                at = (first + step) % self._records * _WIDTH
                found = self._map[at * 8 : at * 8 + 8]
                if found == wanted:
                    return at
                if found == b"\0" * 8:
                    self._map[at * 8 : at * 8 + 8] = wanted
                    return at
        raise OSError("no room for more limits")


class TokenBucket:
    """Lets `rate` requests through a second, shared by all processes; an idle bucket holds one second's worth.

    A process takes the tokens of half a millisecond at once, and at least one, so that a high rate does not cost a lock
    a request. What it does not use within a few milliseconds is lost, never spent later: no more pass than the rate
    allows, and below 4000 requests a second every token is taken by itself.
    """

    __slots__ = ("_at", "_left", "_limits", "_share", "_size", "_until", "rate")

    def __init__(self, limits: SharedLimits, at: int, rate: float) -> None:
        self._limits = limits
        self._at = at
        self._size = max(1.0, rate)
        self._share = min(_MOST_AT_ONCE, max(1.0, rate * _SHARE_S // 1))
        self._left = 0.0
        self._until = 0.0
        self.rate = rate

    def take(self, now: float | None = None) -> float:
        """0 when the request may pass, else the seconds after which another try can succeed."""
        if self._left >= 1.0 and (machine_clock() if now is None else now) < self._until:
            self._left -= 1.0
            return 0.0
        limits = self._limits
        limits.lock()
        try:
            return self._take_share(limits.cells, now)
        finally:
            limits.unlock()

    def take_many(self, count: int) -> bool:
        """Take `count` tokens if there are so many; otherwise none, and each has to be asked for by itself."""
        now = machine_clock()
        if self._left >= count and now < self._until:
            self._left -= count
            return True
        kept = self._left if now < self._until else 0.0
        limits = self._limits
        limits.lock()
        try:
            if self._take_share(limits.cells, least=count - kept):
                self._left = kept
                return False
            self._left += kept - (count - 1)
            return True
        finally:
            limits.unlock()

    def give_back(self, count: int) -> None:
        """`count` of the tokens that `take_many` took just now were not needed."""
        self._left += count

    def _take_share(self, cells: "memoryview[float]", now: float | None = None, *, least: float = 1.0) -> float:
        # The time is read under the lock: one from before it may lie before the last change of another process.
        now = machine_clock() if now is None else now
        at = self._at
        before = cells[at + 2]
        tokens = self._size  # of a new bucket, or one of before the machine started
        if 0.0 < before <= now:
            tokens = min(tokens, cells[at + 1] + (now - before) * self.rate)
        cells[at + 2] = now
        if tokens < least:
            cells[at + 1] = tokens
            self._left = 0.0
            return (least - tokens) / self.rate
        share = min(max(self._share, least), tokens // 1)
        cells[at + 1] = tokens - share
        self._left = share - 1.0
        self._until = now + _KEPT_S
        return 0.0


class Gate:
    """Lets at most `bound` requests be in flight in all processes together."""

    __slots__ = ("_first", "_limits", "bound", "mine")

    def __init__(self, limits: SharedLimits, at: int, bound: int) -> None:
        self._limits = limits
        self._first = at + _HEAD
        self.mine = at + _HEAD + limits.column
        self.bound = bound

    def enter(self) -> bool:
        """Whether one more may be in flight; it is then counted until `leave`.

        Far from the bound this needs no lock: even if every process enters at the same moment, the bound holds.
        """
        cells = self._limits.cells
        if self.in_flight() + _COLUMNS < self.bound:
            cells[self.mine] += 1
            return True
        with self._limits.locked():
            if self.in_flight() >= self.bound:
                self._limits.reclaim()
                if self.in_flight() >= self.bound:
                    return False
            cells[self.mine] += 1
            return True

    def enter_many(self, count: int) -> bool:
        """Whether `count` more may be in flight; otherwise none is counted, and each has to be asked for by itself."""
        cells = self._limits.cells
        if self.in_flight() + _COLUMNS * count < self.bound:
            cells[self.mine] += count
            return True
        with self._limits.locked():
            if self.in_flight() + count > self.bound:
                return False
            cells[self.mine] += count
            return True

    def leave(self, count: int = 1) -> None:
        """So many less are in flight. Only this process writes its own column, so no lock is needed."""
        cells = self._limits.cells
        cells[self.mine] = max(0.0, cells[self.mine] - count)

    settle = leave  # a service's bound makes no difference between what was answered and what was not

    def in_flight(self) -> float:
        """Requests that are in, in all processes together."""
        cells = self._limits.cells
        return sum(cells[self._first : self._first + int(cells[self._limits.in_use])])
