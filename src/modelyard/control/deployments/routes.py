"""Services over HTTP. A wish is answered 202 at once; how far it came is at the service's address."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from modelyard.control.catalog import find_model, find_version
from modelyard.control.deployments import store
from modelyard.control.deployments.graphs import contract_of_graph
from modelyard.control.deployments.manifest_routes import router as manifests
from modelyard.control.deployments.rollouts import Decision, Rollouts
from modelyard.control.deployments.scaler import Scaler
from modelyard.control.deployments.schemas import NAME, MoveBody, NewService, PromoteBody, RollbackBody, ServiceBody
from modelyard.control.deployments.service import Deployments
from modelyard.control.deployments.store import Stored
from modelyard.control.deployments.view import (
    Addresses,
    account_document,
    revision_document,
    rollout_document,
    scaling_document,
    service_document,
)
from modelyard.control.deployments.wishes import Wish
from modelyard.control.identity import Principal, caller, reach_of, require
from modelyard.control.nodes import Board
from modelyard.control.records import DEFAULT_LIMIT, MAX_LIMIT, cut, keep, parts_of, read_cursor, recall
from modelyard.control.records import Answer as Remembered
from modelyard.domain.access import Verb
from modelyard.domain.errors.platform import NotFound
from modelyard.domain.service import ServiceSpec
from modelyard.foundation.documents import from_plain, to_json, to_plain
from modelyard.foundation.metrics.inputs import account_of

router = APIRouter(tags=["services"])
router.include_router(manifests)
ServiceName = Annotated[str, Path(pattern=NAME, max_length=63)]
Project = Annotated[str | None, Query(pattern=NAME, max_length=63, description="The project; default: the caller's.")]
IfMatch = Annotated[str | None, Header(max_length=500)]


@router.get("/services", summary="List services")
def list_services(request: Request, *, project: Project = None) -> dict[str, Any]:
    """All services that the caller may see."""
    deployments = parts_of(request).get(Deployments)
    with deployments.database.read() as tx:
        found = store.find_services(tx, reach=reach_of(caller(request)), project=project)
    return {"items": [_document(request, stored) for stored in found], "next_cursor": None}


@router.post("/services", summary="Create or change a service", status_code=202)
def create_service(
    request: Request,
    body: NewService,
    *,
    project: Project = None,
    idempotency_key: Annotated[str | None, Header(max_length=128)] = None,
    if_match: IfMatch = None,
) -> Response:
    """Create a service or change it; the same wish twice is one. 202, and `Location` says where to look."""
    who = caller(request)
    wish = body.wish(body.name, body.project or project or who.project)
    return _apply(request, wish, idempotency_key=idempotency_key, if_match=if_match)


@router.put("/services/{service}", summary="Create or change a service by name", status_code=202)
def put_service(
    request: Request, service: ServiceName, body: ServiceBody, *, project: Project = None, if_match: IfMatch = None
) -> Response:
    """Create a service or change it, by name."""
    wish = body.wish(service, project or caller(request).project)
    return _apply(request, wish, idempotency_key=None, if_match=if_match)


@router.get("/services/{service}", summary="How a service stands, and how to ask it")
def show_service(request: Request, service: ServiceName, *, project: Project = None) -> Response:
    """A service: what was asked, what answers, how far it is and why; how to ask it, with a request that works."""
    who = caller(request)
    stored = parts_of(request).get(Deployments).find(who, project or who.project, service)
    document = _document(request, stored)
    return JSONResponse(document | _how_to_ask(request, document), headers={"ETag": stored.etag})


@router.delete("/services/{service}", summary="Take a service away", status_code=202)
def delete_service(
    request: Request, service: ServiceName, *, project: Project = None, if_match: IfMatch = None
) -> Response:
    """Take a service away: no new requests from now on, what is under way is answered. Its history stays."""
    who = caller(request)
    parts_of(request).get(Deployments).delete(who, project or who.project, service, if_match=if_match)
    return Response(status_code=202)


@router.get("/services/{service}/account", summary="What became of every request of a service")
def show_account(request: Request, service: ServiceName, *, project: Project = None) -> dict[str, Any]:
    """What became of every request, over all servers and their restarts.

    received = answered + rejected + lost + in flight; rejected and lost by reason.
    """
    who, parts = caller(request), parts_of(request)
    place = project or who.project
    parts.get(Deployments).find(who, place, service)
    return account_document(account_of(parts.places.metrics, place, service))


@router.get("/services/{service}/scaling", summary="How many workers a service has, and why")
def show_scaling(request: Request, service: ServiceName, *, project: Project = None) -> dict[str, Any]:
    """The present number, the latest decision with the figures it follows from, and the last change."""
    who, parts = caller(request), parts_of(request)
    stored = parts.get(Deployments).find(who, project or who.project, service)
    latest = parts.get(Scaler).latest(stored.service.project, stored.service.name) if parts.has(Scaler) else None
    return scaling_document(stored, latest)


@router.get("/services/{service}/revisions", summary="Every change of a service")
def list_revisions(
    request: Request,
    service: ServiceName,
    *,
    project: Project = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
) -> dict[str, Any]:
    """Every change of a service, newest first: who wanted it, why, and what became of it."""
    who, deployments = caller(request), parts_of(request).get(Deployments)
    place = project or who.project
    deployments.find(who, place, service)
    before = None if cursor is None else read_cursor(cursor, kinds=(int,))[0]
    with deployments.database.read() as tx:
        found = store.list_revisions(
            tx, place, service, before=before if isinstance(before, int) else None, limit=limit + 1
        )
    page = cut(found, limit=limit, position=lambda revision: (revision.number,))
    return page.document(revision_document)


@router.post("/services/{service}/rollback", summary="Go back to an earlier revision", status_code=202)
def roll_back(
    request: Request,
    service: ServiceName,
    body: Annotated[RollbackBody, Body(default_factory=RollbackBody)],
    *,
    project: Project = None,
) -> Response:
    """Let an earlier revision answer again, as a new revision of its own."""
    who = caller(request)
    place = project or who.project
    deployments = parts_of(request).get(Deployments)
    stored = deployments.roll_back(who, place, service, to=body.revision, why=body.why)
    return _accepted(_document(request, stored), stored.etag)


@router.get("/services/{service}/rollout", summary="What is on its way, and how far")
def show_rollout(request: Request, service: ServiceName, *, project: Project = None) -> dict[str, Any]:
    """What is on its way to the traffic, how far it is, what moves it, and which digests are rejected."""
    who = caller(request)
    return rollout_document(parts_of(request).get(Deployments).find(who, project or who.project, service))


@router.post("/services/{service}/rollout/promote", summary="Give a canary more traffic, or all", status_code=202)
def promote(
    request: Request,
    service: ServiceName,
    body: Annotated[PromoteBody, Body(default_factory=PromoteBody)],
    *,
    project: Project = None,
) -> Response:
    """Give a canary all of the traffic, or its next share."""
    who, place = _mover(request, service, project)
    rollouts = parts_of(request).get(Rollouts)
    decision = _decision(who, body, "promoted by")
    move = rollouts.promote if body.to == "end" else rollouts.advance
    stored = move(place, service, decision)
    return _accepted(_document(request, stored), stored.etag)


@router.post("/services/{service}/rollout/abort", summary="Give up what is on its way", status_code=202)
def abort(
    request: Request,
    service: ServiceName,
    body: Annotated[MoveBody, Body(default_factory=MoveBody)],
    *,
    project: Project = None,
) -> Response:
    """Give all of the traffic back to what was live; the candidate's digest is rejected until a person lifts that."""
    who, place = _mover(request, service, project)
    stored = parts_of(request).get(Rollouts).abort(place, service, _decision(who, body, "aborted by"))
    return _accepted(_document(request, stored), stored.etag)


