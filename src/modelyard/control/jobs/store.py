"""Read and write jobs. Every change of state is made here, with its history entry, in the caller's unit of work."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import RowMapping, insert, select, update

from modelyard.control.history import append
from modelyard.control.identity import Actor, Principal, missing, revoke_key, system_actor
from modelyard.control.jobs.tables import job_attempts, job_blobs, jobs
from modelyard.control.jobs.values import Attempt, Job
from modelyard.control.records import Transaction
from modelyard.domain.access import Scope, Verb
from modelyard.domain.errors.base import quote
from modelyard.domain.jobs import Failure, JobSpec, JobState, JobTrigger, judge, move
from modelyard.foundation.documents import from_plain

TOPIC: Final = "jobs"
ITSELF: Final = Principal(key_id="jobs", name="jobs", scopes=(Scope(Verb.ADMIN),), kind="system")
KEEPER: Final = system_actor("jobs")
_PAST: Final = {
    JobTrigger.COME_DUE: "due",
    JobTrigger.CLAIM: "started",
    JobTrigger.SUCCEED: "succeeded",
    JobTrigger.RELEASE: "given_back",
    JobTrigger.TRY_LATER: "postponed",
    JobTrigger.REFUSE: "failed",
    JobTrigger.GIVE_UP: "given_up",
    JobTrigger.CANCEL: "cancelled",
    JobTrigger.RETRY: "retried",
}
"""How history calls what happened."""


def find(tx: Transaction, number: str, *, lock: bool = False) -> Job:
    """The job of this id, or `NotFound`; with `lock`, nobody else changes it before the end of the unit of work."""
    query = select(jobs).where(jobs.c.id == number)
    row = tx.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        raise missing(f"job {quote(number)}")
    return read(row)


def read(row: RowMapping) -> Job:
    """The job in a row of the table."""
    plain = {name: row[name] for name in row if name not in ("spec", "actor", "state", "priority")}
    return Job(
        **plain,
        state=JobState(row["state"]),
        spec=from_plain(row["spec"], JobSpec),
        actor=from_plain(row["actor"], Actor),
    )


def attempts_of(tx: Transaction, number: str) -> list[Attempt]:
    """All attempts of a job, the first one first."""
    rows = tx.execute(select(job_attempts).where(job_attempts.c.job == number).order_by(job_attempts.c.token))
    return [Attempt(**{name: row[name] for name in row if name != "job"}) for row in rows.mappings()]


def change(
    tx: Transaction,
    job: Job,
    trigger: JobTrigger,
    *,
    actor: Actor,
    values: Mapping[str, Any] | None = None,
    why: Mapping[str, Any] | None = None,
) -> JobState:
    """Move a job by the table, with its history entry and event; `values` are further columns.

    Raises:
        Conflict: it cannot move so from where it is.
    """
    state = move(job.state, trigger)
    ended = {"ended_at": tx.now if state.is_final else None}
    tx.execute(update(jobs).where(jobs.c.id == job.id).values(state=state.value, **ended, **(values or {})))
    note(tx, job, _PAST[trigger], actor=actor, state=state, why=why)
    tx.wake(TOPIC)
    if job.key_id and state is not JobState.RUNNING:
        revoke_key(tx, ITSELF, job.key_id, journal=append)
        tx.execute(update(jobs).where(jobs.c.id == job.id).values(key_id=""))
    return state


def note(
    tx: Transaction, job: Job, what: str, *, actor: Actor, state: JobState, why: Mapping[str, Any] | None = None
) -> None:
    """The history entry of something that happened to a job."""
    payload = {"job": job.id, "kind": job.kind, "state": state.value, "attempt": job.token, **(why or {})}
    if job.service:
        payload["service"] = job.service
    append(tx, actor=actor, action=f"job.{what}", subject=f"job/{job.id}", project=job.project, payload=payload)


def begin_attempt(tx: Transaction, job: Job, *, token: int, worker: str) -> None:
    """A claim begins."""
    tx.execute(
        insert(job_attempts).values(job=job.id, token=token, worker=worker, began_at=tx.now, how="running", log="")
    )


def end_attempt(tx: Transaction, job: Job, how: str, *, error: Mapping[str, Any] | None = None, log: str = "") -> None:
    """The present claim of a job ends."""
    this = (job_attempts.c.job == job.id) & (job_attempts.c.token == job.token) & job_attempts.c.ended_at.is_(None)
    tx.execute(update(job_attempts).where(this).values(ended_at=tx.now, how=how, error=error, log=log))


def fail(
    tx: Transaction,
    job: Job,
    failure: Failure,
    *,
    actor: Actor,
    error: Mapping[str, Any],
    log: str = "",
) -> JobState:
    """The present attempt of a job failed: it is tried again, refused, or a dead letter."""
    failed, lost = job.failed + (failure is not Failure.LOST), job.lost + (failure is Failure.LOST)
    verdict = judge(job.spec, failure, failed=failed, lost=lost)
    end_attempt(tx, job, failure.value, error=error, log=log)
    due: datetime = tx.now + verdict.after if verdict.after > timedelta() else job.due_at
    values = {"failed": failed, "lost": lost, "error": dict(error), "worker": "", "due_at": due}
    why = {"failure": failure.value, "code": error.get("code", ""), "detail": str(error.get("detail", ""))[:300]}
    return change(tx, job, verdict.trigger, actor=actor, values=values, why=why)


def belongs(tx: Transaction, job: Job, sha256: str, size_bytes: int) -> None:
    """A stored file belongs to this job from now on."""
    this = (job_blobs.c.sha256 == sha256) & (job_blobs.c.job == job.id) & (job_blobs.c.project == job.project)
    if tx.scalar(select(job_blobs.c.sha256).where(this)) is None:
        tx.execute(
            insert(job_blobs).values(sha256=sha256, job=job.id, project=job.project, size_bytes=size_bytes, at=tx.now)
        )
