"""What is measured: each family of figures with its meaning, unit and labels, declared once."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DURATION_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper bounds in seconds (OpenTelemetry semantic conventions, `http.server.request.duration`)."""


class Kind(StrEnum):
    """How a figure moves, in the words of the Prometheus text format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A figure. `name` carries its unit (`_seconds`, `_bytes`, `_total`); `labels` are in the order of their values."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = DURATION_BUCKETS_S

    @property
    def cells(self) -> int:
        """How many doubles one series takes: a histogram keeps a count a bucket, one beyond all, and the sum."""
        return len(self.buckets) + 2 if self.kind is Kind.HISTOGRAM else 1
