"""From the servers' reports to readings of both arms."""

from guard_simulated import Behaviour, Weather, drawn
from numpy.random import default_rng

from modelyard.control.traffic.guard.counts import Arms, Counts
from modelyard.control.traffic.guard.evidence import Evidence, Reading
from modelyard.control.traffic.guard.keeping import Canary, plain
from modelyard.control.traffic.guard.loop import policy_of
from modelyard.control.traffic.guard.reading import epochs_over, readings_of, split_of
from modelyard.domain.rollout import Rollout, Watched
from modelyard.domain.routing import ServerReport
from modelyard.domain.sketches import Sketch
from modelyard.foundation.settings import GuardSettings

CANARY = Canary(project="default", service="iris", revision=12, stable=9)


def test_a_rollout_has_the_margins_of_the_platform_but_for_those_that_it_names() -> None:
    settings = GuardSettings(error_margin=0.03, latency_margin=0.7)
    policy = policy_of(Rollout(margins={Watched.ERRORS: 0.2, Watched.PREDICTIONS: 0.4}), settings)
    assert (policy.error_margin, policy.latency_margin, policy.prediction_margin) == (0.2, 0.7, 0.4)


def sketch(revision: int, *, epoch: str = "a-1", split: str = "9=90,12=10", service: str = "iris") -> Sketch:
    return Sketch(
        project="default",
        service=service,
        revision=revision,
        epoch=epoch,
        split=split,
        requests=revision,
        failures=1,
        latency=((40, 3),),
        predictions=(("=cat", 2),),
    )


def report(*sketches: Sketch, server: str = "s-0") -> ServerReport:
    return ServerReport(server=server, pid=1, started_at=0.0, table_revision=1, sketches=sketches)


def test_shares_are_written_as_the_servers_write_them() -> None:
    assert split_of(CANARY, 10) == "9=90,12=10"
    assert split_of(Canary(project="p", service="s", revision=2, stable=3), 50) == "2=50,3=50"


def test_each_epoch_of_these_two_revisions_is_a_reading_with_its_sides_kept_apart() -> None:
    reports = [
        report(sketch(9), sketch(12), sketch(9, service="other"), sketch(12, service="other")),
        report(sketch(12, epoch="b-4", split="9=50,12=50"), sketch(9, epoch="b-4", split="9=50,12=50"), server="s-1"),
    ]
    first, second = readings_of(CANARY, reports)
    assert (first.epoch, first.split) == ("a-1", "9=90,12=10")
    assert (second.epoch, second.split) == ("b-4", "9=50,12=50")
    assert (first.arms.stable.requests, first.arms.canary.requests) == (9, 12)
    assert first.arms.canary == Counts(requests=12, failures=1, latency={"40": 3}, predictions={"=cat": 2})


def test_an_epoch_with_another_revision_or_one_side_only_is_no_reading() -> None:
    assert readings_of(CANARY, [report(sketch(9))]) == ()
    assert readings_of(CANARY, [report(sketch(9), sketch(11))]) == ()
    assert readings_of(CANARY, [report(sketch(9), sketch(12), sketch(11))]) == ()


def test_an_epoch_is_over_when_its_process_tells_of_later_ones_only() -> None:
    rng = default_rng(1)
    arms = Arms(stable=drawn(rng, 5, Weather(), Behaviour()), canary=drawn(rng, 5, Weather(), Behaviour()))
    evidence = Evidence(began_at=0.0, looked_at=0.0, seen=dict.fromkeys(("a-1", "a-2", "b-7", "c-1"), arms))
    told = [Reading(epoch=epoch, split="x", arms=arms) for epoch in ("a-2", "a-3", "b-7")]
    assert epochs_over(evidence, told) == ["a-1"]  # c is silent, and may be heard again


def test_what_is_infinite_is_null_for_history() -> None:
    assert plain({"low": float("-inf"), "rows": [{"high": float("inf"), "n": 3}]}) == {
        "low": None,
        "rows": [{"high": None, "n": 3}],
    }
