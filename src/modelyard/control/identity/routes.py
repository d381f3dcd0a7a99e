"""Keys and projects over HTTP."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from modelyard.control.identity import bootstrap, keys, projects
from modelyard.control.identity.authentication import Authenticator
from modelyard.control.identity.journal import JournalBook
from modelyard.control.identity.principal import caller
from modelyard.control.identity.schemas import (
    CreatedKeyDocument,
    KeyDocument,
    KeysDocument,
    NewKeyBody,
    NewProjectBody,
    ProjectChanges,
    ProjectDocument,
    ProjectsDocument,
    TokenBody,
    WhoDocument,
    key_document,
    project_document,
)
from modelyard.control.identity.secret_routes import router as secret_router
from modelyard.control.identity.visibility import missing, reach_of
from modelyard.control.records import DEFAULT_LIMIT, MAX_LIMIT, Answer, keep, parts_of, recall
from modelyard.domain.access import parse_scope
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import PreconditionFailed, Unauthenticated

router = APIRouter()
router.include_router(secret_router)

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items a page.")]
Cursor = Annotated[str | None, Query(max_length=1024, description="`next_cursor` of the page before.")]
IdempotencyKey = Annotated[str | None, Header(max_length=128, description="The same creation twice happens once.")]
IfMatch = Annotated[str | None, Header(max_length=200, description="Only change what is still this ETag.")]


@router.get("/me", tags=["keys"], summary="Who is asking", response_model=WhoDocument)
def who_am_i(request: Request) -> dict[str, Any]:
    """The key that was sent, with its scopes and its own project."""
    who = caller(request)
    return {
        "key_id": who.key_id,
        "name": who.name,
        "project": who.project,
        "scopes": [str(scope) for scope in who.scopes],
    }


@router.get("/keys", tags=["keys"], summary="List keys", response_model=KeysDocument)
def list_keys(request: Request, *, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> dict[str, Any]:
    """Keys that the caller administers, newest first, without their text."""
    with parts_of(request).database.read() as tx:
        page = keys.list_keys(tx, caller(request), limit=limit, cursor=cursor)
        return page.document(lambda key: key_document(key, now=tx.now))


@router.post("/keys", tags=["keys"], summary="Make a key", status_code=201, response_model=CreatedKeyDocument)
def create_key(request: Request, body: NewKeyBody, *, idempotency_key: IdempotencyKey = None) -> Response:
    """A new key. Its text is in this answer and nowhere else; nobody can give away more than they have."""
    parts, who = parts_of(request), caller(request)
    days = body.expires_days if body.expires_days is not None else parts.settings.keys.expires_days
    new = keys.NewKey(
        name=body.name,
        scopes=tuple(parse_scope(scope) for scope in body.scopes),
        lifetime=None if body.never_expires else timedelta(days=days),
        project=body.project,
        limits=body.limits.value(),
    )
    asked = b"POST keys " + body.model_dump_json().encode()
    with parts.database.begin() as tx:
        earlier = recall(tx, owner=who.owner, key=idempotency_key, request=asked)
        if earlier is not None:
            return JSONResponse(dict(earlier.document), earlier.status)
        stored, text = keys.create_key(tx, who, new, pepper=parts.pepper, journal=parts.get(JournalBook).write)
        document = key_document(stored, now=tx.now)
        keep(
            tx,
            owner=who.owner,
            key=idempotency_key,
            request=asked,
            answer=Answer(201, {**document, "key": None}),
        )
    headers = {"location": f"/api/v1/keys/{stored.id}", "cache-control": "no-store"}
    return JSONResponse({**document, "key": text}, 201, headers)


@router.post(
    "/keys/bootstrap",
    tags=["keys"],
    summary="Trade the first start's token for an admin key",
    status_code=201,
    response_model=CreatedKeyDocument,
)
def trade_token(request: Request, body: TokenBody) -> Response:
    """Works once, within the token's time, while no key administers the platform."""
    parts = parts_of(request)
    throttle = parts.get(Authenticator).throttle
    pair = (request.client.host if request.client else "local", "bootstrap")
    throttle.check(pair)
    try:
        with parts.database.begin() as tx:
            stored, text = bootstrap.trade_token(
                tx,
                body.token.strip(),
                pepper=parts.pepper,
                lifetime=timedelta(days=parts.settings.keys.expires_days),
                journal=parts.get(JournalBook).write,
            )
            document = key_document(stored, now=tx.now)
    except Unauthenticated:
        throttle.failed(pair)
        raise
    throttle.succeeded(pair)
    bootstrap.remove_token_file(parts.places.data)
    return JSONResponse({**document, "key": text}, 201, {"cache-control": "no-store"})


