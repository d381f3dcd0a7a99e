"""Everything on the inference listener that is not a prediction: health, metadata, statistics, repository, metrics."""

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from modelyard.domain.access import Verb
from modelyard.domain.errors.platform import Forbidden
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.foundation.metrics import Group, render
from modelyard.foundation.metrics.exposition import CONTENT_TYPE
from modelyard.foundation.metrics.inputs import ACCOUNT
from modelyard.inference.admission import Caller
from modelyard.inference.deferred import FAMILIES as DEFERRED
from modelyard.inference.protocol import (
    model_configuration,
    model_metadata,
    repository_index,
    server_metadata,
    statistics,
)
from modelyard.inference.protocol.strict import load_strict
from modelyard.inference.routing import FAMILIES, BackendState, ServedBackend, Service, Switchboard
from modelyard.inference.server.addresses import Address, Page
from modelyard.inference.server.answers import send_json
from modelyard.inference.server.errands import Errands
from modelyard.inference.server.reach import backend_of, readable_services, service_to_change, service_to_read
from modelyard.inference.server.repository import Repository, check_parameters, read_parameters
from modelyard.inference.server.statistics import model_statistics
from modelyard.version import __version__

_OK: Final = 200
_UNAVAILABLE: Final = 503
_TEXT: Final = "text/plain"
_STATES: Final = {BackendState.READY: "READY", BackendState.LOADING: "LOADING"}
EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "generate",
    "logging",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
"""Of the Open Inference Protocol: only what works is listed."""


