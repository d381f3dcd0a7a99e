"""The parts of the control plane that look after jobs, put together, and what they ask of other capabilities."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from modelyard.control.catalog import (
    Removals,
    VersionRecord,
    VersionUsers,
    find_model,
    find_version,
    resolve,
)
from modelyard.control.deployments import Deployments
from modelyard.control.identity import LOCAL, Principal
from modelyard.control.intake import UploadCentre
from modelyard.control.jobs import Claims, JobDesk, JobFiles, JobKeeper, Jobs, ServiceKeys
from modelyard.control.records import ControlParts, Transaction
from modelyard.domain.names import DEFAULT_PROJECT
from modelyard.processes.artifact_stores import ARTIFACT_STORES
from modelyard.processes.job_candidates import CandidateIntake


def open_jobs(parts: ControlParts, deployments: Deployments, *, inference_url: str, stack: AsyncExitStack) -> JobDesk:
    """Put `Jobs` and `JobFiles` among the parts and start what runs beside; gives the place where workers come.

    To be called on the loop that serves them.
    """
    settings = parts.settings.jobs
    store: Any = ARTIFACT_STORES.get("files")
    files = JobFiles(
        parts.database,
        store(parts.places.job_files),
        drafts=parts.places.incoming,
        most_bytes=settings.input_mib << 20,
    )
    jobs = Jobs(
        parts.database,
        files,
        settings,
        find_model=_files_of_version,
        need_service=lambda tx, project, name: _need_service(deployments, tx, project, name),
    )
    parts.put(JobFiles, files)
    parts.put(Jobs, jobs)
    if parts.has(VersionUsers):
        parts.get(VersionUsers).ask.append(partial(_jobs_using, jobs))
    keys = ServiceKeys(url=partial(_service_url, inference_url), pepper=parts.pepper if parts.auth_required else None)
    desk = JobDesk(Claims(parts.database, files, keys=keys))
    desk.start()
    stack.callback(desk.stop)
    keeper = JobKeeper(
        parts.database,
        files,
        settings,
        places=parts.places.jobs,
        is_held=lambda: parts.has(Removals) and parts.get(Removals).is_held,
    )
    keeper.start()
    stack.callback(keeper.stop)
    candidates = CandidateIntake(parts.get(UploadCentre), files)
    candidates.start()
    stack.push_async_callback(asyncio.to_thread, candidates.stop)
    return desk


def _files_of_version(tx: Transaction, who: Principal, project: str, name: str, version: str) -> Mapping[str, Any]:
    """A version as an input of a job: its files as they were uploaded, and its serving package."""
    model = find_model(tx, project, name, seen_by=who)
    found = find_version(tx, model, version) if version else resolve(tx, project, name).version
    files = [
        {"name": label, "sha256": file.sha256, "size_bytes": file.size_bytes} for label, file in found.files.items()
    ]
    return {
        "files": files,
        "store": "artifacts",
        "package": found.digest.removeprefix("sha256:") if found.has_package else "",
        "of": {"project": project, "model": name, "version": found.version},
    }


def _need_service(deployments: Deployments, tx: Transaction, project: str, name: str) -> None:
    del tx  # looked up in a view of its own: a service that goes meanwhile is the job's to meet
    deployments.find(LOCAL, project, name)


def _service_url(inference_url: str, project: str, name: str) -> str:
    where = "" if project == DEFAULT_PROJECT else f"/p/{project}"
    return f"{inference_url.rstrip('/')}{where}/v2/models/{name}"


def _jobs_using(jobs: Jobs, tx: Transaction, version: VersionRecord) -> list[str]:
    return jobs.using_version(tx, version.project, version.model, version.version)
