"""Jobs: every pair of state and trigger, what ends a job, and how long is waited between attempts."""

from datetime import timedelta
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.domain.errors.platform import Conflict
from modelyard.domain.jobs import MOST_LOSSES, MOVES, Failure, JobSpec, JobState, JobTrigger, judge, move, pause

SPEC = JobSpec(kind="search", attempts=3, pause_s=2.0, longest_pause_s=10.0)


@pytest.mark.parametrize(("state", "trigger"), list(product(JobState, JobTrigger)))
def test_every_pair_moves_by_the_table_or_is_refused_with_what_is_possible(
    state: JobState, trigger: JobTrigger
) -> None:
    if (state, trigger) in MOVES:
        assert move(state, trigger) is MOVES[state, trigger]
        return
    with pytest.raises(Conflict) as refused:
        move(state, trigger)
    possible = [t.value for (s, t) in MOVES if s is state]
    assert refused.value.hint == f"possible from here: {', '.join(possible) or 'nothing'}"


def test_a_final_job_moves_by_a_persons_retry_alone_and_success_never() -> None:
    for state in JobState:
        triggers = {t for (s, t) in MOVES if s is state}
        if state is JobState.SUCCEEDED:
            assert not triggers
        elif state.is_final:
            assert triggers == {JobTrigger.RETRY}
        else:
            assert JobTrigger.CANCEL in triggers
            assert JobTrigger.RETRY not in triggers


def test_only_a_running_job_gets_an_outcome() -> None:
    outcomes = (JobState.SUCCEEDED, JobState.FAILED, JobState.DEAD)
    assert {s for (s, _), after in MOVES.items() if after in outcomes} == {JobState.RUNNING}


def test_every_state_can_be_reached_from_a_submitted_job() -> None:
    reached, before = {JobState.QUEUED, JobState.SCHEDULED}, set()
    while reached != before:
        before = set(reached)
        reached |= {after for (state, _), after in MOVES.items() if state in reached}
    assert reached == set(JobState)


def test_a_failure_is_tried_again_until_the_last_attempt() -> None:
    seen = [judge(SPEC, Failure.ERROR, failed=failed, lost=0) for failed in (1, 2, 3)]
    assert [each.trigger for each in seen] == [JobTrigger.TRY_LATER, JobTrigger.TRY_LATER, JobTrigger.GIVE_UP]
    assert [each.after for each in seen[:2]] == [timedelta(seconds=2), timedelta(seconds=4)]


def test_what_cannot_be_done_is_not_tried_again() -> None:
    assert judge(SPEC, Failure.REFUSED, failed=1, lost=0).trigger is JobTrigger.REFUSE


def test_a_lost_worker_is_no_attempt_of_the_job_but_is_not_borne_for_ever() -> None:
    assert judge(SPEC, Failure.LOST, failed=2, lost=MOST_LOSSES - 1).trigger is JobTrigger.RELEASE
    assert judge(SPEC, Failure.LOST, failed=0, lost=MOST_LOSSES).trigger is JobTrigger.GIVE_UP


@given(st.floats(0.001, 1e3), st.floats(0.001, 1e5))
def test_pauses_grow_and_are_bounded(first: float, longest: float) -> None:
    spec = JobSpec(kind="search", pause_s=first, longest_pause_s=longest)
    pauses = [pause(spec, failed=failed) for failed in range(1, 40)]
    assert all(before <= after for before, after in pairwise(pauses))
    assert pauses[-1] <= timedelta(seconds=longest)
