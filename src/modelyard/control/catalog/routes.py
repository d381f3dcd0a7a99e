"""The library over HTTP."""

from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO, Final

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from modelyard.control.catalog.decisions import authorise, decide
from modelyard.control.catalog.documents import version_document
from modelyard.control.catalog.library import ModelChanges, change_model, remove_alias, set_alias
from modelyard.control.catalog.listing import list_reviews, list_versions
from modelyard.control.catalog.lookup import find_model, find_version
from modelyard.control.catalog.removal import Removals, VersionUsers
from modelyard.control.catalog.schemas import (
    AliasBody,
    DecisionBody,
    ModelChangesBody,
    ModelDocument,
    ModelsDocument,
    SearchQuery,
    VersionDocument,
    VersionsDocument,
    model_document,
)
from modelyard.control.catalog.search import EVERY_PROJECT, Wanted, search_models
from modelyard.control.catalog.values import ModelRecord, VersionRecord
from modelyard.control.identity import caller, missing
from modelyard.control.records import DEFAULT_LIMIT, MAX_LIMIT, Transaction, parts_of
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import PreconditionFailed
from modelyard.domain.lifecycle import VersionAction, VersionState

router = APIRouter(tags=["library"])
_BLOCK: Final = 1 << 20

Model = Annotated[str, Path(max_length=63, description="The model's name.")]
Version = Annotated[str, Path(max_length=64, description="A version, or `@alias`.")]
Project = Annotated[str | None, Query(max_length=63, description="The project; default: the caller's own.")]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items a page.")]
Cursor = Annotated[str | None, Query(max_length=1024, description="`next_cursor` of the page before.")]
IfMatch = Annotated[str | None, Header(max_length=200, description="Only change what is still this ETag.")]


@router.get("/models", summary="Search the library", response_model=ModelsDocument)
def search(request: Request, query: Annotated[SearchQuery, Query()]) -> dict[str, Any]:
    """Models that exist for the caller and fit every filter."""
    who = caller(request)
    asked = query.model_dump()
    asked["text"] = asked.pop("q")
    wanted = Wanted(**{**asked, "project": query.project or who.project})
    with parts_of(request).database.read() as tx:
        return search_models(tx, who, wanted).document(model_document)


@router.get("/models/{model}", summary="One model", response_model=ModelDocument)
def show_model(request: Request, model: Model, *, project: Project = None) -> Response:
    """The model with its aliases and tags."""
    with parts_of(request).database.read() as tx:
        found = _model(tx, request, model, project)
    return JSONResponse(model_document(found), headers={"etag": found.etag})


@router.patch("/models/{model}", summary="Describe, tag, share or publish a model", response_model=ModelDocument)
def patch_model(
    request: Request, model: Model, body: ModelChangesBody, *, project: Project = None, if_match: IfMatch = None
) -> Response:
    """What is given replaces what was there. Visibility and sharing need `admin`."""
    changes = ModelChanges(
        description=body.description, visibility=body.visibility, tags=body.tags, shared_with=body.shared_with
    )
    with parts_of(request).database.begin() as tx:
        found = _model(tx, request, model, project)
        _require_match(if_match, found.etag)
        changed = change_model(tx, caller(request), found, changes)
    return JSONResponse(model_document(changed), headers={"etag": changed.etag})


