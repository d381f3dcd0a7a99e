"""What people ask of jobs: submit, look, list, cancel, retry. Asking writes; workers act."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, insert, or_, select, true

from modelyard.control.identity import Principal, find_project, lacks, missing, reach_of, require, visible
from modelyard.control.jobs import store
from modelyard.control.jobs.documents import job_document
from modelyard.control.jobs.files import JobFiles
from modelyard.control.jobs.tables import jobs
from modelyard.control.jobs.values import Job
from modelyard.control.records import (
    Answer,
    Database,
    Page,
    Transaction,
    cut,
    from_microseconds,
    keep,
    make_id,
    read_cursor,
    recall,
    to_microseconds,
)
from modelyard.domain.access import Verb
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest, QuotaExceeded
from modelyard.domain.job_kinds import check_job, find_kind
from modelyard.domain.jobs import JobSpec, JobState, JobTrigger
from modelyard.foundation.documents import to_json, to_plain
from modelyard.foundation.settings import JobSettings

FindModel = Callable[[Transaction, Principal, str, str, str], Mapping[str, Any]]
"""Files of a version as an input of a job: given who asks, project, model and version (empty: what is deployed)."""
NeedService = Callable[[Transaction, str, str], None]
"""Raises `NotFound` when the project has no such service."""
_OPEN: Final = (JobState.SCHEDULED, JobState.QUEUED, JobState.RUNNING)
_LONGEST_REASON: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A job as it is asked for. `inputs`: name → `{"file": "sha256:…", "name": …}` or `{"model": …, "version": …}`."""

    project: str
    spec: JobSpec
    inputs: Mapping[str, Mapping[str, Any]]


