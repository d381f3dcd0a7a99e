"""Evidence that an event is more likely in one arm than in the other, from tables of two by two, valid at every look.

Requests are assigned to the arms by an independent coin. So in any block of them, if the version makes no difference,
the events in the canary are a draw without replacement from all events of the block, whatever the requests were,
however they depend on each other, and however the rates drift from block to block (Fisher's exact test, stratified as
by Mantel and Haenszel 1959). An odds ratio of exp(θ) tilts that draw to Fisher's noncentral hypergeometric
distribution.

The ratio of the two probabilities, averaged over several θ, has the expectation 1 under the null: it is an e-value, and
the product over blocks is a test martingale. By Ville's inequality (1939) it ever exceeds 1/α with probability α at
most, so one may look as often as one likes and stop when one likes (Turner, Ly and Grünwald 2024, "Generic E-variables
for exact sequential k-sample tests"; Shafer 2021). The ratio rises with the events of the canary, so the null may be
"not worse": whatever is better than equal gives less.
"""

import math
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]
EXCESSES: Final = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.5)
"""Log odds ratios beyond the null that the average is over, with equal weights."""
NOTHING: Final = (0.0,) * len(EXCESSES)
_EXACT: Final = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, 256)))))


def block_ratios(events: int, canary: int, *, all_events: int, everything: int, null: float = 0.0) -> Array:
    """Log likelihood ratios of each of `EXCESSES` beyond the log odds ratio `null`, from one block.

    `events` of `all_events` fell on `canary` of `everything` requests.
    """
    rest = everything - canary
    low, high = max(0, all_events - rest), min(all_events, canary)
    if low == high:
        return np.zeros(len(EXCESSES))
    support = np.arange(low, high + 1)
    ways = _choose(canary, support) + _choose(rest, all_events - support)
    tilts = np.array((null, *(null + excess for excess in EXCESSES)))
    terms = ways[None, :] + tilts[:, None] * support[None, :]
    top = terms.max(axis=1)
    totals = top + np.log(np.exp(terms - top[:, None]).sum(axis=1))
    return np.asarray(np.array(EXCESSES) * events - (totals[1:] - totals[0]))


def log_average(ratios: "tuple[float, ...] | Array") -> float:
    """The log of the average of the likelihood ratios whose logs are given: the log of an e-value."""
    top = max(ratios)
    return float(top + math.log(sum(math.exp(each - top) for each in ratios) / len(ratios)))


def log_factorials(numbers: Array) -> Array:
    """Logs of factorials: from a table below 256, beyond by Stirling's series, whose error is then under 1e-17."""
    if numbers.max() < len(_EXACT):
        return np.asarray(_EXACT[numbers])
    large = np.maximum(numbers, len(_EXACT)).astype(float)
    series = (
        large * np.log(large)
        - large
        + 0.5 * np.log(2 * np.pi * large)
        + 1 / (12 * large)
        - 1 / (360 * large**3)
        + 1 / (1260 * large**5)
    )
    factorials: Array = np.where(numbers < len(_EXACT), _EXACT[np.minimum(numbers, len(_EXACT) - 1)], series)
    return factorials


def _choose(number: int, taken: Array) -> Array:
    whole = log_factorials(np.array([number]))
    return np.asarray(whole - log_factorials(taken) - log_factorials(number - taken))
