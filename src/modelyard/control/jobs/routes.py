"""Jobs over HTTP. A job is answered 202 when it is durable; how far it is stands at its address."""

from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO, Final

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from modelyard.control.identity import caller, missing
from modelyard.control.jobs import store
from modelyard.control.jobs.documents import job_line
from modelyard.control.jobs.schemas import NAME, CancelBody, NewJob
from modelyard.control.jobs.service import Jobs
from modelyard.control.records import DEFAULT_LIMIT, MAX_LIMIT, parts_of
from modelyard.domain.digests import PREFIX
from modelyard.domain.errors.base import quote
from modelyard.domain.job_kinds import KINDS
from modelyard.domain.jobs import JobState
from modelyard.foundation.documents import to_plain

router = APIRouter(tags=["jobs"])
_BLOCK: Final = 1 << 20
JobNumber = Annotated[
    str, Path(alias="job", pattern="^job_[0-9a-z]{22}$", description="As given when it was accepted.")
]
Project = Annotated[str | None, Query(pattern=NAME, max_length=63, description="The project; default: the caller's.")]
_BYTES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The bytes"}
}
_FILE_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get("/jobs", summary="List jobs")
def list_jobs(
    request: Request,
    *,
    project: Annotated[str | None, Query(pattern=NAME, max_length=63, description="Only of this project.")] = None,
    state: Annotated[JobState | None, Query(description="`dead` lists the dead letters.")] = None,
    kind: Annotated[str | None, Query(max_length=63)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
) -> dict[str, Any]:
    """Jobs that the caller may see, the newest first."""
    wanted = None if state is None else state.value
    page = _jobs(request).listing(caller(request), project=project, state=wanted, kind=kind, limit=limit, cursor=cursor)
    return page.document(job_line)


@router.post("/jobs", summary="Submit a job", status_code=202)
def submit_job(
    request: Request,
    body: NewJob,
    *,
    project: Project = None,
    idempotency_key: Annotated[str | None, Header(max_length=128)] = None,
) -> Response:
    """Accept a job: it is durable when the answer comes. 202, and `Location` says where to look."""
    who = caller(request)
    document = _jobs(request).submit(who, body.wish(project or who.project), idempotency_key=idempotency_key)
    return JSONResponse(dict(document), 202, {"Location": f"/api/v1/jobs/{document['id']}"})


@router.get("/jobs/{job}", summary="How a job stands")
def show_job(request: Request, number: JobNumber) -> dict[str, Any]:
    """State, progress, attempts with their errors, and what came out."""
    return dict(_jobs(request).show(caller(request), number))


@router.post("/jobs/{job}/cancel", summary="Cancel a job")
def cancel_job(
    request: Request, number: JobNumber, body: Annotated[CancelBody, Body(default_factory=CancelBody)]
) -> dict[str, Any]:
    """It is not begun, or its work is ended; what it would have given is not kept."""
    return dict(_jobs(request).cancel(caller(request), number, why=body.why))


@router.post("/jobs/{job}/retry", summary="Try a job again")
def retry_job(request: Request, number: JobNumber) -> dict[str, Any]:
    """A job that failed, is a dead letter or was cancelled is queued again, with all its attempts."""
    return dict(_jobs(request).retry(caller(request), number))


@router.get("/jobs/{job}/log", summary="What an attempt printed", response_class=StreamingResponse, responses=_BYTES)
def show_log(
    request: Request, number: JobNumber, *, attempt: Annotated[int | None, Query(ge=1, le=1 << 30)] = None
) -> StreamingResponse:
    """The end of what an attempt printed, the last one's unless told; secrets are blacked out."""
    jobs = _jobs(request)
    with jobs.database.read() as tx:
        jobs.find(tx, caller(request), number)
        logs = {each.token: each.log for each in store.attempts_of(tx, number) if each.log}
    digest = logs.get(max(logs, default=0) if attempt is None else attempt)
    if digest is None:
        raise missing("log of this attempt")
    return StreamingResponse(_blocks(jobs.files.store.open(digest)), media_type="text/plain; charset=utf-8")


@router.get(
    "/jobs/{job}/files/{file}",
    summary="Download a file that came out",
    response_class=StreamingResponse,
    responses=_BYTES,
)
def download_file(request: Request, number: JobNumber, file: Annotated[str, Path(max_length=128)]) -> StreamingResponse:
    """The bytes, checked against their digest before the first one leaves."""
    jobs = _jobs(request)
    with jobs.database.read() as tx:
        stored = jobs.find(tx, caller(request), number).files.get(file)
    if stored is None:
        raise missing(f"file {quote(file)} of job {quote(number)}")
    headers = {
        "content-disposition": f'attachment; filename="{file}"',
        "content-length": str(stored["size_bytes"]),
        "etag": f'"{stored["sha256"]}"',
    }
    stream = jobs.files.store.open(stored["sha256"])
    return StreamingResponse(_blocks(stream), media_type="application/octet-stream", headers=headers)


@router.post("/job-files", summary="Give a file to jobs", status_code=201, openapi_extra=_FILE_BODY)
async def give_file(request: Request, *, project: Project = None) -> Response:
    """Send the bytes of a file; the answer names it for `inputs` of a job. It waits a day for a job that uses it."""
    who, files = caller(request), _jobs(request).files
    place = project or who.project
    await run_in_threadpool(files.admit, who, place)
    sha256, size = await files.take(place, request.stream())
    return JSONResponse({"file": PREFIX + sha256, "size_bytes": size}, 201)


@router.get("/job-kinds", summary="Which kinds of jobs there are")
def list_kinds() -> dict[str, Any]:
    """Every kind with its parameters and inputs."""
    items = [
        {
            "name": kind.name,
            "text": kind.text,
            "needs": kind.verb.value,
            "inputs": list(kind.inputs),
            "optional_inputs": list(kind.optional),
            "parameters": {
                name: {
                    "text": each.text,
                    "expects": each.expects(),
                    "required": each.required,
                    "default": to_plain(each.default),
                }
                for name, each in kind.parameters.items()
            },
        }
        for kind in KINDS.values()
    ]
    return {"items": items, "next_cursor": None}


def _jobs(request: Request) -> Jobs:
    return parts_of(request).get(Jobs)


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while block := stream.read(_BLOCK):
            yield block
