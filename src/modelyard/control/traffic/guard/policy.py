"""What a guard calls harm, what it wants to have excluded before it promotes, and how often it may be wrong."""

from dataclasses import dataclass

from modelyard.domain.rollout import Watched


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardPolicy:
    """Terms of one comparison.

    `level` is the greatest probability with which a canary that is not worse is ever rolled back, over all watched
    things and all looks together. Harm is a higher error ratio; a latency quantile above the stable one by the share
    `latency_tolerance` and `latency_floor_s` seconds; a label or a part of the numbers whose share moved by more than
    `prediction_tolerance`. Before it promotes, the intervals exclude the margins: `error_margin` and
    `prediction_margin` in shares, `latency_margin` as a factor less one (of the median and the 95th percentile).
    At `most_requests` of the canary it promotes without that, when there is no evidence of harm.
    Every step keeps `least_requests` of the canary.
    """

    watch: tuple[Watched, ...] = (Watched.ERRORS, Watched.LATENCY, Watched.PREDICTIONS)
    level: float = 0.05
    error_margin: float = 0.01
    latency_tolerance: float = 0.2
    latency_floor_s: float = 0.001
    latency_margin: float = 0.5
    prediction_tolerance: float = 0.02
    prediction_margin: float = 0.05
    least_requests: int = 200
    most_requests: int = 20_000
