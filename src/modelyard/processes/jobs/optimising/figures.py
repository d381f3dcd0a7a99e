"""What rounds of load say about rounds to come: intervals of latencies and of costs.

Latencies of rounds are taken to be spread evenly on a logarithmic scale around a value of their own; so are costs.
"""

import math
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import psutil

from modelyard.domain.errors.platform import JobFailed

_SHARE: Final = 0.95
LEAST_ROUNDS: Final = 3
"""Fewer rounds say nothing about how much rounds differ."""


class Span(NamedTuple):
    """A value and the interval that holds it in 95 of 100 cases."""

    value: float
    low: float
    high: float

    def document(self) -> dict[str, Any]:
        """In plain JSON values."""
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def expected(rounds: Sequence[float], *, to_come: int | None = None) -> Span:
    """The geometric mean of `rounds`, all positive, and where that of `to_come` further rounds will be.

    Without `to_come` the interval is that of the value itself (a confidence interval).

    Raises:
        JobFailed: there are fewer than three.
    """
    import numpy as np
    from scipy.stats import t

    if len(rounds) < LEAST_ROUNDS:
        raise JobFailed(f"{len(rounds)} rounds were measured, and {LEAST_ROUNDS} are the least", hint="measure longer")
    logs = np.log(np.asarray(rounds, dtype=float))
    mean, count = float(logs.mean()), len(logs)
    more = 0.0 if to_come is None else 1 / to_come
    half = float(t.ppf((1 + _SHARE) / 2, count - 1) * logs.std(ddof=1) * math.sqrt(1 / count + more))
    return Span(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def ratio(before: Sequence[float], after: Sequence[float]) -> Span:
    """How many times `before` is `after`, from rounds that were measured in pairs."""
    return expected([one / other for one, other in zip(before, after, strict=True)])


def busy_s(pids: Sequence[int]) -> float:
    """Processor time that these processes have used, in seconds, as exactly as the system tells."""
    return sum(map(_busy_s, pids))


def _busy_s(pid: int) -> float:
    if sys.platform != "linux":
        used = psutil.Process(pid).cpu_times()
        return float(used.user + used.system)
    return time.clock_gettime((~pid << 3) | 2)  # the clock of a process: nanoseconds, where /proc counts ticks of 10 ms
