"""How many workers, and why: bounds, targets, patience on the way down, zero and back, hours of the week."""

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.domain.scaling import Decision, Load, Scaling, Thought, Window, decide

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)  # a Wednesday
BY_FLIGHT = Scaling(target_in_flight=8, stabilise_s=60, cooldown_s=0)


def now_with(load: Load, *, present: int = 1, scaling: Scaling = BY_FLIGHT, bounds=(1, 8), **more) -> Decision:
    return decide(scaling, bounds=bounds, present=present, load=load, now=more.pop("now", NOON), **more)


@pytest.mark.parametrize(("in_flight", "wanted"), [(0, 1), (7.9, 1), (8.1, 2), (16, 2), (17, 2), (100, 2)])
def test_the_load_in_flight_asks_for_workers_within_a_doubling(in_flight: float, wanted: int) -> None:
    assert now_with(Load(in_flight=in_flight)).wanted == wanted


def test_a_great_load_is_met_in_doublings_up_to_the_most() -> None:
    present, seen = 1, []
    for _ in range(5):
        present = now_with(Load(in_flight=1000), present=present).wanted
        seen.append(present)
    assert seen == [2, 4, 8, 8, 8]


def test_the_reason_names_the_figures() -> None:
    decision = now_with(Load(in_flight=21.4), present=3)
    assert decision.wanted == 3
    assert decision.reason == "21.4 in flight ÷ 8 a worker"
    assert decision.inputs["in_flight"] == 21.4


def test_the_rate_and_the_latency_are_targets_too() -> None:
    rate = Scaling(target_rate=100, cooldown_s=0)
    assert now_with(Load(rate=350), present=2, scaling=rate).wanted == 4
    latency = Scaling(target_latency_ms=20, cooldown_s=0)
    assert now_with(Load(latency_ms=30), present=2, scaling=latency).wanted == 3
    assert now_with(Load(latency_ms=21.9), present=2, scaling=latency).wanted == 2, "within the tolerance"


def test_several_targets_are_met_by_the_highest() -> None:
    both = Scaling(target_in_flight=8, target_rate=100, cooldown_s=0)
    assert now_with(Load(in_flight=40, rate=10), present=4, scaling=both).wanted == 5


def test_a_dip_between_two_waves_takes_nothing_away() -> None:
    thoughts = (Thought(at=NOON.timestamp() - 30, number=4),)
    held = now_with(Load(in_flight=1), present=4, thoughts=thoughts)
    assert held.wanted == 4
    assert "was right within the last 60 s" in held.reason
    later = now_with(Load(in_flight=1), present=4, thoughts=thoughts, now=NOON + timedelta(seconds=31))
    assert later.wanted == 1


def test_a_change_rests_before_the_next() -> None:
    resting = Scaling(target_in_flight=8, cooldown_s=10)
    just = now_with(Load(in_flight=50), scaling=resting, changed_at=NOON.timestamp() - 3)
    assert just.wanted == 1
    assert "rests for 10 s" in just.reason
    assert now_with(Load(in_flight=50), scaling=resting, changed_at=NOON.timestamp() - 11).wanted == 2


def test_a_service_without_requests_goes_to_zero_and_the_first_one_brings_it_back() -> None:
    scaling = Scaling(target_in_flight=8, idle_s=300, stabilise_s=0, cooldown_s=10)
    quiet = {"scaling": scaling, "bounds": (0, 4)}
    assert now_with(Load(quiet_s=299), present=1, **quiet).wanted == 1
    asleep = now_with(Load(quiet_s=300), present=1, **quiet)
    assert (asleep.wanted, asleep.reason) == (0, "no request for 300 s")
    assert now_with(Load(quiet_s=900), present=0, **quiet).wanted == 0
    woken = now_with(Load(waiting=3), present=0, changed_at=NOON.timestamp(), **quiet)
    assert (woken.wanted, woken.reason) == (1, "3 requests wait for a first worker")


def test_hours_of_the_week_have_bounds_of_their_own() -> None:
    office = Window(days=("mon", "tue", "wed", "thu", "fri"), start=time(8), end=time(18), min=3, max=6)
    night = Window(days=("wed",), start=time(22), end=time(6), min=0, max=1, timezone="Europe/Berlin")
    scaling = Scaling(schedule=(office, night), cooldown_s=0, stabilise_s=0)
    at_noon = now_with(Load(), present=2, scaling=scaling)
    assert at_noon.wanted == 3
    assert scaling.is_on
    assert now_with(Load(), present=3, scaling=scaling, now=NOON.replace(hour=19)).wanted == 1
    assert night.holds(datetime(2026, 11, 25, 21, 30, tzinfo=UTC)), "half past ten in Berlin"
    assert night.holds(datetime(2026, 11, 26, 4, 0, tzinfo=UTC)), "still the night of Wednesday"
    assert not night.holds(datetime(2026, 11, 26, 21, 30, tzinfo=UTC))


@given(
    present=st.integers(0, 20),
    in_flight=st.floats(0, 1e6),
    waiting=st.integers(0, 5),
    quiet_s=st.floats(0, 1e6),
    low=st.integers(0, 5),
    more=st.integers(0, 10),
)
def test_a_decision_always_lies_within_its_bounds(present, in_flight, waiting, quiet_s, low, more) -> None:
    load = Load(in_flight=in_flight, waiting=waiting, quiet_s=quiet_s)
    decision = now_with(load, present=present, bounds=(low, low + more))
    assert low <= decision.wanted <= low + more
    assert decision.reason
