"""Intervals that hold at every look at once: for a share, and for a quantile of what was counted in buckets.

A share: all p that the mixture martingale B(k+Sp, n−k+S(1−p)) / (B(Sp, S(1−p))·p^k·(1−p)^(n−k)) does not refute: the
average likelihood of shares around p, against that of p (Robbins 1970; Darling and Robbins 1967). S is how narrow
"around" is; at S requests the interval is at its best. A quantile: the edges at which the share below is not refuted to
be the quantile's own (Howard and Ramdas 2022, "Sequential estimation of quantiles", with this martingale in place of
their boundary). They take each arm's requests for draws that do not change over time; the tests in `odds` do not need
that.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

_HALVINGS: Final = 40
_STRENGTH: Final = 200.0


def share_bounds(events: int, requests: int, *, level: float) -> tuple[float, float]:
    """Lowest and highest share that `events` of `requests` leave possible, at error `level` over all looks."""
    if requests == 0:
        return 0.0, 1.0
    seen = events / requests
    low = 0.0 if events == 0 else _edge(lambda p: _refutes(p, events, requests, level), inside=seen, outside=0.0)
    high = (
        1.0 if events == requests else _edge(lambda p: _refutes(p, events, requests, level), inside=seen, outside=1.0)
    )
    return low, high


def quantile_buckets(counts: Sequence[tuple[int, int]], quantile: float, *, level: float) -> tuple[int, int, int]:
    """Buckets that hold the quantile: not below the first, as seen the second, not above the third.

    `counts` are pairs of a bucket and its count, in order, and not empty. -1 stands for "no lower bound"; the last
    bucket plus one for "no upper bound".
    """
    requests = sum(count for _, count in counts)
    low, seen, high = -1, counts[-1][0], counts[-1][0] + 1
    is_seen = is_bounded = False
    below = 0
    for bucket, count in counts:
        below += count
        share = below / requests
        if share < quantile and _refutes(quantile, below, requests, level):
            low = bucket
        if not is_seen and share >= quantile:
            seen, is_seen = bucket, True
        if not is_bounded and share > quantile and _refutes(quantile, below, requests, level):
            high, is_bounded = bucket, True
    return low, seen, high


def seen_quantile(counts: Sequence[tuple[int, int]], quantile: float) -> int:
    """The bucket in which the quantile of `counts` (in order, not empty) falls."""
    wanted = quantile * sum(count for _, count in counts)
    below = 0
    for bucket, count in counts:
        below += count
        if below >= wanted:
            return bucket
    return counts[-1][0]


def _refutes(share: float, events: int, requests: int, level: float) -> bool:
    if share <= 0 or share >= 1:
        return events != share * requests
    a, b = _STRENGTH * share, _STRENGTH * (1 - share)
    mixture = _log_beta(events + a, requests - events + b) - _log_beta(a, b)
    return mixture - events * math.log(share) - (requests - events) * math.log1p(-share) >= -math.log(level)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _edge(is_refuted: Callable[[float], bool], *, inside: float, outside: float) -> float:
    """Where the possible shares end between one that is possible and one that may not be; errs to the outside."""
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if is_refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside
