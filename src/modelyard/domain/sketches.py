"""What a model server tells of one revision while it is compared with another: counts, in buckets that all agree on.

A sketch is cumulative over one *epoch*: one process, and one setting of the shares. So a reader takes differences, a
restarted server is a new epoch, and figures of different shares are never poured together (Simpson's paradox: a share
that moved during a slow hour would look like a slow revision).
"""

import math
from dataclasses import dataclass
from typing import Final

_LEAST_LATENCY_S: Final = 1e-5
_LATENCY_STEPS: Final = 8
LAST_LATENCY: Final = 200
_NUMBER_STEPS: Final = 64
_LEAST_EXPONENT: Final = -32
LABEL: Final = "="
NUMBER: Final = "#"
OTHER: Final = "~"
MOST_LABELS: Final = 64
_LONGEST_LABEL: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """Counts of one revision in one epoch, of requests that the weights sent there by chance.

    `split` are the shares as text. `failures` are those of `requests` that the revision itself spoilt: it raised, its
    workers died, it missed the deadline, or it answered with what is no number. `latency` counts, by `latency_bucket`,
    one request of each side for each twentieth of a second (those of one run are no independent witnesses);
    `predictions` counts the first row of each answer by `label_key` or `number_key`.
    """

    project: str
    service: str
    revision: int
    epoch: str
    split: str
    requests: int = 0
    failures: int = 0
    latency: tuple[tuple[int, int], ...] = ()
    predictions: tuple[tuple[str, int], ...] = ()


def latency_bucket(seconds: float) -> int:
    """The bucket of a latency: eight to a doubling, each with its upper edge."""
    if seconds <= _LEAST_LATENCY_S:
        return 0
    return min(math.ceil(_LATENCY_STEPS * math.log2(seconds / _LEAST_LATENCY_S)), LAST_LATENCY)


def latency_edge(bucket: int) -> float:
    """The largest latency in `bucket`, in seconds."""
    return float(_LEAST_LATENCY_S * 2 ** (bucket / _LATENCY_STEPS))


def label_key(label: str) -> str:
    """The key of a label among predictions."""
    return LABEL + label[:_LONGEST_LABEL]


def number_bucket(value: float) -> int:
    """Buckets of a finite number in its own order, about one percent wide; 0 is what is nearly nothing."""
    size = abs(value)
    if size < 2.0**_LEAST_EXPONENT:
        return 0
    bucket = 1 + int(_NUMBER_STEPS * (math.log2(size) - _LEAST_EXPONENT))
    return bucket if value > 0 else -bucket


def number_edge(bucket: int) -> float:
    """The number in `bucket` that is farthest from nought."""
    if bucket == 0:
        return 0.0
    size = 2.0 ** (abs(bucket) / _NUMBER_STEPS + _LEAST_EXPONENT)
    return math.copysign(size, bucket)


def number_key(bucket: int) -> str:
    """The key of a bucket of numbers among predictions."""
    return f"{NUMBER}{bucket}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """One row that a shadow answered otherwise. `inputs` is a digest of the row's inputs, never the inputs."""

    output: str
    answered: str
    shadow: str
    inputs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSketch:
    """What one server saw of a shadow since `epoch` began: copies of answered requests, and how its answers compare.

    Of the requests `copied`, `compared` came back, `failed` did not, the rest is under way; `dropped` were not copied
    because too many were. `differing` requests have a row with another label, or a number beyond rtol 1e-4 / atol 1e-5.
    `rows` were compared, `other_labels` of them have another label. Latencies are of runs, by `latency_bucket`.
    """

    project: str
    service: str
    revision: int
    version: str
    digest: str
    epoch: str
    copied: int = 0
    compared: int = 0
    failed: int = 0
    dropped: int = 0
    differing: int = 0
    rows: int = 0
    other_labels: int = 0
    largest_difference: float = 0.0
    largest_relative: float = 0.0
    answered_latency: tuple[tuple[int, int], ...] = ()
    shadow_latency: tuple[tuple[int, int], ...] = ()
    examples: tuple[Differing, ...] = ()
    last_failure: str = ""
