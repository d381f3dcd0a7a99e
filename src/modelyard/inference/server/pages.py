"""Everything on the inference listener that is not a prediction: health, metadata, statistics, repository, metrics."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from modelyard.domain.access import Verb
from modelyard.domain.errors.inference import ModelNotFound
from modelyard.domain.errors.platform import Forbidden, NotSupported
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.foundation.metrics import Group, render
from modelyard.foundation.metrics.exposition import CONTENT_TYPE
from modelyard.inference.admission import Caller
from modelyard.inference.protocol import (
    model_configuration,
    model_metadata,
    repository_index,
    server_metadata,
    statistics,
)
from modelyard.inference.routing import ACCOUNT, FAMILIES, BackendState, ServedBackend, Service, Switchboard
from modelyard.inference.server.addresses import Address, Page
from modelyard.inference.server.answers import send_json
from modelyard.inference.server.statistics import model_statistics
from modelyard.version import __version__

_OK: Final = 200
_UNAVAILABLE: Final = 503
_TEXT: Final = "text/plain"
EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
)
"""Of the Open Inference Protocol: only what works is listed."""


class Pages:
    """Shows what this server holds, to those who may see it."""

    def __init__(self, board: Switchboard, metrics: Path) -> None:
        self._board = board
        self._metrics = metrics
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
            Page.V1_MODELS: self._models,
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
        project = address.project or caller.project
        names = sorted(service.name for service in self._visible(caller) if service.project == project)
        send_json(reply, {"models": names})

    def _model(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        service, backend = self._backend(address, caller)
        assert backend.package is not None
        versions = sorted({live.backend.version for live in service.live}, key=_by_number)
        document = model_metadata(service.name, versions, backend.package.platform, backend.package.contract)
        send_json(reply, document, headers=backend.headers)

    def _model_ready(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        _, backend = self._backend(address, caller)
        send_json(reply, {"ready": True}, headers=backend.headers)

    def _v1_model(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        service = self._service(address, caller)
        send_json(reply, {"name": service.name, "ready": bool(service.split.items)})

    def _model_config(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        service, backend = self._backend(address, caller)
        assert backend.package is not None
        package, wait_ms = backend.package, service.goal.batching.max_wait_ms
        document = model_configuration(
            service.name, package.platform, package.contract, max_queue_delay_us=int(wait_ms * 1000)
        )
        send_json(reply, document, headers=backend.headers)

    def _model_stats(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        service = self._service(address, caller)
        if address.version is not None:
            service.at_version(address.version)
        group = Group.read(self._metrics, accounts=[ACCOUNT])
        send_json(reply, statistics(model_statistics(group, service, version=address.version)))

    def _all_stats(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        project = address.project or caller.project
        group = Group.read(self._metrics, accounts=[ACCOUNT])
        services = [service for service in self._visible(caller) if service.project == project]
        send_json(reply, statistics(row for each in services for row in model_statistics(group, each)))

    def _index(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        project = address.project or caller.project
        only_ready = b'"ready":true' in request.body.replace(b" ", b"")
        rows = [
            _index_row(service, backend)
            for service in self._visible(caller)
            if service.project == project
            for backend in service.backends.values()
            if backend.state is BackendState.READY or not only_ready
        ]
        send_json(reply, repository_index(rows))

    def _load(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        service = self._service(address, caller)
        if not caller.may(Verb.DEPLOY, service.project, service.name):
            raise Forbidden("the key does not have the scope deploy", hint="ask for a key with the scope")
        raise NotSupported(
            "models are loaded and unloaded by deployments here", hint="use modelyard deploy and modelyard undeploy"
        )

    def _figures(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        if not caller.may(Verb.METRICS, None, None):
            raise Forbidden("the key does not have the scope metrics", hint="ask for a key with the scope")
        group = Group.read(self._metrics, accounts=[ACCOUNT])
        reply.send(_OK, render(group, FAMILIES), content_type=CONTENT_TYPE)

    def _visible(self, caller: Caller) -> Iterator[Service]:
        for service in self._board.services.values():
            if _may_read(caller, service):
                yield service

    def _service(self, address: Address, caller: Caller) -> Service:
        service = self._board.find(address.project or caller.project, address.model)
        if service is None or not caller.sees(service.project, service.name):
            raise ModelNotFound("no service of this name is there", hint="GET /v2/models lists what is served")
        if not _may_read(caller, service):
            raise Forbidden("the key does not have the scope read", hint="ask for a key with the scope")
        return service

    def _backend(self, address: Address, caller: Caller) -> tuple[Service, ServedBackend]:
        service = self._service(address, caller)
        if address.version is not None:
            return service, service.at_version(address.version)
        return service, service.pick()


def _may_read(caller: Caller, service: Service) -> bool:
    return any(caller.may(verb, service.project, service.name) for verb in (Verb.READ, Verb.INFER))


def _index_row(service: Service, backend: ServedBackend) -> tuple[str, str, str, str]:
    """A row of the repository index (Triton, model repository extension)."""
    states = {BackendState.READY: "READY", BackendState.LOADING: "LOADING"}
    return service.name, backend.backend.version, states.get(backend.state, "UNAVAILABLE"), backend.reason


def _by_number(version: str) -> tuple[int, str]:
    return (int(version) if version.isdigit() else 0, version)
