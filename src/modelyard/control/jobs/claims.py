"""What workers do: claim, heartbeat, finish, fail, give back. Every write names the claim's token.

A word under an older token is refused.

One worker has one job. A claim by a worker that still has one says that it lost it: its process was ended, or never got
our answer. So a killed worker's job is taken up again as soon as the next process of that name asks.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import select, update

from modelyard.control.history import append
from modelyard.control.identity import NewKey, create_key, system_actor
from modelyard.control.jobs import store
from modelyard.control.jobs.files import JobFiles
from modelyard.control.jobs.store import ITSELF
from modelyard.control.jobs.tables import job_attempts, jobs
from modelyard.control.jobs.values import Claim, Job, ServiceAddress, Word
from modelyard.control.records import Database, Transaction, emit
from modelyard.domain.access import Scope, Verb
from modelyard.domain.errors.platform import ClaimLost, InvalidRequest, NotFound
from modelyard.domain.job_kinds import KINDS
from modelyard.domain.jobs import Failure, JobState, JobTrigger

_LOG: Final = logging.getLogger(__name__)
_KEY_LIFE: Final = timedelta(days=2)
LOST: Final = {
    "code": "worker_lost",
    "title": "The worker was lost",
    "detail": "nobody heard of the worker any more",
    "hint": "the job is tried again",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceKeys:
    """How the services of jobs are asked: `url` of a service; with a pepper, keys that last as long as a claim."""

    url: Callable[[str, str], str]
    pepper: bytes | None = None

    def address(self, tx: Transaction, job: Job) -> tuple[ServiceAddress, str]:
        """Where this job's service is asked, and the id of the key that was made for it."""
        url = self.url(job.project, job.service)
        if self.pepper is None:
            return ServiceAddress(url=url), ""
        scope = Scope(Verb.INFER, job.project, job.service)
        new = NewKey(name=f"job {job.id}", scopes=(scope,), lifetime=_KEY_LIFE, project=job.project)
        stored, text = create_key(tx, ITSELF, new, pepper=self.pepper, journal=append)
        return ServiceAddress(url=url, key=text), stored.id