@router.delete("/keys/{key}", tags=["keys"], summary="Revoke a key", response_model=KeyDocument)
def revoke_key(
    request: Request, key: Annotated[str, Path(max_length=64, description="The key's id, not the key.")]
) -> dict[str, Any]:
    """Works at once here and within five seconds at the model servers. Revoking twice is no error."""
    parts = parts_of(request)
    with parts.database.begin() as tx:
        stored = keys.revoke_key(tx, caller(request), key, journal=parts.get(JournalBook).write)
        return key_document(stored, now=tx.now)


@router.get("/projects", tags=["projects"], summary="List projects", response_model=ProjectsDocument)
def list_projects(request: Request) -> dict[str, Any]:
    """Projects that exist for the caller, by name."""
    with parts_of(request).database.read() as tx:
        return {"items": [project_document(item) for item in projects.list_projects(tx, caller(request))]}


@router.post("/projects", tags=["projects"], summary="Make a project", status_code=201, response_model=ProjectDocument)
def create_project(request: Request, body: NewProjectBody, *, idempotency_key: IdempotencyKey = None) -> Response:
    """A new project, empty and private."""
    parts, who = parts_of(request), caller(request)
    asked = b"POST projects " + body.model_dump_json().encode()
    with parts.database.begin() as tx:
        earlier = recall(tx, owner=who.owner, key=idempotency_key, request=asked)
        if earlier is not None:
            return JSONResponse(dict(earlier.document), earlier.status)
        project = projects.create_project(
            tx,
            who,
            name=body.name,
            description=body.description,
            two_person_review=body.two_person_review,
            journal=parts.get(JournalBook).write,
        )
        document = project_document(project)
        keep(tx, owner=who.owner, key=idempotency_key, request=asked, answer=Answer(201, document))
    return JSONResponse(document, 201, {"location": f"/api/v1/projects/{body.name}", "etag": f'"{project.edition}"'})


@router.get("/projects/{project}", tags=["projects"], summary="One project", response_model=ProjectDocument)
def show_project(request: Request, project: Annotated[str, Path(max_length=63)]) -> Response:
    """The project, or 404 also when it does not exist for the caller."""
    if not reach_of(caller(request)).covers(project, None):
        raise missing(f"project {quote(project)}")
    with parts_of(request).database.read() as tx:
        found = projects.find_project(tx, project)
    return JSONResponse(project_document(found), headers={"etag": f'"{found.edition}"'})


@router.patch("/projects/{project}", tags=["projects"], summary="Change a project", response_model=ProjectDocument)
def change_project(
    request: Request,
    body: ProjectChanges,
    project: Annotated[str, Path(max_length=63)],
    *,
    if_match: IfMatch = None,
) -> Response:
    """Set what is given, leave the rest. A quota that is given as null is lifted."""
    parts = parts_of(request)
    given = body.model_dump(exclude_unset=True)
    changes = {name: value for name, value in given.items() if value is not None or name in projects.QUOTAS}
    with parts.database.begin() as tx:
        if not reach_of(caller(request)).covers(project, None):
            raise missing(f"project {quote(project)}")
        before = projects.find_project(tx, project)
        if if_match not in (None, "*", f'"{before.edition}"'):
            raise PreconditionFailed("the project changed since it was read", hint="read it again, then change it")
        after = projects.change_project(
            tx, caller(request), name=project, changes=changes, journal=parts.get(JournalBook).write
        )
    return JSONResponse(project_document(after), headers={"etag": f'"{after.edition}"'})
