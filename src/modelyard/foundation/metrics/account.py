"""The account of a group: received = answered + rejected + lost + in flight, to the request."""

from collections.abc import Iterable
from dataclasses import dataclass

from modelyard.foundation.metrics.families import Family

DIED = "process_died"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Families that must add up. The first label(s) are shared by all; `rejected` and `lost` have `reason` last.

    What is in flight is not stored: it is what was received and not settled yet. In the file of a process that died the
    same difference is what was lost with it, under the reason `process_died`.
    """

    received: Family
    settled: tuple[Family, ...]
    lost: Family
    in_flight: Family

    def open_items(self, series: Iterable[tuple[str, tuple[str, ...], float]]) -> dict[tuple[str, ...], float]:
        """Received and not settled, by the shared labels, in the series (family, labels, value) of one file."""
        shared = len(self.received.labels)
        settled = {family.name for family in (*self.settled, self.lost)}
        still: dict[tuple[str, ...], float] = {}
        for family, labels, value in series:
            if family == self.received.name:
                still[labels] = still.get(labels, 0.0) + value
            elif family in settled:
                still[labels[:shared]] = still.get(labels[:shared], 0.0) - value
        return still