class Jobs:
    """The jobs of a platform, as people see them."""

    def __init__(
        self,
        database: Database,
        files: JobFiles,
        settings: JobSettings,
        *,
        find_model: FindModel,
        need_service: NeedService,
    ) -> None:
        self.database = database
        self.files = files
        self.settings = settings
        self._find_model = find_model
        self._need_service = need_service

    def submit(self, who: Principal, wish: Wish, *, idempotency_key: str | None = None) -> Mapping[str, Any]:
        """Accept a job; it is durable when this returns. Gives its document.

        Raises:
            InvalidRequest: kind, parameters or inputs are not what the kind takes; each field in `details`.
            NotFound, Forbidden: project, service, file or model, or a scope that is missing.
            QuotaExceeded: the project has too many jobs that are not over.
            Conflict: the idempotency key was used for another request.
        """
        kind = find_kind(wish.spec.kind)
        asked = to_json(("job", wish))
        with self.database.begin() as tx:
            before = recall(tx, owner=who.owner, key=idempotency_key, request=asked)
            if before is not None:
                return before.document
            parameters = check_job(kind, wish.spec.parameters, wish.inputs)
            service = str(parameters["service"]) if kind.asks_service else ""
            require(who, kind.verb, project=wish.project, name=service or None)
            find_project(tx, wish.project)
            if service:
                self._need_service(tx, wish.project, service)
            self._require_room(tx, wish.project)
            inputs = {name: self._input(tx, who, wish.project, name, given) for name, given in wish.inputs.items()}
            job = self._write(tx, who, wish, parameters=parameters, service=service, inputs=inputs)
            document = job_document(job, ())
            keep(tx, owner=who.owner, key=idempotency_key, request=asked, answer=Answer(202, document))
            return document

    def show(self, who: Principal, number: str) -> Mapping[str, Any]:
        """A job and its attempts."""
        with self.database.read() as tx:
            job = self.find(tx, who, number)
            return job_document(job, store.attempts_of(tx, number))

    def find(self, tx: Transaction, who: Principal, number: str) -> Job:
        """The job, or `NotFound`, also when it does not exist for the caller."""
        job = store.find(tx, number)
        if job.owner != who.owner and not reach_of(who, Verb.READ).covers(job.project, job.service or None):
            raise missing(f"job {quote(number)}")
        return job

    def listing(
        self,
        who: Principal,
        *,
        project: str | None,
        state: str | None,
        kind: str | None,
        limit: int,
        cursor: str | None,
    ) -> Page[Job]:
        """Jobs that the caller may see, the newest first."""
        seen = visible(reach_of(who, Verb.READ), project=jobs.c.project, name=jobs.c.service)
        query = select(jobs).where(or_(seen, jobs.c.owner == who.owner))
        query = query.where(jobs.c.project == project if project else true())
        query = query.where(jobs.c.state == state if state else true())
        query = query.where(jobs.c.kind == kind if kind else true())
        if cursor is not None:
            at, number = read_cursor(cursor, kinds=(int, str))
            assert isinstance(at, int)
            moment = from_microseconds(at)
            older = (jobs.c.created_at < moment) | ((jobs.c.created_at == moment) & (jobs.c.id < str(number)))
            query = query.where(older)
        query = query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit + 1)
        with self.database.read() as tx:
            found = [store.read(row) for row in tx.execute(query).mappings()]
        return cut(found, limit=limit, position=lambda job: (to_microseconds(job.created_at), job.id))

    def cancel(self, who: Principal, number: str, *, why: str = "") -> Mapping[str, Any]:
        """End a job that is not over: its worker loses the claim and ends the work. Cancelling twice is once."""
        with self.database.begin() as tx:
            job = self._movable(tx, who, number)
            if job.state is not JobState.CANCELLED:
                store.end_attempt(tx, job, "cancelled")
                reason = {"why": why[:_LONGEST_REASON]} if why else None
                store.change(tx, job, JobTrigger.CANCEL, actor=who.actor, values={"worker": ""}, why=reason)
        return self.show(who, number)

    def retry(self, who: Principal, number: str) -> Mapping[str, Any]:
        """Try a job again that failed, is a dead letter or was cancelled; its attempts are counted anew."""
        with self.database.begin() as tx:
            job = self._movable(tx, who, number)
            again = {"failed": 0, "lost": 0, "due_at": tx.now, "progress": {}}
            store.change(tx, job, JobTrigger.RETRY, actor=who.actor, values=again)
        return self.show(who, number)

    def using_version(self, tx: Transaction, project: str, model: str, version: str) -> list[str]:
        """Jobs that are not over and were given this version."""
        rows = tx.execute(select(jobs.c.id, jobs.c.inputs).where(jobs.c.state.in_([state.value for state in _OPEN])))
        wanted = {"project": project, "model": model, "version": version}
        return [f"job {number}" for number, inputs in rows if wanted in [each.get("of") for each in inputs.values()]]

    def _movable(self, tx: Transaction, who: Principal, number: str) -> Job:
        job = self.find(tx, who, number)
        if job.owner != who.owner and not who.may(Verb.DEPLOY, project=job.project, name=job.service or None):
            raise lacks(Verb.DEPLOY, project=job.project, name=job.service or None)
        return store.find(tx, number, lock=True)

    def _require_room(self, tx: Transaction, project: str) -> None:
        most = self.settings.per_project
        waiting = select(func.count()).select_from(jobs).where(jobs.c.project == project)
        if (tx.scalar(waiting.where(jobs.c.state.in_([state.value for state in _OPEN]))) or 0) >= most:
            raise QuotaExceeded(
                f"project {quote(project)} has {most} jobs that are not over",
                hint="wait until some are, or raise jobs.per_project",
            )

    def _input(
        self, tx: Transaction, who: Principal, project: str, name: str, given: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        if "file" in given:
            sha256, size = self.files.size_of(tx, project, given["file"])
            label = given.get("name") or name
            return {"files": [{"name": label, "sha256": sha256, "size_bytes": size}], "store": "jobs"}
        if "model" in given:
            return self._find_model(tx, who, given.get("project") or project, given["model"], given.get("version", ""))
        raise InvalidRequest(
            f"inputs.{name}: expected a file or a model",
            details=[{"field": f"inputs.{name}", "expected": '{"file": "sha256:…"} or {"model": "digits:3"}'}],
        )

    def _write(
        self,
        tx: Transaction,
        who: Principal,
        wish: Wish,
        *,
        parameters: Mapping[str, Any],
        service: str,
        inputs: Mapping[str, Any],
    ) -> Job:
        number = make_id("job", now=tx.now)
        due: datetime = max(wish.spec.not_before or tx.now, tx.now)
        state = JobState.SCHEDULED if due > tx.now else JobState.QUEUED
        spec = {**to_plain(wish.spec), "parameters": dict(parameters)}
        tx.execute(
            insert(jobs).values(
                id=number,
                project=wish.project,
                kind=wish.spec.kind,
                service=service,
                state=state.value,
                spec=spec,
                inputs=dict(inputs),
                owner=who.owner,
                actor=to_plain(who.actor),
                priority=wish.spec.priority,
                due_at=due,
                created_at=tx.now,
                token=0,
                failed=0,
                lost=0,
                worker="",
                key_id="",
                progress={},
                files={},
                candidates=[],
            )
        )
        job = store.find(tx, number)
        for each in inputs.values():
            for file in each["files"] if each["store"] == "jobs" else ():
                store.belongs(tx, job, file["sha256"], file["size_bytes"])
        store.note(tx, job, "submitted", actor=who.actor, state=state, why={"priority": job.spec.priority})
        tx.wake(store.TOPIC)
        return job
