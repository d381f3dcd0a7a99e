"""What a comparison can say now, a row for each watched thing: how many, how large, how sure, and what it cannot see.

Effects come with intervals that hold at every look. `visible` is the smallest harm that would by now have been shown
with a probability of 80 %; `days` is how long it takes at the present rate until the difference that matters is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from modelyard.control.traffic.guard import odds
from modelyard.control.traffic.guard.bounds import quantile_buckets, share_bounds
from modelyard.control.traffic.guard.counts import Arms
from modelyard.control.traffic.guard.evidence import (
    LATENCY_QUANTILES,
    LEARN,
    Evidence,
    categories_of,
    events_of,
    log_of_thing,
    slower_bucket,
    stream_shares,
)
from modelyard.control.traffic.guard.policy import GuardPolicy
from modelyard.domain.rollout import Watched
from modelyard.domain.sketches import LAST_LATENCY, latency_edge

_DAY_S: Final = 86_400.0
_POWER: Final = 0.84
"""The normal quantile of 80 %: a log likelihood ratio with mean m has a standard deviation of about √(2m)."""
_LATENCY_STEPS: Final = 8
_PROMOTED_BY: Final = (0.5, 0.95)
_MOST_DAYS: Final = 36_500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One row. `effect`, `low` and `high` are shares for errors and predictions, factors for latency.

    `evidence` is the e-value of this thing alone: how many times better "worse" explains the counts than "not worse".
    `matters` is the margin that has to be excluded, `is_clear` whether it is. `visible` is None when nothing possible
    could have been shown yet; `days` is None when nothing comes in.
    """

    thing: Watched
    what: str
    stable_n: int
    canary_n: int
    stable: float
    canary: float
    effect: float
    low: float
    high: float
    evidence: float
    visible: float | None
    matters: float
    days: float | None
    is_clear: bool
    counts_for_promotion: bool = True


def findings(evidence: Evidence, policy: GuardPolicy) -> tuple[Finding, ...]:
    """All rows, in the order of what is watched; those of which nothing is counted yet are left out."""
    arms = evidence.counted
    rows: list[Finding] = []
    for thing in policy.watch:
        match thing:
            case Watched.ERRORS if min(arms.stable.requests, arms.canary.requests) > 0:
                rows.append(_errors(evidence, arms, policy))
            case Watched.LATENCY if min(arms.stable.timed, arms.canary.timed) > 0:
                rows += [_latency(evidence, arms, policy, quantile) for quantile in LATENCY_QUANTILES]
            case Watched.PREDICTIONS if min(arms.stable.predicted, arms.canary.predicted) > 0:
                rows += _predictions(evidence, arms, policy)
            case _:
                pass
    return tuple(rows)


def needed_log(evidence: Evidence, policy: GuardPolicy, stream: str) -> float:
    """What the expected log likelihood ratio of `stream` must reach to be shown with a probability of 80 %.

    The threshold, plus what the average over the streams and over two neighbouring effects of the mixture costs, plus
    the spread of the ratio.
    """
    shares = dict(stream_shares(evidence, policy))
    log_share = next((share for name, share in shares.items() if name.startswith(stream)), min(shares.values()))
    least = -math.log(policy.level) - log_share + math.log(len(odds.EXCESSES) / 2)
    root = _POWER / math.sqrt(2) + math.sqrt(_POWER**2 / 2 + least)
    return root**2


def visible_excess(stable_n: int, canary_n: int, share: float, need: float) -> float | None:
    """The smallest excess over `share` of which the log likelihood ratio is expected to reach `need`; None if none."""

    def is_seen(excess: float) -> bool:
        return _information(stable_n, canary_n, share, share + excess) >= need

    most = 1 - share
    if most <= 0 or not is_seen(most):
        return None
    low, high = 0.0, most
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if is_seen(middle) else (middle, high)
    return high


def _information(stable_n: float, canary_n: float, stable: float, canary: float) -> float:
    """Expected log likelihood ratio of "two shares" against "one"."""
    pooled = (stable_n * stable + canary_n * canary) / (stable_n + canary_n)
    return canary_n * _divergence(canary, pooled) + stable_n * _divergence(stable, pooled)


def _divergence(one: float, other: float) -> float:
    return sum(p * math.log(p / q) for p, q in ((one, other), (1 - one, 1 - other)) if p > 0 and q > 0)


def _errors(evidence: Evidence, arms: Arms, policy: GuardPolicy) -> Finding:
    stable, canary = arms.stable, arms.canary
    low, high = _difference((stable.failures, stable.requests), (canary.failures, canary.requests), level=policy.level)
    shares = stable.failures / stable.requests, canary.failures / canary.requests
    need = needed_log(evidence, policy, "errors")
    return Finding(
        thing=Watched.ERRORS,
        what="failed requests",
        stable_n=stable.requests,
        canary_n=canary.requests,
        stable=shares[0],
        canary=shares[1],
        effect=shares[1] - shares[0],
        low=low,
        high=high,
        evidence=_exp(log_of_thing(evidence, policy, "errors")),
        visible=visible_excess(stable.requests, canary.requests, shares[0], need),
        matters=policy.error_margin,
        days=_days(
            evidence, lambda n: _information(9 * n, n, shares[0], min(1, shares[0] + policy.error_margin)), need
        ),
        is_clear=high <= policy.error_margin,
    )


