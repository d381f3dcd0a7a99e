"""Prometheus text format 0.0.4 of all books in a directory, summed over the processes that wrote them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from modelyard.foundation.metrics.account import DIED, Account
from modelyard.foundation.metrics.book import Owner, read_books
from modelyard.foundation.metrics.families import Family, Kind

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PROCESS_FAMILIES: Final = (
    Family(
        name="process_resident_memory_bytes",
        kind=Kind.GAUGE,
        help="Resident memory of the process.",
        labels=("process",),
    ),
    Family(
        name="process_cpu_seconds_total",
        kind=Kind.COUNTER,
        help="User and system time the process used since it started.",
        labels=("process",),
    ),
    Family(name="process_open_fds", kind=Kind.GAUGE, help="Open file descriptors.", labels=("process",)),
    Family(
        name="process_start_time_seconds",
        kind=Kind.GAUGE,
        help="Start of the process in seconds since the Unix epoch.",
        labels=("process",),
    ),
)
"""Shown for each live process; names as Prometheus's own client libraries have them."""

Series = dict[tuple[str, tuple[str, ...]], list[float]]


@dataclass(slots=True)
class Group:
    """The sum of all books. `series` maps family name and label values to the cells."""

    series: Series = field(default_factory=dict)
    owners: list[Owner] = field(default_factory=list)

    @classmethod
    def read(cls, directory: Path, *, accounts: Sequence[Account] = ()) -> "Group":
        """Add up the books in `directory`; settle `accounts`: see `Account`."""
        group = cls()
        for page in read_books(directory):
            group.owners.append(page.owner)
            for line, values in page.series:
                group._add(line.family, line.labels, values)
            flat = [(line.family, line.labels, values[0]) for line, values in page.series]
            for account in accounts:
                for labels, amount in account.open_items(flat).items():
                    if page.owner.alive:
                        group._add(account.in_flight.name, labels, (amount,))
                    elif amount > 0:
                        group._add(account.lost.name, (*labels, DIED), (amount,))
        return group

    def value(self, family: Family, *labels: str) -> float:
        """One number; 0 where nothing was counted."""
        return self.series.get((family.name, labels), [0.0])[0]

    def total(self, family: Family) -> float:
        """The sum over all label values of a counter or gauge."""
        return sum(values[0] for (name, _), values in self.series.items() if name == family.name)

    def _add(self, family: str, labels: tuple[str, ...], values: Sequence[float]) -> None:
        cells = self.series.setdefault((family, labels), [0.0] * len(values))
        for index, value in enumerate(values):
            cells[index] += value


def render(group: Group, families: Sequence[Family], *, processes: bool = True) -> bytes:
    """The group's figures as text, in the order of `families`; with `processes`, also `PROCESS_FAMILIES`."""
    lines: list[str] = []
    by_family: dict[str, list[tuple[tuple[str, ...], list[float]]]] = {}
    for (name, labels), values in sorted(group.series.items()):
        by_family.setdefault(name, []).append((labels, values))
    for family in families:
        rows = by_family.get(family.name, [])
        if rows:
            lines += _head(family)
            for labels, values in rows:
                lines += _rows(family, labels, values)
    if processes:
        lines += _process_lines(group.owners)
    return ("\n".join(lines) + "\n").encode()


def _head(family: Family) -> list[str]:
    return [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]


def _rows(family: Family, labels: tuple[str, ...], values: list[float]) -> list[str]:
    named = dict(zip(family.labels, labels, strict=True))
    if family.kind is not Kind.HISTOGRAM:
        return [f"{family.name}{_labels(named)} {_number(values[0])}"]
    rows, count = [], 0.0
    for bound, value in zip((*map(repr, family.buckets), "+Inf"), values, strict=False):
        count += value
        rows.append(f"{family.name}_bucket{_labels({**named, 'le': bound})} {_number(count)}")
    rows.append(f"{family.name}_sum{_labels(named)} {_number(values[-1])}")
    rows.append(f"{family.name}_count{_labels(named)} {_number(count)}")
    return rows


def _labels(named: Mapping[str, str]) -> str:
    if not named:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in named.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _process_lines(owners: Sequence[Owner]) -> list[str]:
    figures: list[tuple[str, tuple[float, ...]]] = []
    for owner in owners:
        if owner.alive:
            try:
                process = psutil.Process(owner.pid)
                with process.oneshot():
                    cpu = process.cpu_times()
                    memory = process.memory_info().rss
                    files = process.num_fds()
            except psutil.Error:
                continue
            figures.append((owner.name, (memory, cpu.user + cpu.system, files, owner.started_at)))
    lines: list[str] = []
    for index, family in enumerate(PROCESS_FAMILIES if figures else ()):
        lines += _head(family)
        lines += [f"{family.name}{_labels({'process': name})} {_number(values[index])}" for name, values in figures]
    return lines