class Claims:
    """The workers' side of jobs."""

    def __init__(self, database: Database, files: JobFiles, *, keys: ServiceKeys) -> None:
        self.database = database
        self._files = files
        self._keys = keys

    def claim(self, worker: str) -> Claim | None:
        """The next job for this worker: the highest priority, then the longest due; None when there is none."""
        with self.database.read() as tx:
            if not self._has_work(tx, worker):
                return None
        with self.database.begin() as tx:
            self._drop(tx, worker)
            query = (
                select(jobs)
                .where(jobs.c.state == JobState.QUEUED.value)
                .order_by(jobs.c.priority.desc(), jobs.c.due_at, jobs.c.id)
                .limit(1)
            )
            row = tx.execute(query.with_for_update(skip_locked=True)).mappings().first()
            return None if row is None else self._begin(tx, store.read(row), worker)

    def heartbeat(self, word: Word) -> None:
        """The worker lives; with `progress`, so does its work. `ClaimLost` tells it to end the work."""
        with self.database.begin() as tx:
            job = self._held(tx, word)
            values: dict[str, Any] = {"heard_at": tx.now}
            if word.progress is not None and word.progress != job.progress:
                values |= {"progress": dict(word.progress), "lost": 0}
                payload = {"job": job.id, "kind": job.kind, **word.progress}
                emit(tx, "job.progress", subject=f"job/{job.id}", project=job.project, payload=payload)
            tx.execute(update(jobs).where(jobs.c.id == job.id).values(**values))

    def finish(self, word: Word) -> None:
        """The job's effect, once: result, files and state are one unit of work. The same word twice is one.

        Raises:
            ClaimLost: the claim is over.
            InvalidRequest: a file it names is not stored.
        """
        with self.database.begin() as tx:
            if self._said_before(tx, word, "succeeded"):
                return
            job = self._held(tx, word)
            self._take_files(tx, job, word)
            store.end_attempt(tx, job, "succeeded", log=word.log)
            values = {
                "result": dict(word.result or {}),
                "files": {name: dict(file) for name, file in word.files.items()},
                "candidates": [dict(each) for each in word.candidates],
                "progress": dict(word.progress or job.progress),
                "error": None,
                "worker": "",
            }
            store.change(tx, job, JobTrigger.SUCCEED, actor=system_actor(job.worker), values=values)

    def fail(self, word: Word) -> JobState:
        """The attempt failed; what becomes of the job. The same word twice is one."""
        failure = Failure(word.failure)
        with self.database.begin() as tx:
            if self._said_before(tx, word, failure.value):
                return store.find(tx, word.job).state
            job = self._held(tx, word)
            self._take_files(tx, job, word)
            error = dict(word.error or {"code": "job_failed", "title": "The job failed", "detail": "", "hint": ""})
            actor = system_actor(job.worker)
            return store.fail(tx, job, failure, actor=actor, error=error, log=word.log)

    def give_back(self, word: Word) -> None:
        """The worker has to end; its job goes to the next one, and no attempt is counted."""
        with self.database.begin() as tx:
            if self._said_before(tx, word, "given back"):
                return
            job = self._held(tx, word)
            store.end_attempt(tx, job, "given back")
            store.change(tx, job, JobTrigger.RELEASE, actor=system_actor(job.worker), values={"worker": ""})

    def _has_work(self, tx: Transaction, worker: str) -> bool:
        mine = (jobs.c.state == JobState.RUNNING.value) & (jobs.c.worker == worker)
        return tx.scalar(select(jobs.c.id).where((jobs.c.state == JobState.QUEUED.value) | mine).limit(1)) is not None

    def _drop(self, tx: Transaction, worker: str) -> None:
        mine = select(jobs).where(jobs.c.state == JobState.RUNNING.value, jobs.c.worker == worker)
        for row in list(tx.execute(mine).mappings()):
            store.fail(tx, store.read(row), Failure.LOST, actor=store.KEEPER, error=LOST)

    def _begin(self, tx: Transaction, job: Job, worker: str) -> Claim:
        token = job.token + 1
        address, key_id = self._keys.address(tx, job) if job.service else (None, "")
        values = {
            "token": token,
            "worker": worker,
            "heard_at": tx.now,
            "started_at": job.started_at or tx.now,
            "key_id": key_id,
        }
        store.change(tx, job, JobTrigger.CLAIM, actor=system_actor(worker), values=values, why={"attempt": token})
        store.begin_attempt(tx, job, token=token, worker=worker)
        kind = KINDS.get(job.kind)
        return Claim(
            job=job.id,
            token=token,
            kind=job.kind,
            parameters=job.spec.parameters,
            inputs=job.inputs,
            seed=job.spec.seed,
            attempt=token,
            limit_s=job.spec.limit_s,
            network=kind is not None and kind.network,
            service=address,
        )

    def _held(self, tx: Transaction, word: Word) -> Job:
        """The job, if this word is under the claim in force."""
        try:
            job = store.find(tx, word.job, lock=True)
        except NotFound as error:
            raise ClaimLost("there is no such job any more") from error
        if job.token != word.token:
            raise ClaimLost(f"claim {word.token} is over: the job is at its claim {job.token}")
        if job.state is not JobState.RUNNING:
            raise ClaimLost(f"the job is {job.state}")
        return job

    def _said_before(self, tx: Transaction, word: Word, how: str) -> bool:
        this = (job_attempts.c.job == word.job) & (job_attempts.c.token == word.token)
        return tx.scalar(select(job_attempts.c.how).where(this, job_attempts.c.ended_at.is_not(None))) == how

    def _take_files(self, tx: Transaction, job: Job, word: Word) -> None:
        """The files that the worker stored belong to the job now; they are there, or nothing is accepted."""
        named: list[Mapping[str, Any]] = [*word.files.values()]
        named += [file for each in word.candidates for file in each.get("files", ())]
        if word.log:
            named.append({"sha256": word.log, "size_bytes": 0})
        for file in named:
            if not self._files.store.exists(str(file["sha256"])):
                raise InvalidRequest("a file of the outcome is not stored", hint="store it first")
            store.belongs(tx, job, str(file["sha256"]), int(file["size_bytes"]))
