"""Traffic on two arms with the clock handed in: an independent coin for each request, rates that may drift."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.control.traffic.guard.counts import Arms, Counts
from modelyard.control.traffic.guard.decision import Decision, Verdict, decide
from modelyard.control.traffic.guard.evidence import Evidence, Reading, take
from modelyard.control.traffic.guard.policy import GuardPolicy
from modelyard.domain.sketches import label_key, latency_bucket, number_bucket, number_key

LABELS = ("setosa", "versicolor", "virginica")


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How a version behaves: share of failures, factor of latency, share of answers turned into the last label."""

    failing: float = 0.0
    slowness: float = 1.0
    wrong: float = 0.0
    bias: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Weather:
    """What both arms have in common at one moment."""

    shares: Sequence[float] = (0.5, 0.3, 0.2)
    latency_s: float = 0.02
    failing: float = 0.0
    numeric: bool = False


def drawn(rng: np.random.Generator, requests: int, weather: Weather, behaviour: Behaviour) -> Counts:
    """Counts of `requests` of one version."""
    failures = int(rng.binomial(requests, 1 - (1 - weather.failing) * (1 - behaviour.failing)))
    latencies = behaviour.slowness * weather.latency_s * np.exp(rng.normal(0, 0.4, requests))
    if weather.numeric:
        values = rng.normal(100, 10, requests - failures) + behaviour.bias
        keys = [number_key(number_bucket(float(value))) for value in values]
    else:
        labels = rng.choice(len(LABELS), requests - failures, p=list(weather.shares))
        turned = rng.random(len(labels)) < behaviour.wrong
        keys = [label_key(LABELS[each]) for each in np.where(turned, len(LABELS) - 1, labels)]
    return Counts(
        requests=requests,
        failures=failures,
        latency=tally(str(latency_bucket(float(each))) for each in latencies),
        predictions=tally(keys),
    )


def tally(keys: object) -> dict[str, int]:
    """How often each key comes."""
    counts: dict[str, int] = {}
    for key in keys:  # type: ignore[attr-defined]
        counts[key] = counts.get(key, 0) + 1
    return counts


def canary(
    seed: int,
    behaviour: Behaviour = Behaviour(),
    *,
    looks: int = 150,
    rate: float = 100.0,
    every_s: float = 2.0,
    drifts: bool = False,
    numeric: bool = False,
    policy: GuardPolicy = GuardPolicy(),  # noqa: B008  (frozen)
) -> tuple[int, Decision, Evidence]:
    """Look after each `every_s` until the guard decides; how many looks that took, the decision and the evidence."""
    rng = np.random.default_rng(seed)
    evidence = Evidence(began_at=0.0, looked_at=0.0)
    seen = Arms()
    for look in range(1, looks + 1):
        swing = math.sin(look / 10) if drifts else 0.0
        weather = Weather(
            shares=(0.5 + 0.2 * swing, 0.3 - 0.2 * swing, 0.2),
            latency_s=0.02 * (1 + 0.8 * abs(swing)) * (20 if drifts and rng.random() < 0.03 else 1),
            failing=0.02 * abs(swing),
            numeric=numeric,
        )
        requests = int(rng.poisson(rate))
        there = int(rng.binomial(requests, 0.1))
        seen = seen.plus(
            Arms(
                stable=drawn(rng, requests - there, weather, Behaviour()),
                canary=drawn(rng, there, weather, behaviour),
            )
        )
        reading = Reading(epoch="server-0/1", split="1=90,2=10", arms=seen)
        evidence = take(evidence, [reading], policy, now=look * every_s)
        decision = decide(evidence, policy, step_requests=seen.canary.requests)
        if decision.verdict is not Verdict.WAIT:
            break
    return look, decision, evidence
