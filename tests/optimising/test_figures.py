"""Intervals hold as often as they say."""

import numpy as np
import pytest

from modelyard.domain.errors.platform import JobFailed
from modelyard.processes.jobs.optimising.figures import expected, ratio

TIMES = 2000


def test_the_interval_of_rounds_to_come_holds_in_nineteen_of_twenty_cases():
    chance = np.random.default_rng(0)
    held = 0
    for _ in range(TIMES):
        rounds = np.exp(chance.normal(1.0, 0.3, 12))
        span = expected(rounds[:6].tolist(), to_come=6)
        held += span.low <= float(np.exp(np.log(rounds[6:]).mean())) <= span.high
    assert held / TIMES == pytest.approx(0.95, abs=0.02)


def test_the_interval_of_a_ratio_holds_in_nineteen_of_twenty_cases():
    chance = np.random.default_rng(1)
    held = 0
    for _ in range(TIMES):
        common = chance.normal(0, 1, 6)
        before = np.exp(common + np.log(3.0) + chance.normal(0, 0.1, 6))
        after = np.exp(common + chance.normal(0, 0.1, 6))
        span = ratio(before.tolist(), after.tolist())
        held += span.low <= 3.0 <= span.high
    assert held / TIMES == pytest.approx(0.95, abs=0.02)


def test_too_few_rounds_say_nothing():
    with pytest.raises(JobFailed, match="2 rounds were measured"):
        expected([1.0, 2.0])
