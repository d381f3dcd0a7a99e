"""The handler behind the inference listener: known infer addresses by one look-up, everything else by the table.

It finds out who asks, which service is meant and whether the caller may ask it; `predicting` does the rest. Requests
that came in one turn of the loop are looked up once (`_Kind`), not once each; a table or a key that changed counts from
the next turn on. Nothing here blocks, and a prediction's way makes no future, task or lock.
"""

from collections.abc import Mapping
from typing import Final

from modelyard.domain.access import Verb
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.edge import MethodNotAllowed
from modelyard.domain.errors.platform import NotFound
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.foundation.http.head import Head
from modelyard.foundation.http.turns import Arrival, Route, Turn
from modelyard.inference.admission import ANYONE, Caller
from modelyard.inference.protocol import parse_json_size
from modelyard.inference.routing import Service, Switchboard
from modelyard.inference.server.addresses import CHANGED, DEFERRED, OPEN, POSTED, RELAYED, Address, Page, read_address
from modelyard.inference.server.answers import send_error
from modelyard.inference.server.deferring import DeferredDoor, wants_later
from modelyard.inference.server.dialects import GENERATE, MLFLOW, V1, V2, Dialect
from modelyard.inference.server.events import MARK
from modelyard.inference.server.openai import OpenAiDoor
from modelyard.inference.server.pages import Pages
from modelyard.inference.server.predicting import INFER_TYPES, Asked, AskedTogether, ask, take
from modelyard.inference.server.reach import service_to_ask, unreachable
from modelyard.inference.server.streams import StreamDoor

_ANY: Final = frozenset({None, b"*/*"})
_OF_ONE: Final = frozenset({MARK, b"priority", b"x-request-timeout-ms", b"prefer"})
"""Headers that say how one request is to be treated: it does not go together with others."""
_MOST_KINDS: Final = 1024


