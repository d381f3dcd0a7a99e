"""The points of the search: a form of the model on a runtime, with threads and batching of its own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_high
from typing import Any, Final

from modelyard.domain.contract import ServingPackage
from modelyard.domain.routing import Batching
from modelyard.processes.jobs.optimising.figures import Span, expected
from modelyard.processes.jobs.optimising.load import Round

AS_IT_IS: Final = "as it is"
_GATHERED: Final = (Batching(max_size=1), Batching(), Batching(max_wait_ms=1.0))
_SLACK: Final = 1.1
"""By how much another has to be better in everything before one measurement puts a point aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A package that a server can load, and what it lost. `upload` is what the intake takes; None: it is there already.

    `points` are what it lost on the sample, in hundredths of the rows or of the spread.
    """

    name: str
    runtime: str
    directory: Path
    package: ServingPackage
    size_bytes: int
    points: float
    drop: Mapping[str, Any] | None = None
    upload: Path | None = None


@dataclass(slots=True, kw_only=True)
class Point:
    """One way to serve. Each round adds a latency and a cost (processor seconds for 1,000 rows)."""

    form: Form
    threads: int
    batching: Batching
    is_default: bool = False
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    reason: str = ""

    @property
    def title(self) -> str:
        """For people."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        batching = f"up to {self.batching.max_size} at once, {self.batching.max_wait_ms:g} ms waited for them"
        return f"{self.form.name} on {self.form.runtime}, {threads}, {batching}"

    def add(self, found: Round, *, busy_s: float, rows: int) -> None:
        """One round. A single failure takes the point out: it is not served well."""
        if found.failed:
            self.reason = f"{found.failed} of {found.failed + len(found.latencies_ms)} requests failed: {found.reason}"
            return
        self.p50_ms.append(found.quantile(0.5))
        self.p99_ms.append(found.quantile(0.99))
        self.cost.append(busy_s / (len(found.latencies_ms) * rows) * 1000)

    def look(self) -> dict[str, Any]:
        """What one short round said of it, or why there was none."""
        seen = (
            {"p99_ms": round(median_high(self.p99_ms), 3), "cost": round(median_high(self.cost), 4)}
            if self.cost
            else {}
        )
        return {"what": self.title, "reason": self.reason or "others are cheaper or quicker", **seen}

    def forget(self) -> None:
        """Begin anew: what was measured so far was only a look."""
        self.p50_ms, self.p99_ms, self.cost = [], [], []

    def expected_p99(self, *, to_come: int) -> Span:
        """Where the 99th percentile of as many rounds to come will be, in ms."""
        return expected(self.p99_ms, to_come=to_come)

    def document(self, *, to_come: int) -> dict[str, Any]:
        """In plain JSON values."""
        return {
            "form": self.form.name,
            "runtime": self.form.runtime,
            "threads": self.threads,
            "max_batch_size": self.batching.max_size,
            "max_wait_ms": self.batching.max_wait_ms,
            "size_bytes": self.form.size_bytes,
            "points_lost": self.form.points,
            "drop": self.form.drop,
            "p50_ms": expected(self.p50_ms).document(),
            "p99_ms": self.expected_p99(to_come=to_come).document(),
            "cost": expected(self.cost).document(),
            "rounds": len(self.cost),
        }


def settings_of(form: Form, *, threads: int, default_threads: int, first: bool) -> list[Point]:
    """The points of a form: every number of threads up to `threads`, every way to gather; `first` holds the default."""
    largest = form.package.contract.max_batch_size
    gathered = _GATHERED if largest > 1 else _GATHERED[:1]
    return [
        Point(
            form=form,
            threads=count,
            batching=batching,
            is_default=first and count == default_threads and batching == default_batching(form),
        )
        for count in _doubling(threads)
        for batching in gathered
    ]


def default_batching(form: Form) -> Batching:
    """How the platform gathers when nobody says."""
    return Batching() if form.package.contract.max_batch_size > 1 else _GATHERED[0]


def hopeful(points: Iterable[Point], *, most: int, p99_ms: float) -> list[Point]:
    """At most `most` that nothing else beats clearly in both latency and cost, and the default always.

    Those that may stay within `p99_ms` go first, the cheapest of them at the front, then the quickest of the rest.
    """
    alive = [point for point in points if point.cost and not point.reason]
    kept = [point for point in alive if not any(_clearly_better(other, point) for other in alive)]

    def order(point: Point) -> tuple[bool, float]:
        quick = median_high(point.p99_ms) <= p99_ms * _SLACK
        return not quick, median_high(point.cost) if quick else median_high(point.p99_ms)

    default = [point for point in alive if point.is_default]
    return [*default, *(point for point in sorted(kept, key=order) if not point.is_default)][:most]


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other is at least as good as in cost, latency and points lost, and better in one."""
    measures = [(expected(point.cost).value, expected(point.p99_ms).value, point.form.points) for point in points]

    def is_beaten(theirs: tuple[float, float, float]) -> bool:
        return any(
            ours != theirs and all(mine <= his for mine, his in zip(ours, theirs, strict=True)) for ours in measures
        )

    return [point for point, own in zip(points, measures, strict=True) if not is_beaten(own)]


def _clearly_better(one: Point, other: Point) -> bool:
    return (
        median_high(one.cost) * _SLACK < median_high(other.cost)
        and median_high(one.p99_ms) * _SLACK < median_high(other.p99_ms)
        and one.form.points <= other.form.points
    )


def _doubling(most: int) -> list[int]:
    counts = [1]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    return counts
