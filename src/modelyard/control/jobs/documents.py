"""Jobs as the API shows them."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from modelyard.control.jobs.values import Attempt, Job
from modelyard.domain.digests import PREFIX


def job_document(job: Job, attempts: Iterable[Attempt]) -> dict[str, Any]:
    """A job with its attempts."""
    return {
        **job_line(job),
        "parameters": dict(job.spec.parameters),
        "inputs": {name: _input(each) for name, each in job.inputs.items()},
        "seed": job.spec.seed,
        "limit_s": job.spec.limit_s,
        "result": None if job.result is None else dict(job.result),
        "files": [
            {"name": name, "sha256": each["sha256"], "size_bytes": each["size_bytes"]}
            for name, each in job.files.items()
        ],
        "candidates": [dict(each) for each in job.candidates],
        "attempts": [attempt_document(each) for each in attempts],
    }


def job_line(job: Job) -> dict[str, Any]:
    """A job as a listing shows it."""
    return {
        "id": job.id,
        "project": job.project,
        "kind": job.kind,
        "service": job.service or None,
        "state": job.state.value,
        "priority": job.spec.priority,
        "progress": dict(job.progress),
        "attempt": job.token,
        "failed_attempts": job.failed,
        "most_attempts": job.spec.attempts,
        "error": None if job.error is None or job.state.value == "succeeded" else dict(job.error),
        "worker": job.worker or None,
        "submitted_by": job.actor.name,
        "created_at": job.created_at.isoformat(),
        "due_at": job.due_at.isoformat(),
        "started_at": _moment(job.started_at),
        "ended_at": _moment(job.ended_at),
    }


def attempt_document(attempt: Attempt) -> dict[str, Any]:
    """One attempt."""
    return {
        "attempt": attempt.token,
        "worker": attempt.worker,
        "began_at": attempt.began_at.isoformat(),
        "ended_at": _moment(attempt.ended_at),
        "outcome": attempt.how,
        "error": None if attempt.error is None else dict(attempt.error),
        "has_log": bool(attempt.log),
    }


def _input(given: Mapping[str, Any]) -> dict[str, Any]:
    files = [{"name": file["name"], "sha256": PREFIX + file["sha256"]} for file in given["files"]]
    return {"files": files} | ({"of": given["of"]} if "of" in given else {})


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
