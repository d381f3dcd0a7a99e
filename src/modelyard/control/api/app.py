"""Put the control API together: every capability's routes behind one gate, with one form of error.

`create_app(parts)` gives an ASGI application. What runs beside the requests (sealing history, reconciling) is started
and stopped with it, by the application's lifespan.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from typing import Any, Final, cast

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from modelyard.control.api import docs, events, health, platform
from modelyard.control.api.gate import Gate
from modelyard.control.api.mounted import ROUTERS
from modelyard.control.api.openapi import describe
from modelyard.control.api.policy import POLICY, PolicyTable, Rule
from modelyard.control.api.problems import MEDIA_TYPE, headers_of, problem, status_of
from modelyard.control.api.validation import invalid
from modelyard.control.backups import Backups
from modelyard.control.catalog import Removals
from modelyard.control.history import ANCHOR_FILE, Sequencer, append, chain_key
from modelyard.control.identity import Authenticator, IssuerBook, JournalBook, SecretStore
from modelyard.control.jobs import JobFiles
from modelyard.control.records import ControlParts
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.edge import BodyIncomplete, EdgeError, MethodNotAllowed, RouteNotFound
from modelyard.foundation.strict_json import guard
from modelyard.version import __version__

PREFIX: Final = "/api/v1"
Beside = Callable[[], AbstractContextManager[object]]
"""Opens something that runs beside the requests, for as long as the application does."""


def create_app(
    parts: ControlParts, *, routers: Sequence[APIRouter] = (), rules: dict[tuple[str, str], Rule] | None = None
) -> FastAPI:
    """The application. `routers` are mounted below `/api/v1` besides those of the capabilities; they need `rules`.

    The parts must hold the services that the capabilities' routes ask for; those that need nothing
    but the parts themselves (`Authenticator`, `Sequencer`, `Removals`, `Backups`) are added here when they are not
    there yet.
    """
    _complete(parts)
    app = _mounted(routers)
    app.state.parts = parts
    app.add_exception_handler(ModelyardError, _answer)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_framework)
    app.add_middleware(
        cast("Any", Gate),
        policy=PolicyTable({**POLICY, **(rules or {})}),
        authenticator=parts.get(Authenticator),
        auth_required=parts.auth_required,
        max_body_bytes=parts.settings.api.max_body_bytes,
        guard=guard,
    )
    app.openapi = lambda: describe(app, {**POLICY, **(rules or {})})  # type: ignore[method-assign]
    return app


def describe_api() -> dict[str, Any]:
    """The OpenAPI document of everything that is mounted, without anything to serve it from."""
    return describe(_mounted(()), POLICY)


def _mounted(routers: Sequence[APIRouter]) -> FastAPI:
    app = FastAPI(
        title="Modelyard",
        version=__version__,
        summary="From a trained model file to a governed, monitored production service",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    for router in (health.router, docs.router):
        app.include_router(router)
    added = [router for router in routers if router not in ROUTERS]
    for router in (platform.router, events.router, *ROUTERS, *added):
        app.include_router(router, prefix=PREFIX)
    return app


def end_streams(app: FastAPI) -> None:
    """Let every event stream end. To be called when the listener begins to drain, which would wait for them."""
    bell: events.Bell | None = getattr(app.state, "events", None)
    if bell is not None:
        bell.close()


def problem_answer(error: ModelyardError, request: Request) -> JSONResponse:
    """The problem document of `error` as an answer."""
    number = getattr(request.state, "request_id", "")
    return JSONResponse(problem(error, request_id=number), status_of(error), headers_of(error), media_type=MEDIA_TYPE)


def _complete(parts: ControlParts) -> None:
    _complete_storage(parts)
    if not parts.has(JournalBook):
        parts.put(JournalBook, JournalBook(append))
    if not parts.has(SecretStore):
        parts.put(SecretStore, SecretStore(parts.places.sealing_key))
    if not parts.has(Authenticator):
        issuers = parts.get(IssuerBook) if parts.has(IssuerBook) else None
        authenticator = Authenticator(
            parts.database, pepper=parts.pepper, settings=parts.settings.keys, issuers=issuers
        )
        parts.put(Authenticator, authenticator)
    if not parts.has(Sequencer):
        sequencer = Sequencer(
            parts.database,
            key=chain_key(parts.pepper),
            anchors=parts.places.kept / ANCHOR_FILE,
            settings=parts.settings.history,
        )
        parts.put(Sequencer, sequencer)


def _complete_storage(parts: ControlParts) -> None:
    if not parts.has(Removals):
        removals = Removals(parts.database, artifacts=parts.artifacts, packages=parts.places.packages)
        parts.put(Removals, removals)
    if not parts.has(Backups):
        backups = Backups(
            database=parts.database,
            artifacts=parts.artifacts,
            places=parts.places,
            removals=parts.get(Removals),
            job_files=parts.get(JobFiles).store if parts.has(JobFiles) else None,
        )
        parts.put(Backups, backups)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: ControlParts = app.state.parts
    sequencer = parts.get(Sequencer)
    with ExitStack() as beside:
        sequencer.start()
        beside.callback(sequencer.stop)
        app.state.events = events.Bell(parts.database)
        beside.callback(app.state.events.close)
        await run_in_threadpool(events.forget_old, parts)
        yield
        app.state.events.close()


async def _answer(request: Request, error: Exception) -> JSONResponse:
    return problem_answer(cast("ModelyardError", error), request)


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    return problem_answer(invalid(cast("RequestValidationError", error)), request)


async def _answer_framework(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself, in our form."""
    status = cast("HTTPException", error).status_code
    ours: ModelyardError
    match status:
        case 404:
            ours = RouteNotFound("nothing is served at this path", hint="/docs lists every path")
        case 405:
            ours = MethodNotAllowed("this path does not take this method")
        case 400:
            ours = BodyIncomplete("the body could not be read")
        case _:
            ours = EdgeError("the request is not one that can be served")
    return problem_answer(ours, request)
