"""Uploads over HTTP: in one request, or in pieces; answered when decided, or followed while the checks run."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from modelyard.control.catalog import version_document
from modelyard.control.identity import caller
from modelyard.control.intake.desk import Announced, Resumable, UploadDesk
from modelyard.control.intake.limits import UploadLimits
from modelyard.control.intake.multipart import MultipartReceiver, boundary_of
from modelyard.control.intake.received import ReceivedUpload
from modelyard.control.intake.schemas import NAME, NewUpload
from modelyard.control.intake.service import UploadCentre
from modelyard.control.intake.values import Progress, Target
from modelyard.control.records import parts_of
from modelyard.domain.errors.edge import BodyIncomplete, BodyTooLarge, ReceiptDeadline
from modelyard.domain.errors.platform import Conflict, InvalidRequest
from modelyard.foundation.documents import to_plain
from modelyard.foundation.strict_json import StrictJsonError, loads

T = TypeVar("T")
router = APIRouter(tags=["uploads"])
_BLOCK: Final = 1 << 20
_PING_S: Final = 15.0

ModelName = Annotated[
    str, Path(alias="model", pattern=NAME, max_length=63, description="The model that gets a new version.")
]
UploadId = Annotated[
    str, Path(alias="upload", pattern="^upl_[0-9a-z]{22}$", description="As given when the upload began.")
]
Project = Annotated[str | None, Query(pattern=NAME, max_length=63, description="The project; default: the caller's.")]
Name = Annotated[str | None, Query(pattern=NAME, max_length=63)]
_MULTIPART: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                    },
                }
            }
        },
    }
}


@router.post("/models/{model}/versions", summary="Upload a version", status_code=201, openapi_extra=_MULTIPART)
async def upload_version(  # noqa: PLR0913  (one parameter a query)
    request: Request,
    name: ModelName,
    *,
    project: Project = None,
    version: Name = None,
    alias: Name = None,
    source: Annotated[str | None, Query(max_length=8192, description="Where it comes from: a JSON object.")] = None,
    prefer: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """Send the files of a model, each in a part named `files`, and get the audit's verdict.

    201 with the version, or the refusal. With `Prefer: respond-async`, 202 and the address of the upload, whose checks
    can be followed while they run.
    """
    parts = parts_of(request)
    centre, who = parts.get(UploadCentre), caller(request)
    target = Target(
        project=project or who.project,
        model=name,
        author=who.actor,
        version=version,
        alias=alias,
        sender=who,
        source={"kind": "upload", **_source(source)},
    )
    length = _content_length(request)
    await run_in_threadpool(centre.admit, who, target, content_length=length)
    boundary = boundary_of(request.headers.get("content-type"))
    async with _receiving(centre, target, length) as upload:
        await _receive(request, centre, MultipartReceiver(boundary, upload))
    progress = await run_in_threadpool(centre.submit, target, upload)
    if "respond-async" in prefer.lower():
        desk = parts.get(UploadDesk)
        await run_in_threadpool(desk.follow, progress, owner=who.owner)
        document = await run_in_threadpool(desk.document, who, progress.id)
        return JSONResponse(
            document, 202, {"Location": f"/api/v1/uploads/{progress.id}", "Preference-Applied": "respond-async"}
        )
    decision = await asyncio.wrap_future(progress.finished)
    if decision.error is not None:
        raise decision.error
    assert decision.version is not None
    where = f"/api/v1/models/{name}/versions/{decision.version.version}"
    return JSONResponse(version_document(decision.version), 201, {"Location": where})


@router.post("/uploads", summary="Begin a resumable upload", status_code=201)
def create_upload(request: Request, body: NewUpload, *, project: Project = None) -> Response:
    """Begin a resumable upload: announce the files, then send their bytes one after the other with PATCH."""
    who, desk = caller(request), parts_of(request).get(UploadDesk)
    target = Target(
        project=project or who.project,
        model=body.model,
        author=who.actor,
        version=body.version,
        alias=body.alias,
        sender=who,
    )
    files = [Announced(name=file.name, size=file.size, sha256=file.sha256) for file in body.files]
    upload_id = desk.create(who, target, files)
    headers = {"Location": f"/api/v1/uploads/{upload_id}", "Upload-Offset": "0"}
    return JSONResponse(desk.document(who, upload_id), 201, headers)


@router.get("/uploads/{upload}", summary="How an upload stands")
async def show_upload(
    request: Request, upload_id: UploadId, *, accept: Annotated[str, Header(max_length=500)] = ""
) -> Response:
    """How an upload stands. With `Accept: text/event-stream`, every check as it finishes, then the outcome."""
    who, desk = caller(request), parts_of(request).get(UploadDesk)
    document = await run_in_threadpool(desk.document, who, upload_id)
    if "text/event-stream" not in accept:
        return JSONResponse(document)
    progress = await run_in_threadpool(desk.progress, who, upload_id)
    events = _events(progress, lambda: desk.document(who, upload_id))
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.head("/uploads/{upload}", summary="How far an upload came")
def upload_offset(request: Request, upload_id: UploadId) -> Response:
    """Where an unfinished upload stands: `Upload-Offset` and `Upload-Length`."""
    upload = parts_of(request).get(UploadDesk).resumable(caller(request), upload_id)
    return Response(status_code=204, headers=_offset_headers(upload, upload.offset))


@router.patch("/uploads/{upload}", summary="Send a piece", status_code=204)
async def append_upload(
    request: Request, upload_id: UploadId, *, upload_offset: Annotated[int, Header(ge=0, le=1 << 50)]
) -> Response:
    """Send the bytes from `Upload-Offset` on; 409 with the right offset when it is another."""
    parts = parts_of(request)
    desk, centre, who = parts.get(UploadDesk), parts.get(UploadCentre), caller(request)
    upload = await run_in_threadpool(desk.resumable, who, upload_id)
    if upload.offset != upload_offset:
        raise Conflict(
            f"the upload stands at {upload.offset}, not at {upload_offset}",
            hint=f"send from byte {upload.offset} on",
            details=[{"expected": upload.offset, "received": upload_offset}],
        )
    length = _content_length(request)
    if length is not None and upload_offset + length > upload.plan.length:
        raise BodyTooLarge(f"the upload has only {upload.plan.length} bytes", hint="send what was announced")
    offset = upload_offset
    async for block in _blocks(request, centre.limits):
        offset = await _on_disk(centre, partial(desk.append, upload, block, offset=offset))
    return Response(status_code=204, headers=_offset_headers(upload, offset))


@router.post("/uploads/{upload}/finish", summary="Have an upload checked", status_code=202)
def finish_upload(request: Request, upload_id: UploadId) -> Response:
    """All bytes are there: have them checked."""
    desk, who = parts_of(request).get(UploadDesk), caller(request)
    desk.finish(who, desk.resumable(who, upload_id))
    return JSONResponse(desk.document(who, upload_id), 202, {"Location": f"/api/v1/uploads/{upload_id}"})


@router.delete("/uploads/{upload}", summary="Give an upload up", status_code=204)
def abandon_upload(request: Request, upload_id: UploadId) -> Response:
    """Give an unfinished upload up; its bytes are removed."""
    parts_of(request).get(UploadDesk).abandon(caller(request), upload_id)
    return Response(status_code=204)


@asynccontextmanager
async def _receiving(centre: UploadCentre, target: Target, length: int | None) -> AsyncIterator[ReceivedUpload]:
    """`UploadCentre.receiving` off the event loop: its beginning and its end write to disk and records."""
    inside = centre.receiving(target, size=length)
    upload = await _on_disk(centre, inside.__enter__)
    try:
        yield upload
    except BaseException as error:
        await _on_disk(centre, partial(inside.__exit__, type(error), error, error.__traceback__))
        raise
    await _on_disk(centre, partial(inside.__exit__, None, None, None))


async def _receive(request: Request, centre: UploadCentre, receiver: MultipartReceiver) -> None:
    try:
        async for block in _blocks(request, centre.limits):
            await _on_disk(centre, partial(receiver.feed, block))
        await _on_disk(centre, receiver.finish)
    finally:
        receiver.close()


async def _on_disk(centre: UploadCentre, work: Callable[[], T]) -> T:
    """Run what blocks on the disk in the centre's own threads. Waits for it also when the request is given up."""
    future = asyncio.get_running_loop().run_in_executor(centre.disk, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


async def _blocks(request: Request, limits: UploadLimits) -> AsyncIterator[bytes]:
    """The body in blocks of about a MiB, within the limits of pace.

    Raises:
        BodyIncomplete: the sender is gone.
        ReceiptDeadline: it is too slow, pauses too long, or takes too long in all.
    """
    began, total = time.monotonic(), 0
    waiting: list[bytes] = []
    size = 0
    stream = request.stream().__aiter__()
    while True:
        try:
            async with asyncio.timeout(limits.pause_s):
                chunk = await anext(stream)
        except StopAsyncIteration:
            break
        except ClientDisconnect as error:
            raise BodyIncomplete("the connection ended before the upload did", hint="send it again") from error
        except TimeoutError as error:
            raise ReceiptDeadline(f"nothing arrived for {limits.pause_s:g} s", hint="send it again") from error
        waiting.append(chunk)
        size += len(chunk)
        total += len(chunk)
        _require_pace(total, time.monotonic() - began, limits)
        if size >= _BLOCK:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _require_pace(total: int, passed: float, limits: UploadLimits) -> None:
    slow = passed > limits.grace_s and total < limits.minimum_bytes_per_s * passed
    if slow or passed > limits.receive_s:
        raise ReceiptDeadline(
            f"only {total} bytes arrived in {passed:.0f} s",
            hint="use a resumable upload where the connection is slow",
        )


async def _events(progress: Progress | None, document: Callable[[], dict[str, Any]]) -> AsyncIterator[bytes]:
    told = 0
    if progress is not None:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        leave = progress.listen(wake)
        try:
            while True:
                changed.clear()
                for check in progress.checks[told:]:
                    yield _event("check", to_plain(check))
                    told += 1
                if progress.finished.done() and told == len(progress.checks):
                    break
                try:
                    async with asyncio.timeout(_PING_S):
                        await changed.wait()
                except TimeoutError:
                    yield b": still checking\n\n"
        finally:
            leave()
    final = await run_in_threadpool(document)
    for check in final.get("checks", [])[told:]:
        yield _event("check", check)
    yield _event("upload", final)


def _event(kind: str, document: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(document)}\n\n".encode()


def _offset_headers(upload: Resumable, offset: int) -> dict[str, str]:
    return {
        "Upload-Offset": str(offset),
        "Upload-Length": str(upload.plan.length),
        "Cache-Control": "no-store",
    }


def _content_length(request: Request) -> int | None:
    value = request.headers.get("content-length")
    return int(value) if value is not None and value.isascii() and value.isdigit() else None


def _source(text: str | None) -> dict[str, Any]:
    """What the sender says of the model's origin; told, never believed, so only its form is checked."""
    if text is None:
        return {}
    try:
        value = loads(text.encode(), max_depth=4)
    except StrictJsonError as error:
        raise InvalidRequest(f"`source` is not JSON that can be used: {error}", hint="a JSON object") from error
    if not isinstance(value, dict):
        raise InvalidRequest("`source` is not a JSON object", hint='such as {"kind": "mlflow", "run": "…"}')
    return value
