"""Models that jobs have made: which still have to become versions, and what became of them."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import String, cast, select, update

from modelyard.control.jobs import store
from modelyard.control.jobs.tables import jobs
from modelyard.control.jobs.values import Job
from modelyard.control.records import Transaction
from modelyard.domain.jobs import JobState

WAITING: Final = "waiting"


def candidates_waiting(tx: Transaction) -> list[tuple[Job, int]]:
    """Jobs that succeeded, each with the place of a candidate that nobody has taken yet; the oldest first."""
    query = (
        select(jobs)
        .where(
            jobs.c.state == JobState.SUCCEEDED.value,
            cast(jobs.c.candidates, String).contains(f'"{WAITING}"'),  # so that settled jobs stay in the database
        )
        .order_by(jobs.c.ended_at)
    )
    return [
        (job, place)
        for job in (store.read(row) for row in tx.execute(query).mappings())
        for place, each in enumerate(job.candidates)
        if each["state"] == WAITING
    ]


def settle_candidate(tx: Transaction, number: str, place: int, outcome: Mapping[str, Any]) -> None:
    """Write to the job what became of one: its version, or why it was refused."""
    job = store.find(tx, number, lock=True)
    candidates = [dict(each) for each in job.candidates]
    candidates[place].update(outcome)
    tx.execute(update(jobs).where(jobs.c.id == number).values(candidates=candidates))
    store.note(tx, job, f"candidate_{outcome['state']}", actor=store.KEEPER, state=job.state, why=dict(outcome))