def _latency(evidence: Evidence, arms: Arms, policy: GuardPolicy, quantile: float) -> Finding:
    name = f"latency p{quantile * 100:g}"
    stable, canary = arms.stable.latencies(), arms.canary.latencies()
    of_stable = quantile_buckets(stable, quantile, level=policy.level / 4)
    of_canary = quantile_buckets(canary, quantile, level=policy.level / 4)
    s_low, s_seen, s_high = (_edge(bucket) for bucket in of_stable)
    c_low, c_seen, c_high = (_edge(bucket) for bucket in of_canary)
    need = needed_log(evidence, policy, name)
    allowed = s_low * (1 + policy.latency_margin) + policy.latency_floor_s
    return Finding(
        thing=Watched.LATENCY,
        what=f"p{quantile * 100:g}",
        stable_n=arms.stable.timed,
        canary_n=arms.canary.timed,
        stable=s_seen,
        canary=c_seen,
        effect=c_seen / s_seen,
        low=c_low / s_high,
        high=c_high / s_low if s_low > 0 else math.inf,
        evidence=_exp(log_of_thing(evidence, policy, name)),
        visible=_visible_slowness(arms, policy, of_stable[1], need),
        matters=1 + policy.latency_margin,
        days=_days(evidence, lambda n: _slow_information(arms, policy, of_stable[1], n), need),
        is_clear=c_high <= allowed,
        counts_for_promotion=quantile in _PROMOTED_BY,
    )


def _predictions(evidence: Evidence, arms: Arms, policy: GuardPolicy) -> list[Finding]:
    """The category whose share differs most. Its interval is one of all categories', so the choice is paid for."""
    if evidence.closed.stable.predicted < LEARN:
        return []
    categories = categories_of(evidence)
    level = policy.level / len(categories)
    rows = [_prediction(evidence, arms, policy, category, bucket, level=level) for category, bucket in categories]
    widest = max(rows, key=lambda row: (row.evidence > 1 / policy.level, abs(row.effect)))
    all_clear = all(row.is_clear for row in rows)
    return [replace(widest, is_clear=all_clear, evidence=_exp(log_of_thing(evidence, policy, "predictions ")))]


def _prediction(
    evidence: Evidence, arms: Arms, policy: GuardPolicy, category: str, bucket: int | None, *, level: float
) -> Finding:
    events = [events_of(each, category, evidence.categories, bucket=bucket) for each in (arms.stable, arms.canary)]
    numbers = arms.stable.predicted, arms.canary.predicted
    low, high = _difference((events[0], numbers[0]), (events[1], numbers[1]), level=level)
    shares = events[0] / numbers[0], events[1] / numbers[1]
    need = needed_log(evidence, policy, f"predictions {category}")
    allowed = min(1.0, shares[0] + policy.prediction_tolerance)
    beyond = visible_excess(*numbers, allowed, need)
    matters = policy.prediction_margin
    return Finding(
        thing=Watched.PREDICTIONS,
        what=category if bucket is not None else f"label {category.lstrip('=')}",
        stable_n=numbers[0],
        canary_n=numbers[1],
        stable=shares[0],
        canary=shares[1],
        effect=shares[1] - shares[0],
        low=low,
        high=high,
        evidence=_exp(log_of_thing(evidence, policy, f"predictions {category} ")),
        visible=None if beyond is None else beyond + policy.prediction_tolerance,
        matters=matters,
        days=_days(evidence, lambda n: _information(9 * n, n, allowed, min(1.0, shares[0] + matters)), need),
        is_clear=max(-low, high) <= matters,
    )


def _difference(stable: tuple[int, int], canary: tuple[int, int], *, level: float) -> tuple[float, float]:
    """Bounds of the canary's share less stable's, at every look."""
    s_low, s_high = share_bounds(*stable, level=level / 2)
    c_low, c_high = share_bounds(*canary, level=level / 2)
    return c_low - s_high, c_high - s_low


def _visible_slowness(arms: Arms, policy: GuardPolicy, bucket: int, need: float) -> float | None:
    """The smallest factor of all latencies that would have been shown, in steps of the buckets."""
    for steps in range(1, 8 * _LATENCY_STEPS):
        if _slow(arms, policy, bucket, steps, (arms.stable.timed, arms.canary.timed)) >= need:
            return float(2 ** (steps / _LATENCY_STEPS))
    return None


def _slow_information(arms: Arms, policy: GuardPolicy, bucket: int, canary_n: float) -> float:
    steps = round(_LATENCY_STEPS * math.log2(1 + policy.latency_margin))
    return _slow(arms, policy, bucket, steps, (9 * canary_n, canary_n))


def _slow(arms: Arms, policy: GuardPolicy, bucket: int, steps: int, numbers: tuple[float, float]) -> float:
    """Information of `numbers` of requests when the canary is what stable is, `steps` buckets later."""
    timed = arms.stable.timed
    share = arms.stable.slower_than(bucket) / timed
    shifted = arms.stable.slower_than(slower_bucket(bucket, policy) - steps) / timed
    return _information(*numbers, share, shifted) if shifted > share else 0.0


def _days(evidence: Evidence, information: Callable[[float], float], need: float) -> float | None:
    """Days from now until `information` of the canary's requests reaches `need`, at the rate so far."""
    canary, span = evidence.counted.canary.requests, evidence.looked_at - evidence.began_at
    if canary == 0 or span <= 0:
        return None
    each = information(1.0)
    wanted = need / each if each > 0 else math.inf
    return min(max(0.0, wanted - canary) * span / canary / _DAY_S, _MOST_DAYS)


def _edge(bucket: int) -> float:
    if bucket < 0:
        return 0.0
    return math.inf if bucket > LAST_LATENCY else latency_edge(bucket)


def _exp(log: float) -> float:
    return math.exp(min(log, 700.0))