def _mover(request: Request, service: str, project: str | None) -> tuple[Principal, str]:
    who = caller(request)
    place = project or who.project
    require(who, Verb.DEPLOY, project=place, name=service)
    return who, place


def _decision(who: Principal, body: MoveBody, what: str) -> Decision:
    reason = f"{what} {who.name}" + (f": {body.why}" if body.why else "")
    return Decision(actor=who.actor, reason=reason, revision=body.revision)


def _apply(request: Request, wish: Wish, *, idempotency_key: str | None, if_match: str | None) -> Response:
    who, deployments = caller(request), parts_of(request).get(Deployments)
    asked = to_json((request.method, request.url.path, wish))
    with deployments.database.read() as tx:
        before = recall(tx, owner=who.owner, key=idempotency_key, request=asked)
    if before is not None:
        return _accepted(dict(before.document), None)
    stored, how = deployments.apply(who, wish, if_match=if_match)
    document = {**_document(request, stored), "chosen": how}
    if idempotency_key is not None:  # the wish itself is idempotent, so a crash before this line does no harm
        with deployments.database.begin() as tx:
            if recall(tx, owner=who.owner, key=idempotency_key, request=asked) is None:
                keep(tx, owner=who.owner, key=idempotency_key, request=asked, answer=Remembered(202, document))
    return _accepted(document, stored.etag)


def _accepted(document: dict[str, Any], etag: str | None) -> Response:
    where = f"/api/v1/services/{document['name']}?project={document['project']}"
    headers = {"Location": where} | ({} if etag is None else {"ETag": etag})
    return JSONResponse(document, 202, headers)


def _how_to_ask(request: Request, document: dict[str, Any]) -> dict[str, Any]:
    """Inputs, outputs and labels of the version that answers, and a request that it answers right."""
    if document["spec"].get("upstream") is not None:
        relayed = document["spec"]["upstream"]["protocol"] == "openai"
        chat = {"model": document["name"], "messages": [{"role": "user", "content": "Hello"}]}
        return {"contract": None, "example": chat if relayed else None}
    with parts_of(request).get(Deployments).database.read() as tx:
        if document["spec"].get("graph") is not None:
            contract = contract_of_graph(tx, from_plain(document["spec"], ServiceSpec))
            return {"contract": None if contract is None else to_plain(contract), "example": None}
        try:
            version = find_version(tx, find_model(tx, document["project"], document["model"]), document["version"])
        except NotFound:
            return {"contract": None, "example": None}
    golden = version.golden
    return {
        "contract": None if version.contract is None else to_plain(version.contract),
        "example": None if golden is None else to_plain(golden)["request"],
    }


def _document(request: Request, stored: Stored) -> dict[str, Any]:
    parts = parts_of(request)
    servers = parts.get(Board).alive()
    return service_document(stored, servers=servers, inference_url=parts.get(Addresses).inference_url)
