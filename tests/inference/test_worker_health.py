"""What is decided about isolated workers: budgets, the circuit, outliers. No clock and no sockets."""

import random

from modelyard.inference.routing.workers.health import (
    Breaker,
    HedgeBudget,
    Record,
    RetryBudget,
    Typical,
    is_lone_failure,
    may_set_aside,
    why_outlier,
)


def record(*, runs: int = 20, failed: float = 0.0, ratio: float = 1.0, seed: int = 1) -> Record:
    made, chance = Record(), random.Random(seed)
    for _ in range(runs):
        made.ran(failed=chance.random() < failed, ratio=ratio)
    return made


def test_repeats_stop_while_everything_fails_and_come_back_with_success() -> None:
    budget = RetryBudget(0.1)
    repeated = 0
    for _ in range(1000):
        budget.failed()
        repeated += budget.allows
    assert repeated <= 5
    for _ in range(60):
        budget.succeeded()
    assert budget.allows


def test_at_a_steady_share_of_failures_repeats_stay_within_a_fifth() -> None:
    for share in (0.01, 0.05, 0.1, 0.3, 0.9):
        budget, chance, repeats, requests = RetryBudget(0.1), random.Random(7), 0, 5000
        for _ in range(requests):
            if chance.random() >= share:
                budget.succeeded()
                continue
            budget.failed()
            if budget.allows:
                repeats += 1
                budget.succeeded() if chance.random() >= share else budget.failed()
        assert (requests + repeats) / requests <= 1.2, share


def test_hedges_stay_within_their_share() -> None:
    budget, hedges = HedgeBudget(0.05), 0
    for _ in range(10_000):
        budget.ran()
        hedges += budget.take()
    assert 450 <= hedges <= 500


def test_the_circuit_opens_after_failures_in_a_row_and_closes_with_the_first_success() -> None:
    breaker = Breaker(4)
    told = [breaker.failed() for _ in range(6)]
    assert told == [False, False, False, True, False, False]
    assert breaker.is_open
    assert breaker.succeeded()
    assert not breaker.is_open
    assert not breaker.succeeded()


def test_a_success_between_failures_keeps_the_circuit_closed() -> None:
    breaker = Breaker(3)
    for _ in range(100):
        breaker.failed()
        breaker.failed()
        breaker.succeeded()
    assert not breaker.is_open


def test_median_and_tail_are_those_of_the_runs() -> None:
    typical, chance = Typical(), random.Random(3)
    for _ in range(20_000):
        typical.record(1, chance.uniform(0.010, 0.020))
    assert 0.8 < (typical.ratio(1, 0.015) or 0) < 1.25
    assert 0.017 < (typical.tail_s(1) or 0) < 0.022
    assert typical.ratio(2, 0.015) is None


def test_one_slow_worker_of_three_moves_the_median_little() -> None:
    typical, chance = Typical(), random.Random(3)
    for _ in range(6000):
        slow = chance.random() < 0.33
        typical.record(1, chance.uniform(0.009, 0.011) * (10 if slow else 1))
    assert (typical.ratio(1, 0.1) or 0) > 5


def test_a_worker_that_is_slow_where_its_peers_are_not_is_an_outlier() -> None:
    peers = [record(), record()]
    assert why_outlier(record(ratio=10.0), peers, slow_factor=3) == "slow"
    assert why_outlier(record(ratio=2.0), peers, slow_factor=3) is None
    everyone_is = [record(ratio=10.0), record(ratio=10.0)]
    assert why_outlier(record(ratio=10.0), everyone_is, slow_factor=3) is None


def test_a_worker_that_fails_where_its_peers_do_not_is_an_outlier() -> None:
    assert why_outlier(record(failed=1.0), [record(), record()], slow_factor=3) == "failing"
    assert why_outlier(record(failed=1.0), [record(failed=1.0)], slow_factor=3) is None
    assert why_outlier(record(failed=1.0), [], slow_factor=3) is None
    assert why_outlier(record(failed=1.0, runs=3), [record()], slow_factor=3) is None


def test_bad_input_sets_nobody_aside() -> None:
    """It fails on every worker, so that none of them is alone in failing."""
    workers = [record(failed=0.9, seed=seed) for seed in range(3)]
    for one in workers:
        others = [each for each in workers if each is not one]
        assert why_outlier(one, others, slow_factor=3) is None
        assert not is_lone_failure(others)


def test_never_more_than_half_of_the_workers_are_set_aside() -> None:
    assert not may_set_aside(0, 1)
    assert may_set_aside(0, 2)
    assert not may_set_aside(1, 2)
    assert may_set_aside(0, 3)
    assert not may_set_aside(1, 3)
    assert may_set_aside(1, 4)
