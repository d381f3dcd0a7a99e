"""What became of every request, as the client saw it: the only judge."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Entry:
    """One request. Times are seconds since the start of the load; `due` is when it had to be sent, open loop.

    `outcome` is `ok`, `refused` (429 or 503, in time), `late`, `wrong` (other bytes than the right ones), `reset`, or a
    status. `latency` counts from `due`: a client that cannot keep up makes nothing look better.
    `detail` says what came instead of a right answer, or whose answer it was where several may answer.
    """

    number: int
    due: float
    latency: float
    outcome: str
    status: int = 0
    detail: str = ""


@dataclass(slots=True)
class Ledger:
    """All entries of one load."""

    entries: list[Entry] = field(default_factory=list)

    def between(self, begin: float = 0.0, end: float = float("inf")) -> "Ledger":
        """Those that were due in that time."""
        return Ledger([entry for entry in self.entries if begin <= entry.due < end])

    @property
    def outcomes(self) -> Counter[str]:
        """How many of each."""
        return Counter(entry.outcome for entry in self.entries)

    def count(self, *outcomes: str) -> int:
        """How many of these."""
        return sum(self.outcomes[outcome] for outcome in outcomes)

    @property
    def failed(self) -> list[Entry]:
        """Everything that is not a right answer in time."""
        return [entry for entry in self.entries if entry.outcome != "ok"]

    def quantile(self, share: float, *outcomes: str) -> float:
        """Latency in seconds that `share` of these (or all) stay within; 0 without any."""
        times = sorted(entry.latency for entry in self.entries if not outcomes or entry.outcome in outcomes)
        return times[min(len(times) - 1, int(share * len(times)))] if times else 0.0

    def examples(self, most: int = 5) -> Sequence[str]:
        """The first failures in words."""
        return [
            f"#{e.number} at {e.due:.2f} s: {e.outcome} {e.status or ''} {e.detail}".strip() for e in self.failed[:most]
        ]

    def by_second(self) -> dict[int, Counter[str]]:
        """Outcomes by the second in which they were due."""
        found: dict[int, Counter[str]] = {}
        for entry in self.entries:
            found.setdefault(int(entry.due), Counter())[entry.outcome] += 1
        return found
