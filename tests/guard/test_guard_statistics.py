"""The statistics of the guard: exact where they can be, and true to their level where they can only be simulated."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from guard_simulated import Behaviour, Weather, canary, drawn
from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.traffic.guard import odds
from modelyard.control.traffic.guard.bounds import quantile_buckets, seen_quantile, share_bounds
from modelyard.control.traffic.guard.counts import Arms
from modelyard.control.traffic.guard.decision import Verdict, decide
from modelyard.control.traffic.guard.evidence import Evidence, Reading, forget, log_evidence, slower_bucket, take
from modelyard.control.traffic.guard.findings import visible_excess
from modelyard.control.traffic.guard.policy import GuardPolicy
from modelyard.domain.rollout import Watched
from modelyard.domain.sketches import (
    latency_bucket,
    latency_edge,
    number_bucket,
    number_edge,
)
from modelyard.foundation.documents import from_plain, to_plain

POLICY = GuardPolicy()


def expected(events: int, canary: int, everything: int, *, tilt: float, null: float = 0.0) -> float:
    """The expected e-value when the odds ratio is exp(tilt)."""
    ways = [
        math.comb(canary, k) * math.comb(everything - canary, events - k) * math.exp(tilt * k)
        for k in range(events + 1)
        if k <= canary and events - k <= everything - canary
    ]
    values = [
        math.exp(odds.log_average(odds.block_ratios(k, canary, all_events=events, everything=everything, null=null)))
        for k in range(events + 1)
        if k <= canary and events - k <= everything - canary
    ]
    return sum(way * value for way, value in zip(ways, values, strict=True)) / sum(ways)


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_an_e_value_has_the_expectation_one_under_the_null_and_less_when_the_canary_is_better(
    canary_n: int, stable_n: int, data: st.DataObject
) -> None:
    events = data.draw(st.integers(0, canary_n + stable_n))
    null = data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    assert expected(events, canary_n, canary_n + stable_n, tilt=null, null=null) == pytest.approx(1.0)
    assert expected(events, canary_n, canary_n + stable_n, tilt=null - 0.5, null=null) <= 1 + 1e-9


@given(st.integers(1, 10), st.integers(1, 10), st.data())
def test_one_event_less_of_the_canary_never_adds_evidence(canary_n: int, stable_n: int, data: st.DataObject) -> None:
    events = data.draw(st.integers(1, canary_n))
    of_stable = data.draw(st.integers(0, stable_n))
    with_it = odds.block_ratios(events, canary_n, all_events=events + of_stable, everything=canary_n + stable_n)
    without = odds.block_ratios(events - 1, canary_n, all_events=events - 1 + of_stable, everything=canary_n + stable_n)
    assert np.all(with_it >= without - 1e-9)


def test_log_factorials_are_exact_small_and_large() -> None:
    numbers = np.array([0, 1, 5, 254, 255, 256, 1000, 10**6])
    assert odds.log_factorials(numbers) == pytest.approx([math.lgamma(n + 1) for n in numbers.tolist()], rel=1e-13)


def test_a_block_of_one_arm_says_nothing() -> None:
    assert not odds.block_ratios(3, 20, all_events=3, everything=20).any()
    assert not odds.block_ratios(0, 5, all_events=0, everything=50).any()


def test_the_bounds_of_a_share_hold_at_all_looks_together() -> None:
    rng = np.random.default_rng(5)
    missed = 0
    for _ in range(200):
        hits = rng.random(400) < 0.1
        looks = zip(np.cumsum(hits), range(1, 401), strict=True)
        missed += any(
            not low <= 0.1 <= high
            for low, high in (share_bounds(int(k), n, level=0.05) for k, n in itertools.islice(looks, 0, None, 8))
        )
    assert missed <= 10


def test_the_bounds_of_a_share_without_events_shrink_with_the_requests() -> None:
    assert share_bounds(0, 0, level=0.05) == (0.0, 1.0)
    assert share_bounds(0, 1000, level=0.05)[1] == pytest.approx(0.00466, abs=1e-5)
    assert share_bounds(1000, 1000, level=0.05)[0] == pytest.approx(0.99534, abs=1e-5)


def test_the_buckets_of_a_quantile_hold_the_true_one() -> None:
    rng = np.random.default_rng(7)
    missed = 0
    for _ in range(100):
        counts: dict[int, int] = {}
        for value in np.exp(rng.normal(math.log(0.02), 0.5, 500)):
            bucket = latency_bucket(float(value))
            counts[bucket] = counts.get(bucket, 0) + 1
        ordered = sorted(counts.items())
        low, seen, high = quantile_buckets(ordered, 0.95, level=0.05)
        assert low < seen <= high
        assert seen == seen_quantile(ordered, 0.95)
        missed += not low < latency_bucket(0.02 * math.exp(0.5 * 1.6449)) <= high
    assert missed <= 5


@given(st.floats(1e-5, 100))
def test_a_latency_lies_below_its_edge_and_above_the_one_before(seconds: float) -> None:
    bucket = latency_bucket(seconds)
    assert latency_edge(bucket - 1) <= seconds * (1 + 1e-9)
    assert seconds <= latency_edge(bucket) * (1 + 1e-9)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_buckets_of_numbers_keep_their_order(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert number_bucket(low) <= number_bucket(high)
    assert number_edge(number_bucket(high)) == pytest.approx(high, rel=0.012, abs=1e-9)


def test_what_is_tolerated_of_latency_errs_in_the_canarys_favour() -> None:
    for seconds in (0.0001, 0.002, 0.05, 3.0):
        bucket = latency_bucket(seconds)
        assert latency_edge(slower_bucket(bucket, POLICY)) >= 1.2 * latency_edge(bucket) + 0.001


def arms(seed: int, requests: int = 100) -> Arms:
    """Counts of both arms, nothing wrong."""
    rng = np.random.default_rng(seed)
    return Arms(
        stable=drawn(rng, 9 * requests, Weather(), Behaviour()), canary=drawn(rng, requests, Weather(), Behaviour())
    )


def test_a_reading_that_comes_twice_or_late_counts_once() -> None:
    fresh = Evidence(began_at=0.0, looked_at=0.0)
    first, then = arms(1), arms(1).plus(arms(2))
    readings = [Reading(epoch="a/1", split="x", arms=each) for each in (first, then)]
    once = take(take(fresh, readings[:1], POLICY, now=1), readings[1:], POLICY, now=2)
    again = once
    for reading in (readings[1], readings[0], readings[1]):
        again = take(again, [reading], POLICY, now=2)
    assert again == once
    assert once.counted == then


def test_a_server_that_starts_again_is_a_new_epoch_and_adds_to_what_is_known() -> None:
    evidence = Evidence(began_at=0.0, looked_at=0.0)
    evidence = take(evidence, [Reading(epoch="a/1", split="x", arms=arms(1))], POLICY, now=1)
    evidence = take(evidence, [Reading(epoch="a/2", split="x", arms=arms(2))], POLICY, now=2)
    assert evidence.counted == arms(1).plus(arms(2))
    assert forget(evidence, ["a/1"]).seen.keys() == {"a/2"}


def test_evidence_survives_the_records_to_the_last_digit() -> None:
    evidence = Evidence(began_at=0.0, looked_at=0.0)
    for look in range(1, 6):
        reading = Reading(epoch=f"a/{look}", split="x", arms=arms(look, requests=15))
        evidence = take(evidence, [reading], POLICY, now=look)
    kept = from_plain(to_plain(evidence), Evidence)
    assert kept == evidence
    assert log_evidence(kept, POLICY) == log_evidence(evidence, POLICY)


def test_requests_of_different_shares_never_meet_in_one_block() -> None:
    """A slow hour at 90/10 and a quick one at 50/50: poured together the canary would look quick, or slow."""
    evidence = Evidence(began_at=0.0, looked_at=0.0)
    rng = np.random.default_rng(3)
    slow, quick = Weather(latency_s=0.2), Weather(latency_s=0.01)
    seen = {"10": Arms(), "50": Arms()}
    for look in range(1, 120):
        split, weather, numbers = ("10", slow, (90, 10)) if look % 2 else ("50", quick, (50, 50))
        more = Arms(
            stable=drawn(rng, numbers[0], weather, Behaviour()), canary=drawn(rng, numbers[1], weather, Behaviour())
        )
        seen[split] = seen[split].plus(more)
        evidence = take(evidence, [Reading(epoch=split, split=split, arms=seen[split])], POLICY, now=look)
    assert decide(evidence, POLICY, step_requests=1000).verdict is not Verdict.ROLL_BACK


@pytest.mark.parametrize("drifts", [False, True], ids=["steady", "drifting"])
def test_equal_versions_are_not_rolled_back_though_looked_at_all_the_time(drifts: bool) -> None:
    ends = [canary(seed, looks=60, drifts=drifts)[1].verdict for seed in range(30)]
    assert ends.count(Verdict.ROLL_BACK) <= 1  # the level is 5 %; measured over 200 and more by benchmarks.guard


@pytest.mark.parametrize(
    ("behaviour", "guilty"),
    [
        (Behaviour(failing=0.02), Watched.ERRORS),
        (Behaviour(slowness=1.5), Watched.LATENCY),
        (Behaviour(wrong=0.15), Watched.PREDICTIONS),
    ],
    ids=["failing", "slow", "quietly wrong"],
)
def test_a_worse_version_is_rolled_back_and_the_reason_names_what_is_worse(
    behaviour: Behaviour, guilty: Watched
) -> None:
    for seed in range(5):
        _, decision, _ = canary(seed, behaviour)
        assert decision.verdict is Verdict.ROLL_BACK
        assert max(decision.rows, key=lambda row: row.evidence).thing is guilty
        assert "evidence" in decision.text
        assert "n " in decision.text


def test_a_bias_of_a_number_is_seen() -> None:
    _, decision, _ = canary(1, Behaviour(bias=5.0), numeric=True, looks=300)
    assert decision.verdict is Verdict.ROLL_BACK
    assert "above p" in decision.text


def test_a_good_version_goes_on_when_the_margins_are_excluded() -> None:
    _, decision, evidence = canary(3, looks=400)
    assert decision.verdict is Verdict.ADVANCE
    assert evidence.counted.canary.requests > POLICY.least_requests
    assert "is excluded" in decision.text


def test_fifty_requests_a_day_get_an_honest_not_yet() -> None:
    _, decision, _ = canary(2, looks=14, rate=50, every_s=86_400)
    assert decision.verdict is Verdict.WAIT
    _, decision, _ = canary(2, looks=60, rate=50, every_s=86_400)
    assert decision.verdict is Verdict.WAIT
    assert "not yet" in decision.text
    errors = next(row for row in decision.rows if row.thing is Watched.ERRORS)
    assert errors.days is not None
    assert errors.days > 10
    assert errors.visible is not None
    assert errors.visible > POLICY.error_margin


def test_without_traffic_the_guard_waits_and_says_so() -> None:
    decision = decide(Evidence(began_at=0.0, looked_at=0.0), POLICY, step_requests=0)
    assert decision.verdict is Verdict.WAIT
    assert decision.rows == ()
    assert "0 requests of the canary" in decision.text


def test_at_the_greatest_number_of_requests_it_goes_on_and_says_what_it_could_have_seen() -> None:
    strict = replace(POLICY, prediction_margin=0.001, most_requests=400)
    _, decision, _ = canary(4, policy=strict, looks=100)
    assert decision.verdict is Verdict.ADVANCE
    assert "would have been seen" in decision.text


def test_only_what_is_watched_is_judged() -> None:
    only_errors = replace(POLICY, watch=(Watched.ERRORS,))
    _, decision, _ = canary(1, Behaviour(slowness=3.0), policy=only_errors, looks=100)
    assert decision.verdict is not Verdict.ROLL_BACK
    assert {row.thing for row in decision.rows} == {Watched.ERRORS}


def test_harm_that_was_shown_is_not_taken_back() -> None:
    _, decision, evidence = canary(1, Behaviour(failing=0.05))
    assert decision.verdict is Verdict.ROLL_BACK
    calm = replace(evidence, ratios={})
    assert decide(calm, POLICY, step_requests=1000).verdict is Verdict.ROLL_BACK


def test_the_smallest_visible_difference_falls_with_the_requests() -> None:
    sizes = [visible_excess(9 * n, n, 0.01, 8.0) for n in (100, 1000, 10_000)]
    assert all(size is not None for size in sizes)
    assert sizes == sorted(sizes, reverse=True)  # type: ignore[type-var]
    assert visible_excess(9, 1, 0.5, 8.0) is None