class InferenceHandler:
    """Answers the inference listener from a switchboard."""

    def __init__(self, board: Switchboard, pages: Pages, deferred: DeferredDoor | None = None) -> None:
        self._board = board
        self._deferred = deferred
        self._pages = pages
        self._openai = OpenAiDoor(board)
        self._streams = StreamDoor(board)
        self._infer: dict[str, dict[str, Service]] = {}
        self._kinds: dict[tuple[str, bytes | None, int | None], _Kind] = {}

    def services_changed(self) -> None:
        """Rebuild the known infer addresses. To be called after each table."""
        known: dict[str, dict[str, Service]] = {}
        for (project, name), service in self._board.services.items():
            if service.is_relayed:
                continue  # takes no tensors: the slow way says what it takes
            known.setdefault(f"/v2/models/{name}/infer", {})[project] = service
            known[f"/p/{project}/v2/models/{name}/infer"] = _Everywhere(service)
        self._infer = known

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer, now or when the model has."""
        head = request.head
        try:
            if head.method == "POST" and head.path in self._infer:
                service, caller = self._reach(head.path, head.fields.get(b"authorization"))
                self._ask(Asked(request, reply, service, caller, V2))
            else:
                self._other(request, reply)
        except ModelyardError as error:
            send_error(request, reply, error)

    def _ask(self, asked: Asked) -> None:
        """Now, or later where the caller prefers that and it can be had: a preference is no demand (RFC 7240)."""
        if self._deferred is not None and wants_later(asked.request.head.fields):
            self._deferred.take(asked)
        else:
            ask(asked)

    def route(self, head: Head) -> Route | None:
        """V2 requests without anything special in their heads go together."""
        fields = head.fields
        if head.method != "POST" or head.path not in self._infer:
            return None
        if fields.get(b"content-type") not in INFER_TYPES or fields.get(b"accept") not in _ANY:
            return None
        if not _OF_ONE.isdisjoint(fields):
            return None
        size = fields.get(b"inference-header-content-length")
        try:
            json_size = None if size is None else parse_json_size(size)
        except ModelyardError:
            return None
        if json_size == 0:
            return None
        key = (head.path, fields.get(b"authorization"), json_size)
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= _MOST_KINDS:
                self._kinds.clear()
            kind = self._kinds[key] = _Kind(self, *key)
        return kind

    def take(self, kind: "_Kind", arrivals: list[Arrival], turn: Turn) -> None:
        """Look once at who asks for what; whatever stands in the way of all is told to each."""
        try:
            service, caller = self._reach(kind.path, kind.authorization)
        except ModelyardError:
            turn.each(arrivals)
            return
        take(AskedTogether(arrivals, turn, service, caller, kind.json_size))

    def _reach(self, path: str, authorization: bytes | None) -> tuple[Service, Caller]:
        """The service at a known infer address, and who asks for it.

        Raises:
            ModelyardError: nobody we know, or nothing that the caller may ask.
        """
        keys = self._board.keys
        caller = keys.identify(authorization) if keys.required else ANYONE
        services = self._infer.get(path)
        service = None if services is None else services.get(caller.project)
        if service is None or (caller is not ANYONE and not caller.may(Verb.INFER, service.project, service.name)):
            raise self._unreachable(caller, service, path)
        return service, caller

    def _other(self, request: Request, reply: Reply) -> None:
        address = read_address(request.path)
        page = address.page
        allowed = ("POST",) if page in POSTED else ("GET", "HEAD", *_ALSO.get(page, ()))
        if request.method not in allowed:
            raise MethodNotAllowed(f"this address takes {' and '.join(allowed)}", hint=f"use {allowed[0]}")
        if page in OPEN:
            self._pages.health(address, reply)
            return
        caller = self._board.keys.identify(request.get(b"authorization"))
        predicts = _PREDICTS.get(page)
        if predicts is not None:
            service = self._service_for(address, caller)
            self._ask(Asked(request, reply, service, caller, predicts, address.version))
        elif page in DEFERRED:
            self._show_deferred(address, request, reply, caller)
        elif page is Page.GENERATE_STREAM:
            self._streams.answer(address, request, reply, caller)
        elif page in RELAYED:
            self._openai.answer(address, request, reply, caller)
        else:
            self._pages.show(address, request, reply, caller)

    def _show_deferred(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        if self._deferred is None:
            raise NotFound("there is no request of this id", hint="this server keeps none: it has no data directory")
        self._deferred.show(address, request, reply, caller)

    def _service_for(self, address: Address, caller: Caller) -> Service:
        if address.page is not Page.INVOCATIONS:
            return service_to_ask(self._board, caller, address.project, address.model)
        service = self._board.only_service()
        if service is None or service.is_relayed:
            raise NotFound(
                "this address needs exactly one service to be there", hint="POST to /v2/models/NAME/infer instead"
            )
        if not caller.may(Verb.INFER, service.project, service.name):
            raise unreachable(self._board, caller, service.project, service.name)
        return service

    def _unreachable(self, caller: Caller, service: Service | None, path: str) -> ModelyardError:
        """Of a known infer address, whose last part but one is the name."""
        project = None if service is None else service.project
        return unreachable(self._board, caller, project, path.rsplit("/", 2)[1])


class _Kind:
    """Requests to one infer address with one key, in one encoding."""

    __slots__ = ("_handler", "authorization", "json_size", "path")

    def __init__(
        self, handler: InferenceHandler, path: str, authorization: bytes | None, json_size: int | None
    ) -> None:
        self._handler = handler
        self.path = path
        self.authorization = authorization
        self.json_size = json_size

    def take(self, arrivals: list[Arrival], turn: Turn) -> None:
        """Take what came in one turn."""
        self._handler.take(self, arrivals, turn)


_ALSO: Final[Mapping[Page, tuple[str, ...]]] = dict.fromkeys(CHANGED, ("POST",)) | {Page.REQUEST: ("DELETE",)}
_PREDICTS: Final[Mapping[Page, Dialect]] = {
    Page.INFER: V2,
    Page.PREDICT: V1,
    Page.INVOCATIONS: MLFLOW,
    Page.GENERATE: GENERATE,
}


class _Everywhere(dict[str, Service]):
    """The same service for a caller of any project."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def get(self, key: str, default: object = None) -> Service:
        return self._service
