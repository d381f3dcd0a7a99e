"""The handler behind the inference listener: known infer addresses by one look-up, everything else by the table.

`handle` runs on the loop and never blocks. A prediction's way through it makes no future, task, lock or timer.
"""

from collections.abc import Mapping
from time import perf_counter
from typing import Final

from modelyard.domain.access import Verb
from modelyard.domain.errors.base import ModelyardError, quote
from modelyard.domain.errors.edge import BadHeader, MethodNotAllowed, NotAcceptable, UnsupportedMediaType
from modelyard.domain.errors.platform import NotFound
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.inference.admission import ANYONE, Caller
from modelyard.inference.routing import ServedBackend, Service, Switchboard
from modelyard.inference.server.addresses import OPEN, POSTED, RELAYED, Address, Page, read_address
from modelyard.inference.server.answers import send_error
from modelyard.inference.server.call import InferCall
from modelyard.inference.server.dialects import MLFLOW, V1, V2, Dialect
from modelyard.inference.server.openai import OpenAiDoor
from modelyard.inference.server.pages import Pages
from modelyard.inference.server.reach import service_to_ask, unreachable

_READ: Final = frozenset({"GET", "HEAD"})
_INFER_TYPES: Final = frozenset({None, b"application/json", b"application/octet-stream"})
_WANTED: Final = ("*/*", "application/*", "application/json", "application/octet-stream")
_MOST_DIGITS: Final = 19


class InferenceHandler:
    """Answers the inference listener from a switchboard."""

    def __init__(self, board: Switchboard, pages: Pages) -> None:
        self._board = board
        self._pages = pages
        self._openai = OpenAiDoor(board)
        self._infer: dict[str, dict[str, Service]] = {}

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
        services = self._infer.get(head.path)
        try:
            if services is not None and head.method == "POST":
                keys = self._board.keys
                caller = keys.identify(head.fields.get(b"authorization")) if keys.required else ANYONE
                service = services.get(caller.project)
                if service is None or (
                    caller is not ANYONE and not caller.may(Verb.INFER, service.project, service.name)
                ):
                    raise self._unreachable(caller, service, head.path)
                self._predict(request, reply, service, caller, version=None, dialect=V2)
            else:
                self._other(request, reply)
        except ModelyardError as error:
            send_error(request, reply, error)

    def _other(self, request: Request, reply: Reply) -> None:
        address = read_address(request.path)
        page = address.page
        allowed = ("POST",) if page in POSTED else ("GET", "HEAD")
        if request.method not in allowed:
            raise MethodNotAllowed(f"this address takes {' and '.join(allowed)}", hint=f"use {allowed[0]}")
        if page in OPEN:
            self._pages.health(address, reply)
            return
        caller = self._board.keys.identify(request.get(b"authorization"))
        predicts = _PREDICTS.get(page)
        if predicts is not None:
            service = self._service_for(address, caller)
            self._predict(request, reply, service, caller, version=address.version, dialect=predicts)
        elif page in RELAYED:
            self._openai.answer(address, request, reply, caller)
        else:
            self._pages.show(address, request, reply, caller)

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

    def _predict(
        self, request: Request, reply: Reply, service: Service, caller: Caller, *, version: str | None, dialect: Dialect
    ) -> None:
        """Admit, decode and line up one prediction. Every way out is booked in the service's account."""
        started = perf_counter()
        measures = service.measures
        measures.received.add()
        try:
            fields = request.head.fields
            content_type = fields.get(b"content-type")
            if content_type not in _INFER_TYPES:
                _check_type(content_type, dialect)
            accept = fields.get(b"accept")
            if accept is not None and accept != b"*/*":
                _check_accept(accept)
            gate = service.enter(caller.allowance, fields)
        except ModelyardError as error:
            measures.rejected(error.code)
            send_error(request, reply, error)
            return
        backend: ServedBackend | None = None
        try:
            backend = service.choose(fields) if version is None else service.at_version(version)
            assert backend.signature is not None
            assert backend.batcher is not None
            parsed = dialect.read(request.body, fields, backend.signature)
            patience = fields.get(b"x-request-timeout-ms")
            if patience is not None:
                parsed.timeout_us = _shorter(parsed.timeout_us, patience)
        except ModelyardError as error:
            service.leave(gate)
            measures.rejected(error.code)
            if backend is None:
                send_error(request, reply, error)
            else:
                send_error(request, reply, error, headers=backend.headers)
            return
        call = InferCall(
            parsed, request, reply, service=service, backend=backend, gate=gate, write=dialect.write, started=started
        )
        if backend.signature.varies:
            call.shape_key = backend.signature.shape_key(parsed.inputs)
        batcher = backend.batcher
        if batcher.may_wait:
            reply.on_disconnect(lambda: batcher.discard(call))
        batcher.submit(call)


_PREDICTS: Final[Mapping[Page, Dialect]] = {Page.INFER: V2, Page.PREDICT: V1, Page.INVOCATIONS: MLFLOW}


class _Everywhere(dict[str, Service]):
    """The same service for a caller of any project."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def get(self, key: str, default: object = None) -> Service:
        return self._service


def _shorter(timeout_us: int, patience: bytes) -> int:
    """The shorter of the body's `timeout` (0: none) and the header's milliseconds."""
    if not patience.isdigit() or len(patience) > _MOST_DIGITS or not int(patience):
        raise BadHeader(
            f"x-request-timeout-ms cannot be {quote(patience.decode('latin-1'))}", hint="send whole milliseconds"
        )
    asked = int(patience) * 1000
    return min(timeout_us, asked) if timeout_us else asked


def _check_type(value: bytes | None, dialect: Dialect) -> None:
    kind = (value or b"").split(b";")[0].strip().lower().decode("latin-1")
    if kind not in dialect.content_types:
        raise UnsupportedMediaType(
            "this address does not read that content type", hint=f"send {' or '.join(dialect.content_types)}"
        )


def _check_accept(value: bytes) -> None:
    kinds = {part.split(";")[0].strip().lower() for part in value.decode("latin-1").split(",")}
    if not kinds.intersection(_WANTED):
        raise NotAcceptable("answers here are application/json", hint="send the header Accept: application/json")