@router.get("/models/{model}/versions", summary="Versions of a model", response_model=VersionsDocument)
def versions(
    request: Request,
    model: Model,
    *,
    project: Project = None,
    state: VersionState | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Newest first."""
    with parts_of(request).database.read() as tx:
        found = _model(tx, request, model, project)
        return list_versions(tx, found, state=state, limit=limit, cursor=cursor).document(version_document)


@router.get("/models/{model}/versions/{version}", summary="One version", response_model=VersionDocument)
def show_version(request: Request, model: Model, version: Version, *, project: Project = None) -> Response:
    """The version with its contract, files and audit."""
    with parts_of(request).database.read() as tx:
        found = find_version(tx, _model(tx, request, model, project), version)
    return JSONResponse(version_document(found), headers={"etag": found.etag})


@router.post("/models/{model}/versions/{version}/approve", summary="Approve a version", response_model=VersionDocument)
def approve(
    request: Request,
    model: Model,
    version: Version,
    *,
    body: Annotated[DecisionBody | None, Body()] = None,
    project: Project = None,
    if_match: IfMatch = None,
) -> Response:
    """Let a version in that needed a person. Where the project asks for two, its author may not."""
    return _decide(request, VersionAction.APPROVE, (model, version, project), body=body, if_match=if_match)


@router.post("/models/{model}/versions/{version}/reject", summary="Reject a version", response_model=VersionDocument)
def reject(
    request: Request,
    model: Model,
    version: Version,
    *,
    body: Annotated[DecisionBody | None, Body()] = None,
    project: Project = None,
    if_match: IfMatch = None,
) -> Response:
    """Keep a version out, with the reason."""
    return _decide(request, VersionAction.REJECT, (model, version, project), body=body, if_match=if_match)


@router.post("/models/{model}/versions/{version}/archive", summary="Archive a version", response_model=VersionDocument)
def archive(
    request: Request, model: Model, version: Version, *, project: Project = None, if_match: IfMatch = None
) -> Response:
    """Take a version out of the choice; it can be restored."""
    return _decide(request, VersionAction.ARCHIVE, (model, version, project), if_match=if_match)


@router.post("/models/{model}/versions/{version}/restore", summary="Restore a version", response_model=VersionDocument)
def restore(
    request: Request, model: Model, version: Version, *, project: Project = None, if_match: IfMatch = None
) -> Response:
    """Bring an archived version back."""
    return _decide(request, VersionAction.RESTORE, (model, version, project), if_match=if_match)


@router.delete(
    "/models/{model}/versions/{version}", summary="Delete a version", status_code=204, response_class=Response
)
def delete(
    request: Request, model: Model, version: Version, *, project: Project = None, if_match: IfMatch = None
) -> Response:
    """For good: its files go, its name is never used again, its history stays."""
    parts = parts_of(request)
    deleted = _carry_out(request, VersionAction.DELETE, (model, version, project), if_match=if_match)
    parts.get(Removals).give_back(deleted)
    return Response(status_code=204)


@router.get(
    "/models/{model}/versions/{version}/files/{file}",
    summary="Download a file",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}}, "description": "The bytes, as uploaded"}},
)
def download(
    request: Request,
    model: Model,
    version: Version,
    file: Annotated[str, Path(max_length=128, description="As listed in `files`.")],
    *,
    project: Project = None,
) -> StreamingResponse:
    """The bytes as they were uploaded, checked against their digest before the first one leaves."""
    parts = parts_of(request)
    with parts.database.read() as tx:
        found = find_version(tx, _model(tx, request, model, project), version)
    stored = found.files.get(file)
    if stored is None:
        raise missing(f"file {quote(file)} in {quote(found.model)}:{found.version}")
    headers = {
        "content-disposition": f'attachment; filename="{file}"',
        "content-length": str(stored.size_bytes),
        "etag": f'"{stored.sha256}"',
    }
    stream = parts.artifacts.open(stored.sha256)
    return StreamingResponse(_blocks(stream), media_type="application/octet-stream", headers=headers)


@router.put("/models/{model}/aliases/{alias}", summary="Point an alias at a version", response_model=ModelDocument)
def put_alias(
    request: Request,
    model: Model,
    alias: Annotated[str, Path(max_length=63)],
    body: AliasBody,
    *,
    project: Project = None,
    if_match: IfMatch = None,
) -> Response:
    """`champion` is what is deployed when nobody says which."""
    with parts_of(request).database.begin() as tx:
        found = _model(tx, request, model, project)
        _require_match(if_match, found.etag)
        changed = set_alias(tx, caller(request), found, alias, body.version)
    return JSONResponse(model_document(changed), headers={"etag": changed.etag})


@router.delete("/models/{model}/aliases/{alias}", summary="Remove an alias", status_code=204, response_class=Response)
def delete_alias(
    request: Request,
    model: Model,
    alias: Annotated[str, Path(max_length=63)],
    *,
    project: Project = None,
    if_match: IfMatch = None,
) -> Response:
    """The version it pointed at stays."""
    with parts_of(request).database.begin() as tx:
        found = _model(tx, request, model, project)
        _require_match(if_match, found.etag)
        remove_alias(tx, caller(request), found, alias)
    return Response(status_code=204)


@router.get("/reviews", summary="What waits for a person", response_model=VersionsDocument, tags=["reviews"])
def reviews(
    request: Request, *, project: Project = None, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> dict[str, Any]:
    """Versions that need review, oldest first, in every project where the caller may decide."""
    chosen = None if project == EVERY_PROJECT else project
    with parts_of(request).database.read() as tx:
        return list_reviews(tx, caller(request), project=chosen, limit=limit, cursor=cursor).document(version_document)


def _decide(
    request: Request,
    action: VersionAction,
    place: tuple[str, str, str | None],
    *,
    body: DecisionBody | None = None,
    if_match: str | None,
) -> Response:
    decided = _carry_out(request, action, place, reason=body.reason if body else "", if_match=if_match)
    return JSONResponse(version_document(decided), headers={"etag": decided.etag})


def _carry_out(
    request: Request,
    action: VersionAction,
    place: tuple[str, str, str | None],
    *,
    reason: str = "",
    if_match: str | None,
) -> VersionRecord:
    parts = parts_of(request)
    name, label, project = place
    with parts.database.begin() as tx:
        found = find_version(tx, _model(tx, request, name, project), label)
        _require_match(if_match, found.etag)
        authorise(caller(request), found, action)
        if action in (VersionAction.ARCHIVE, VersionAction.REJECT, VersionAction.DELETE) and parts.has(VersionUsers):
            parts.get(VersionUsers).require_unused(tx, found)
        return decide(tx, caller(request), version=found, action=action, reason=reason)


def _model(tx: Transaction, request: Request, name: str, project: str | None) -> ModelRecord:
    who = caller(request)
    return find_model(tx, project or who.project, name, seen_by=who)


def _require_match(if_match: str | None, etag: str) -> None:
    if if_match not in (None, "*", etag):
        raise PreconditionFailed("it changed since it was read", hint="read it again, then change it")


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while block := stream.read(_BLOCK):
            yield block
