"""The file of one process: a table of series and the doubles they live in, mapped into memory.

Layout: a header of 4096 bytes (magic, bytes of series table in use, cells in use, process id, start in Unix seconds),
the series table (one JSON line a series: family, label values, first cell), then the cells. The owner holds an
exclusive lock on the file for as long as it lives; a file whose lock is free belongs to a process that has ended.
"""

import fcntl
import mmap
import os
import struct
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from modelyard.foundation.metrics.account import DIED, Account
from modelyard.foundation.metrics.families import Family, Kind

SUFFIX: Final = ".figures"
_MAGIC: Final = b"MDYFIG01"
_HEAD: Final = struct.Struct("<8sQQQd")
_HEAD_BYTES: Final = 4096
_TABLE_BYTES: Final = 1 << 20
_CELLS: Final = 1 << 16
_FILE_BYTES: Final = _HEAD_BYTES + _TABLE_BYTES + 8 * _CELLS
_RIVALS: Final = 1000


class Line(msgspec.Struct, array_like=True):
    """A row of the series table."""

    family: str
    labels: tuple[str, ...]
    cell: int
    size: int
    gauge: bool = False


class Counter:
    """A number that only grows. Not for several threads at once."""

    __slots__ = ("_at", "_cells")

    def __init__(self, cells: "memoryview[float]", at: int) -> None:
        self._cells = cells
        self._at = at

    def add(self, amount: float = 1.0) -> None:
        """Grow by `amount`, which is not negative."""
        self._cells[self._at] += amount

    @property
    def value(self) -> float:
        """What this process counted, with what its predecessors of the same name did."""
        return float(self._cells[self._at])


class Gauge(Counter):
    """A number that goes up and down; it is forgotten when its process ends."""

    __slots__ = ()

    def set(self, value: float) -> None:
        """Make it `value`."""
        self._cells[self._at] = value


