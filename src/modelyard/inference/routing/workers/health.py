"""What is known of workers and decided about them. Pure: the clock is handed in, nothing is sent.

Sources: retry throttling after gRPC proposal A6 (a bucket of 10, a failure takes 1, a success gives a tenth, nothing is
retried from half of it down); outlier detection after Envoy's; hedging after Dean and Barroso, "The Tail at Scale"
(CACM 56/2, 2013): a second copy after the 95th percentile, within a budget of a twentieth.
"""

from math import exp
from typing import Final

_SIZES: Final = 40
_STEP: Final = 0.06
_TAIL: Final = 0.95
_ENOUGH: Final = 20
_NEW_SHARE: Final = 0.25
_MOST_TOKENS: Final = 10.0
_FEW: Final = 5
_FAILING: Final = 0.5
_SOUND: Final = 0.1


class Typical:
    """Median and 95th percentile of run times, for each doubling of the number of rows, followed step by step.

    Each run moves an estimate by a fixed share of itself, up or down (Robbins and Monro, 1951), so that one slow
    worker of several moves the median hardly at all.
    """

    __slots__ = ("_counts", "_medians", "_tails")

    def __init__(self) -> None:
        self._medians = [0.0] * _SIZES
        self._tails = [0.0] * _SIZES
        self._counts = [0] * _SIZES

    def record(self, rows: int, seconds: float) -> None:
        """Take one run into account."""
        size = rows.bit_length()
        self._counts[size] += 1
        median, tail = self._medians[size], self._tails[size]
        if not median:
            self._medians[size] = self._tails[size] = max(seconds, 1e-6)
            return
        self._medians[size] = median * exp(_STEP if seconds > median else -_STEP)
        self._tails[size] = tail * exp(_STEP * _TAIL if seconds > tail else -_STEP * (1 - _TAIL))

    def ratio(self, rows: int, seconds: float) -> float | None:
        """How many medians `seconds` is; None while too little is known."""
        size = rows.bit_length()
        return seconds / self._medians[size] if self._counts[size] >= _ENOUGH else None

    def tail_s(self, rows: int) -> float | None:
        """The 95th percentile; None while too little is known."""
        size = rows.bit_length()
        return self._tails[size] if self._counts[size] >= _ENOUGH else None


class RetryBudget:
    """Tokens for repeats: `gain` for each success, one for each failure. Nothing is repeated from half of them down."""

    __slots__ = ("_gain", "_tokens")

    def __init__(self, gain: float) -> None:
        self._gain = gain
        self._tokens = _MOST_TOKENS

    def succeeded(self) -> None:
        """A run was answered."""
        self._tokens = min(_MOST_TOKENS, self._tokens + self._gain)

    def failed(self) -> None:
        """A run failed or took too long."""
        self._tokens = max(0.0, self._tokens - 1.0)

    @property
    def allows(self) -> bool:
        """Whether a repeat is in order."""
        return self._tokens > _MOST_TOKENS / 2


class HedgeBudget:
    """A second copy for at most `share` of all runs; a few may come together."""

    __slots__ = ("_share", "_tokens")

    def __init__(self, share: float) -> None:
        self._share = share
        self._tokens = 0.0

    def ran(self) -> None:
        """A run was sent."""
        self._tokens = min(_MOST_TOKENS, self._tokens + self._share)

    def take(self) -> bool:
        """Whether a copy may be sent now."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Breaker:
    """Open after `failures` runs in a row that no worker could take; then one run at a time tries, until one succeeds.

    Only failures of the workers count, never those of a model on its input: no client can open it with bad input.
    """

    __slots__ = ("_failures", "_in_a_row", "is_open")

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self._in_a_row = 0
        self.is_open = False

    def succeeded(self) -> bool:
        """A run was answered; whether that closed the circuit."""
        closed, self.is_open, self._in_a_row = self.is_open, False, 0
        return closed

    def failed(self) -> bool:
        """A run could not be taken; whether that opened the circuit."""
        self._in_a_row += 1
        opened = not self.is_open and self._in_a_row >= self._failures
        self.is_open = self.is_open or opened
        return opened


class Record:
    """How one worker did lately: its failures, and its run times in medians of the pool. New runs weigh a quarter."""

    __slots__ = ("failing", "runs", "slowness")

    def __init__(self) -> None:
        self.runs = 0
        self.failing = 0.0
        self.slowness = 1.0

    def ran(self, *, failed: bool, ratio: float | None) -> None:
        """A run ended."""
        self.runs += 1
        self.failing += _NEW_SHARE * ((1.0 if failed else 0.0) - self.failing)
        if ratio is not None:
            self.slowness += _NEW_SHARE * (min(ratio, 100.0) - self.slowness)


def why_outlier(record: Record, peers: list[Record], *, slow_factor: float) -> str | None:
    """Why this worker is to be set aside: `failing` or `slow` where its peers are not; None when it is as they are."""
    if record.runs < _FEW or not peers:
        return None
    if record.failing >= _FAILING and all(peer.failing <= _SOUND for peer in peers):
        return "failing"
    usual = sorted(peer.slowness for peer in peers)[len(peers) // 2]
    if record.slowness > slow_factor * max(1.0, usual):
        return "slow"
    return None


def is_lone_failure(peers: list[Record]) -> bool:
    """Whether a failure is this worker's rather than the input's: there are others, and they do not fail."""
    return bool(peers) and all(peer.failing <= _SOUND for peer in peers)


def may_set_aside(aside: int, workers: int) -> bool:
    """Never more than half of the workers, whatever they do."""
    return aside + 1 <= workers // 2