class Pages:
    """Shows what this server holds, to those who may see it."""

    def __init__(self, board: Switchboard, metrics: Path, repository: Repository) -> None:
        self._board = board
        self._metrics = metrics
        self._repository = repository
        self._errands = Errands()
        self.draining = False
        self._show: Mapping[Page, Callable[[Address, Request, Reply, Caller], None]] = {
            Page.SERVER: self._server,
            Page.MODELS: self._models,
            Page.ALL_STATS: self._all_stats,
            Page.MODEL: self._model,
            Page.MODEL_READY: self._model_ready,
            Page.MODEL_CONFIG: self._model_config,
            Page.MODEL_STATS: self._model_stats,
            Page.INDEX: self._index,
            Page.LOAD: self._load,
            Page.UNLOAD: self._load,
            Page.LOGGING: self._logging,
            Page.V1_MODELS: self._v1_models,
            Page.V1_MODEL: self._v1_model,
            Page.VERSION: self._version,
            Page.METRICS: self._figures,
        }

    def health(self, address: Address, reply: Reply) -> None:
        """Live while this process serves; ready while every service of the table can answer and nothing drains.

        Where keys are required the answer has no body (contracts.md).
        """
        ready = self._board.is_ready and not self.draining
        fine = ready or address.page is Page.LIVE
        status = _OK if fine else _UNAVAILABLE
        if self._board.keys.required:
            reply.send(status, content_type="")
        elif address.page is Page.PING:
            reply.send(status, b"\n", content_type=_TEXT)
        else:
            send_json(reply, {address.page.value: fine}, status=status)

    def show(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        """Answer any other page."""
        self._show[address.page](address, request, reply, caller)

    def _server(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        send_json(reply, server_metadata("modelyard", __version__, EXTENSIONS))

    def _version(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        reply.send(_OK, __version__.encode(), content_type=_TEXT)

    def _models(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        names = sorted(service.name for service in readable_services(self._board, caller, address.project))
        send_json(reply, {"models": names})

    def _v1_models(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        """As KServe lists them, and beside it as OpenAI does: those that a question can name."""
        services = sorted(readable_services(self._board, caller, address.project), key=lambda service: service.name)
        data = [_openai_model(service) for service in services if service.is_relayed]
        send_json(reply, {"models": [service.name for service in services], "object": "list", "data": data})

    def _model(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        service, backend = self._backend(address, caller)
        assert backend.contract is not None
        document = model_metadata(service.name, live_versions(service), backend.platform, backend.contract)
        send_json(reply, document, headers=backend.headers)

    def _model_ready(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        _, backend = self._backend(address, caller)
        send_json(reply, {"ready": True}, headers=backend.headers)

    def _v1_model(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        service = self._service(address, caller)
        named = _openai_model(service) if service.is_relayed else {}
        send_json(reply, {"name": service.name, "ready": bool(service.split.items), **named})

    def _model_config(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        service, backend = self._backend(address, caller)
        assert backend.contract is not None
        document = model_configuration(
            service.name,
            backend.platform,
            backend.contract,
            max_queue_delay_us=int(service.goal.batching.max_wait_ms * 1000),
        )
        send_json(reply, document, headers=backend.headers)

    def _model_stats(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        service = self._service(address, caller)
        if address.version is not None:
            service.at_version(address.version)
        group = Group.read(self._metrics, accounts=[ACCOUNT])
        send_json(reply, statistics(model_statistics(group, service, version=address.version)))

    def _all_stats(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        group = Group.read(self._metrics, accounts=[ACCOUNT])
        services = readable_services(self._board, caller, address.project)
        send_json(reply, statistics(row for each in services for row in model_statistics(group, each)))

    def _index(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        only_ready = b'"ready":true' in request.body.replace(b" ", b"")
        services = readable_services(self._board, caller, address.project)
        send_json(reply, repository_index(index_rows(services, only_ready=only_ready)))

    def _load(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        service = service_to_change(self._board, caller, address.project, address.model)
        loaded = address.page is Page.LOAD
        check_parameters(read_parameters(request.body), loaded=loaded)
        authorization = request.get(b"authorization")
        self._later(request, reply, self._repository.set_loaded(service, caller, authorization, loaded=loaded))

    def _logging(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        logs = self._repository.logs
        if request.method != "POST":
            send_json(reply, logs.document())
            return
        document = load_strict(request.body) if request.body.strip() else {}
        work = self._repository.set_logging(document, caller, request.get(b"authorization"))
        self._later(request, reply, work, logs.document)

    def _later(
        self,
        request: Request,
        reply: Reply,
        work: Coroutine[object, object, None],
        document: Callable[[], object] | None = None,
    ) -> None:
        """Answer when `work` is done: with `document`, or with nothing."""

        async def answer() -> None:
            await work
            if not reply.closed:
                if document is None:
                    reply.send(_OK, content_type="")
                else:
                    send_json(reply, document())

        self._errands.settle(answer(), request, reply)

    def _figures(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        if not caller.may(Verb.METRICS, None, None):
            raise Forbidden("the key does not have the scope metrics", hint="ask for a key with the scope")
        group = Group.read(self._metrics, accounts=[ACCOUNT])
        reply.send(_OK, render(group, (*FAMILIES, *DEFERRED)), content_type=CONTENT_TYPE)

    def _service(self, address: Address, caller: Caller) -> Service:
        return service_to_read(self._board, caller, address.project, address.model)

    def _backend(self, address: Address, caller: Caller) -> tuple[Service, ServedBackend]:
        service = self._service(address, caller)
        return service, backend_of(service, address.version)


def _openai_model(service: Service) -> dict[str, object]:
    return {"id": service.name, "object": "model", "created": 0, "owned_by": service.project}


def index_rows(services: Iterable[Service], *, only_ready: bool) -> Iterator[tuple[str, str, str, str]]:
    """Rows of the repository index: name, version, state, reason (Triton, model repository extension)."""
    for service in services:
        for backend in service.backends.values():
            if backend.state is BackendState.READY or not only_ready:
                state = _STATES.get(backend.state, "UNAVAILABLE")
                yield service.name, backend.backend.version, state, backend.reason
        if not only_ready:
            for version in sorted({backend.version for backend in service.unloaded}, key=_by_number):
                yield service.name, version, "UNAVAILABLE", "unloaded"


def live_versions(service: Service) -> list[str]:
    """Versions that can answer now, in order."""
    return sorted({live.backend.version for live in service.live}, key=_by_number)


def _by_number(version: str) -> tuple[int, str]:
    return (int(version) if version.isdigit() else 0, version)