class Histogram:
    """Counts by upper bound, and the sum."""

    __slots__ = ("_at", "_bounds", "_cells", "_sum")

    def __init__(self, cells: "memoryview[float]", at: int, bounds: tuple[float, ...]) -> None:
        self._cells = cells
        self._at = at
        self._bounds = bounds
        self._sum = at + len(bounds) + 1

    def counts(self) -> list[float]:
        """How many values lie in each bucket."""
        return list(self._cells[self._at : self._sum])

    def observe(self, value: float, times: int = 1) -> None:
        """Record `value`, `times` over."""
        self._cells[self._at + bisect_left(self._bounds, value)] += times
        self._cells[self._sum] += value * times

    def observe_span(self, low: float, high: float, *, total: float, times: int) -> bool:
        """Record `times` values between `low` and `high` that sum to `total`, if all fall in one bucket.

        False, and nothing recorded, when they do not: the caller then observes each.
        """
        bucket = bisect_left(self._bounds, low)
        if bucket != bisect_left(self._bounds, high):
            return False
        self._cells[self._at + bucket] += times
        self._cells[self._sum] += total
        return True


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that writes a file, or wrote it."""

    name: str
    pid: int
    started_at: float
    alive: bool


class Book:
    """The file of this process. Series that do not fit any more are kept in memory only; `overflowed` counts them."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self.name = name
        os.ftruncate(fd, _FILE_BYTES)
        self._map = mmap.mmap(fd, _FILE_BYTES)
        self._cells = memoryview(self._map)[_HEAD_BYTES + _TABLE_BYTES :].cast("d")
        self._known: dict[tuple[str, tuple[str, ...]], int] = {}
        self._table_used = 0
        self._cells_used = 0
        self.overflowed = 0
        self._take_over()

    @classmethod
    def open(cls, directory: Path, name: str) -> "Book":
        """The book `name` in `directory`, taken over from an ended process or new.

        While another live process holds it (one that still drains), a free one beside it is taken.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for rival in range(_RIVALS):
            actual = name if rival == 0 else f"{name}+{rival}"
            fd = os.open(directory / f"{actual}{SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                continue
            return cls(fd, actual)
        raise OSError(f"no free book for {name} in {directory}")

    def counter(self, family: Family, *labels: str) -> Counter:
        """The counter of these label values; the same one for the same values."""
        return Counter(*self._series(family, labels))

    def gauge(self, family: Family, *labels: str) -> Gauge:
        """The gauge of these label values."""
        return Gauge(*self._series(family, labels))

    def histogram(self, family: Family, *labels: str) -> Histogram:
        """The histogram of these label values."""
        return Histogram(*self._series(family, labels), family.buckets)

    def settle(self, account: Account) -> None:
        """Book what a predecessor left in flight as lost with it. To be called before anything is received."""
        series = [(line.family, line.labels, float(self._cells[line.cell])) for line in _lines(self._map)]
        for labels, amount in account.open_items(series).items():
            if amount > 0:
                self.counter(account.lost, *labels, DIED).add(amount)

    def close(self) -> None:
        """Let go of the file; what was counted stays in it."""
        if self._fd < 0:
            return
        fcntl.flock(self._fd, fcntl.LOCK_UN)  # the mapping keeps the file open for counters that are still held
        os.close(self._fd)
        self._fd = -1

    def _series(self, family: Family, labels: tuple[str, ...]) -> "tuple[memoryview[float], int]":
        if len(labels) != len(family.labels):
            raise ValueError(f"{family.name} has the labels {family.labels}, not {len(labels)} of them")
        at = self._known.get((family.name, labels))
        if at is not None:
            return self._cells, at
        line = Line(family.name, labels, self._cells_used, family.cells, family.kind is Kind.GAUGE)
        text = msgspec.json.encode(line) + b"\n"
        if self._table_used + len(text) > _TABLE_BYTES or self._cells_used + family.cells > _CELLS:
            self.overflowed += 1
            return memoryview(bytearray(8 * family.cells)).cast("d"), 0
        start = _HEAD_BYTES + self._table_used
        self._map[start : start + len(text)] = text
        self._known[family.name, labels] = self._cells_used
        self._table_used += len(text)
        self._cells_used += family.cells
        self._write_head()
        return self._cells, line.cell

    def _take_over(self) -> None:
        if self._map[:8] == _MAGIC:
            _, self._table_used, self._cells_used, _, _ = _HEAD.unpack_from(self._map)
            for line in _lines(self._map):
                self._known[line.family, line.labels] = line.cell
                if line.gauge:
                    self._cells[line.cell] = 0.0
        self._started_at = time.time()
        self._write_head()

    def _write_head(self) -> None:
        _HEAD.pack_into(self._map, 0, _MAGIC, self._table_used, self._cells_used, os.getpid(), self._started_at)


@dataclass(frozen=True, slots=True)
class Page:
    """A book as read by anybody."""

    owner: Owner
    series: tuple[tuple[Line, tuple[float, ...]], ...]


def read_books(directory: Path) -> Iterator[Page]:
    """All books in `directory`, in the order of their names. Gauges of ended processes are left out."""
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            alive = _is_held(fd)
            data = os.pread(fd, _FILE_BYTES, 0)
        finally:
            os.close(fd)
        if len(data) == _FILE_BYTES and data[:8] == _MAGIC:
            yield _page(path.name.removesuffix(SUFFIX), data, alive=alive)


def _page(name: str, data: bytes, *, alive: bool) -> Page:
    _, _, _, pid, started_at = _HEAD.unpack_from(data)
    cells = memoryview(data)[_HEAD_BYTES + _TABLE_BYTES :].cast("d")
    lines = tuple(
        (line, tuple(cells[line.cell : line.cell + line.size])) for line in _lines(data) if alive or not line.gauge
    )
    return Page(Owner(name, pid, started_at, alive), lines)


def _lines(data: bytes | mmap.mmap) -> list[Line]:
    used = _HEAD.unpack_from(data)[1]
    return msgspec.json.Decoder(Line).decode_lines(data[_HEAD_BYTES : _HEAD_BYTES + used])


def _is_held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
