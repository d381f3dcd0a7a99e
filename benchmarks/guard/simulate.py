"""Canaries on recorded traffic with the clock handed in: a coin for each request, a look every two seconds."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from benchmarks.guard.traffic import Recording
from scipy.stats import beta

from modelyard.control.traffic.guard.counts import Arms, Counts
from modelyard.control.traffic.guard.decision import Verdict, decide
from modelyard.control.traffic.guard.evidence import Evidence, Reading, log_evidence, take
from modelyard.control.traffic.guard.policy import GuardPolicy
from modelyard.domain.sketches import label_key, number_bucket, number_key
from modelyard.inference.routing.sketching import Pairs

LOOK_S = 2.0
SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the canary does otherwise. `turned` of its answers become the last label, `shifted` the next one.

    With `bias`, answers are numbers (normal, 100 ± 10), and the canary's are so much larger.
    """

    name: str
    slower: float = 1.0
    failing: float = 0.0
    turned: float = 0.0
    shifted: float = 0.0
    bias: float | None = None


@dataclass(frozen=True, kw_only=True)
class End:
    """How one canary ended: `rolled back`, `promoted`, `undecided`, after how long and with how many requests."""

    how: str
    seconds: float
    canary: int


def alike(recording: Recording, seed: int, *, requests: int, policy: GuardPolicy) -> bool:
    """Whether a canary that is the same is ever rolled back, looked at all the time and never promoted before."""
    evidence = Evidence(began_at=0.0, looked_at=0.0)
    for now, arms in looks(recording, Change(name="alike"), seed, requests):
        evidence = take(evidence, [Reading(epoch="s-1", split="10", arms=arms)], policy, now=now)
        if max(evidence.peak, log_evidence(evidence, policy)) >= -np.log(policy.level):
            return True
    return False


def canary(recording: Recording, change: Change, seed: int, *, requests: int, policy: GuardPolicy) -> End:
    """One canary at one share, until the guard decides."""
    evidence, now, arms = Evidence(began_at=0.0, looked_at=0.0), 0.0, Arms()
    for now, arms in looks(recording, change, seed, requests):
        evidence = take(evidence, [Reading(epoch="s-1", split="10", arms=arms)], policy, now=now)
        verdict = decide(evidence, policy, step_requests=arms.canary.requests).verdict
        if verdict is not Verdict.WAIT:
            how = "rolled back" if verdict is Verdict.ROLL_BACK else "promoted"
            return End(how=how, seconds=now, canary=arms.canary.requests)
    return End(how="undecided", seconds=now, canary=arms.canary.requests)


def looks(recording: Recording, change: Change, seed: int, requests: int) -> Iterator[tuple[float, Arms]]:
    """Time and cumulative counts at each look. Begins anywhere in the recording, which goes round."""
    rng = np.random.default_rng(seed)
    at = (rng.integers(len(recording)) + np.arange(requests)) % len(recording)
    gaps = np.diff(recording.arrived[at], prepend=recording.arrived[at[0]])
    arrived = np.cumsum(np.maximum(gaps, 0.0))
    is_canary = rng.random(requests) < SHARE
    took = recording.took[at] * np.where(is_canary, change.slower, 1.0)
    failed = is_canary & (rng.random(requests) < change.failing)
    keys = _answers(recording.label[at], change, is_canary, rng)
    done = arrived + took
    order = np.argsort(done, kind="stable")
    ends = np.searchsorted(done[order], LOOK_S * np.arange(1, int(done.max() / LOOK_S) + 2), side="right")
    pairs, seen, begin = Pairs(2, draw=random.Random(seed).random), Arms(), 0
    for number, end in enumerate(ends):
        now, begin = order[begin:end], end
        for row in now[~failed[now]].tolist():
            pairs.offer(int(is_canary[row]), (arrived[row],), done[row])
        sides = []
        for side in (0, 1):
            rows = now[is_canary[now] == side]
            sides.append(_counts(rows, failed, keys[rows[~failed[rows]]]))
        seen = seen.plus(Arms(stable=sides[0], canary=sides[1]))
        yield (number + 1) * LOOK_S, _timed(seen, pairs)


def interval(events: int, runs: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper and Pearson 1934)."""
    low = 0.0 if events == 0 else float(beta.ppf(0.025, events, runs - events + 1))
    high = 1.0 if events == runs else float(beta.ppf(0.975, events + 1, runs - events))
    return low, high


def _answers(labels: np.ndarray, change: Change, is_canary: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    chance = rng.random(len(labels))
    if change.bias is not None:
        values = rng.normal(100, 10, len(labels)) + np.where(is_canary, change.bias, 0.0)
        return np.array([number_key(number_bucket(float(value))) for value in values])
    labels = np.where(is_canary & (chance < change.turned), labels.max(), labels)
    labels = np.where(is_canary & (chance < change.shifted), (labels + 1) % (labels.max() + 1), labels)
    names = np.array([label_key(str(index)) for index in range(labels.max() + 1)])
    return names[labels]


def _counts(rows: np.ndarray, failed: np.ndarray, keys: np.ndarray) -> Counts:
    kinds, times = np.unique(keys, return_counts=True)
    return Counts(
        requests=len(rows),
        failures=int(failed[rows].sum()),
        predictions={str(kind): int(count) for kind, count in zip(kinds, times, strict=True)},
    )


def _timed(arms: Arms, pairs: Pairs) -> Arms:
    """The same with the latencies so far."""
    stable, canary = ({str(bucket): count for bucket, count in held.items()} for held in pairs.latency)
    return Arms(stable=replace(arms.stable, latency=stable), canary=replace(arms.canary, latency=canary))
