"""What a benchmark gives: figures with their spread, their aim and the command that repeats them; shown and stored."""

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure. `better` is "less" or "more"; without an `aim` it is only told."""

    name: str
    values: tuple[float, ...]
    unit: str
    command: str
    aim: float | None = None
    better: str = "less"

    @property
    def median(self) -> float:
        """The middle of the values."""
        return statistics.median(self.values)

    @property
    def holds(self) -> bool | None:
        """Whether the aim is reached; None without an aim."""
        if self.aim is None:
            return None
        return self.median <= self.aim if self.better == "less" else self.median >= self.aim


def show(figures: Iterable[Figure]) -> None:
    """A table on stdout."""
    print(f"{'figure':<58}{'median':>10}  {'unit':<10}{'spread':<18}{'aim':<8}")
    for figure in figures:
        spread = f"{number(min(figure.values))}…{number(max(figure.values))}" if len(figure.values) > 1 else ""
        sign = "≤" if figure.better == "less" else "≥"
        aim = "" if figure.aim is None else f"{sign} {figure.aim:g}"
        verdict = {None: "", True: "reached", False: "MISSED"}[figure.holds]
        print(f"{figure.name:<58}{number(figure.median):>10}  {figure.unit:<10}{spread:<18}{aim:<8}{verdict}")


def store(name: str, figures: Sequence[Figure], **more: object) -> Path:
    """Keep them under benchmarks/results, with what the machine is."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    document = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg(),
        "figures": [{**asdict(figure), "median": figure.median, "holds": figure.holds} for figure in figures],
        **more,
    }
    path.write_text(json.dumps(document, indent=1))
    return path


def number(value: float) -> str:
    """Three or four significant digits, thousands apart."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
