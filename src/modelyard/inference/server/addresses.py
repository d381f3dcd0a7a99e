"""What the inference listener's paths mean: one table of routes, read once a path that is not a known infer address."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import unquote

from modelyard.domain.errors.edge import RouteNotFound


class Page(StrEnum):
    """What can be asked for."""

    LIVE = "live"
    READY = "ready"
    SERVER = "server"
    MODELS = "models"
    ALL_STATS = "all_stats"
    MODEL = "model"
    MODEL_READY = "model_ready"
    MODEL_CONFIG = "model_config"
    MODEL_STATS = "model_stats"
    INFER = "infer"
    GENERATE = "generate"
    GENERATE_STREAM = "generate_stream"
    INDEX = "index"
    LOAD = "load"
    UNLOAD = "unload"
    LOGGING = "logging"
    V1_MODELS = "v1_models"
    V1_MODEL = "v1_model"
    PREDICT = "predict"
    INVOCATIONS = "invocations"
    PING = "ping"
    VERSION = "version"
    METRICS = "metrics"
    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    REQUEST = "request"
    RESPONSE = "response"


RELAYED: Final = frozenset({Page.CHAT, Page.COMPLETIONS, Page.EMBEDDINGS})
"""Pages of the OpenAI dialect that services with an upstream answer."""
POSTED: Final = RELAYED | {
    *(Page.INFER, Page.GENERATE, Page.GENERATE_STREAM, Page.INDEX, Page.LOAD, Page.UNLOAD, Page.PREDICT),
    Page.INVOCATIONS,
}
"""Pages that take POST; all others take GET and HEAD."""
DEFERRED: Final = frozenset({Page.REQUEST, Page.RESPONSE})
"""Pages of requests that are answered later; the first takes DELETE too."""
CHANGED: Final = frozenset({Page.LOGGING})
"""Pages that take both: what stands there can be read and set."""
OPEN: Final = frozenset({Page.LIVE, Page.READY, Page.PING})
"""Pages that never ask for a key; with keys required they answer without a body."""


@dataclass(frozen=True, slots=True)
class Address:
    """A path, understood. `project` None means the caller's own; `model` is the service, or the id of a request."""

    page: Page
    project: str | None = None
    model: str = ""
    version: str | None = None


_PLAIN: Final[Mapping[str, Page]] = {
    "/healthz": Page.LIVE,
    "/readyz": Page.READY,
    "/metrics": Page.METRICS,
    "/ping": Page.PING,
    "/health": Page.PING,
    "/version": Page.VERSION,
    "/invocations": Page.INVOCATIONS,
    "/v2/health/live": Page.LIVE,
    "/v2/health/ready": Page.READY,
}
_SERVER: Final[Mapping[tuple[str, ...], Page]] = {
    ("v2",): Page.SERVER,
    ("v2", "health", "live"): Page.LIVE,
    ("v2", "health", "ready"): Page.READY,
    ("v2", "logging"): Page.LOGGING,
    ("v2", "models"): Page.MODELS,
    ("v2", "models", "stats"): Page.ALL_STATS,
    ("v2", "repository", "index"): Page.INDEX,
    ("v1", "models"): Page.V1_MODELS,
    ("v1", "chat", "completions"): Page.CHAT,
    ("v1", "completions"): Page.COMPLETIONS,
    ("v1", "embeddings"): Page.EMBEDDINGS,
}
_OF_MODEL: Final[Mapping[tuple[str, ...], Page]] = {
    (): Page.MODEL,
    ("ready",): Page.MODEL_READY,
    ("config",): Page.MODEL_CONFIG,
    ("stats",): Page.MODEL_STATS,
    ("infer",): Page.INFER,
    ("generate",): Page.GENERATE,
    ("generate_stream",): Page.GENERATE_STREAM,
}
_OF_REQUEST: Final[Mapping[tuple[str, ...], Page]] = {(): Page.REQUEST, ("response",): Page.RESPONSE}
_V1_HINT: Final = (
    "of the OpenAI API there are /v1/models, /v1/chat/completions, /v1/completions and /v1/embeddings, for services"
    " with such an upstream; POST /v2/models/NAME/infer asks any other"
)
_REPOSITORY: Final[Mapping[str, Page]] = {"load": Page.LOAD, "unload": Page.UNLOAD}
_MODEL_AT: Final = 2


def read_address(path: str) -> Address:
    """The meaning of a raw path.

    Raises:
        RouteNotFound: nothing is there.
    """
    plain = _PLAIN.get(path)
    if plain is not None:
        return Address(plain)
    parts = tuple(unquote(part) for part in path.removesuffix("/").split("/")[1:])
    project = None
    if len(parts) > _MODEL_AT and parts[0] == "p":
        project, parts = parts[1], parts[2:]
    if parts[:2] == ("openai", "v1"):  # as KServe writes them
        parts = parts[1:]
    page = _SERVER.get(parts)
    if page is not None:
        return Address(page, project)
    found = _below(parts, project)
    if found is None:
        hint = _V1_HINT if parts[:1] == ("v1",) else "GET /v2/models lists what is served"
        raise RouteNotFound("there is nothing at this address", hint=hint)
    return found


def _below(parts: tuple[str, ...], project: str | None) -> Address | None:
    """What stands below the name of a model, or the id of a request."""
    match parts:
        case ("v2", "models", model, "versions", version, *rest):
            page = _OF_MODEL.get(tuple(rest))
            return None if page is None else Address(page, project, model, version)
        case ("v2", "models", model, *rest):
            page = _OF_MODEL.get(tuple(rest))
            return None if page is None else Address(page, project, model)
        case ("v2", "repository", "models", model, verb) if verb in _REPOSITORY:
            return Address(_REPOSITORY[verb], project, model)
        case ("v1", "models", model):
            name, colon, verb = model.partition(":")
            page = Page.PREDICT if verb == "predict" else None if colon else Page.V1_MODEL
            return None if page is None else Address(page, project, name)
        case ("v2", "requests", request_id, *rest) if request_id:
            page = _OF_REQUEST.get(tuple(rest))
            return None if page is None else Address(page, project, request_id)
        case _:
            return None
