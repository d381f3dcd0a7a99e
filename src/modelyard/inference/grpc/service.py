"""`inference.GRPCInferenceService`: what the HTTP listener's pages say, as messages."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from google.protobuf import json_format

from modelyard.domain.errors.inference import NotReady
from modelyard.foundation.metrics import Group
from modelyard.foundation.metrics.inputs import ACCOUNT
from modelyard.inference.admission import Caller
from modelyard.inference.grpc.messages import POOL, message
from modelyard.inference.grpc.names import INFERENCE
from modelyard.inference.grpc.rpc import Answer, Question
from modelyard.inference.protocol import model_configuration, model_metadata, statistics
from modelyard.inference.routing import ServedBackend, Service, Switchboard
from modelyard.inference.server.pages import EXTENSIONS, index_rows, live_versions
from modelyard.inference.server.reach import backend_of, readable_services, service_to_change, service_to_read
from modelyard.inference.server.repository import Repository, check_parameters
from modelyard.inference.server.statistics import model_statistics
from modelyard.version import __version__

OVER_GRPC: Final = tuple(name for name in EXTENSIONS if name != "binary_tensor_data")
"""Extensions that `ServerMetadata` lists; raw contents are part of the protocol itself here."""
_LOG_FIELDS: Final[Mapping[type, str]] = {bool: "bool_param", int: "uint32_param", str: "string_param"}
_UNLISTED: Final = frozenset({"response_stats"})


class InferenceService:
    """Answers from a switchboard. `metrics` is the directory of mapped counters."""

    def __init__(
        self, board: Switchboard, metrics: Path, repository: Repository, *, is_ready: Callable[[], bool]
    ) -> None:
        self._board = board
        self._repository = repository
        self._metrics = metrics
        self._is_ready = is_ready
        self._answers = {
            method.name: message(method.output_type.full_name) for method in POOL.FindServiceByName(INFERENCE).methods
        }

    def answers(self) -> dict[str, Answer]:
        """What answers each call but predictions."""
        return {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server,
            "ModelMetadata": self._model,
            "ModelConfig": self._config,
            "ModelStatistics": self._statistics,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": lambda request, question: self._set_loaded(request, question, loaded=True),
            "RepositoryModelUnload": lambda request, question: self._set_loaded(request, question, loaded=False),
            "LogSettings": self._log_settings,
        }

    def _live(self, request: Any, question: Question) -> Any:  # noqa: ANN401  (of protobuf, here and below)
        return self._answers["ServerLive"](live=True)

    def _ready(self, request: Any, question: Question) -> Any:  # noqa: ANN401
        return self._answers["ServerReady"](ready=self._is_ready())

    def _model_ready(self, request: Any, question: Question) -> Any:  # noqa: ANN401
        answer = self._answers["ModelReady"]
        try:
            self._backend(request, question)
        except NotReady:
            return answer(ready=False)
        return answer(ready=True)

    def _server(self, request: Any, question: Question) -> Any:  # noqa: ANN401
        self._caller(question)
        return self._answers["ServerMetadata"](name="modelyard", version=__version__, extensions=OVER_GRPC)

    def _model(self, request: Any, question: Question) -> Any:  # noqa: ANN401
        service, backend = self._backend(request, question)
        assert backend.contract is not None
        document = model_metadata(service.name, live_versions(service), backend.platform, backend.contract)
        return json_format.ParseDict(document, self._answers["ModelMetadata"]())

    def _config(self, request: Any, question: Question) -> Any:  # noqa: ANN401
        service, backend = self._backend(request, question)
        assert backend.contract is not None
        document = model_configuration(
            service.name,
            backend.platform,
            backend.contract,
            max_queue_delay_us=int(service.goal.batching.max_wait_ms * 1000),
        )
        return json_format.ParseDict({"config": document}, self._answers["ModelConfig"]())

    def _statistics(self, request: Any, question: Question) -> Any:  # noqa: ANN401
        caller = self._caller(question)
        version = request.version or None
        if request.name:
            chosen = [service_to_read(self._board, caller, question.asked.project, request.name)]
            if version is not None:
                chosen[0].at_version(version)
        else:
            chosen = list(readable_services(self._board, caller, question.asked.project))
        group = Group.read(self._metrics, accounts=[ACCOUNT])
        document = statistics(row for each in chosen for row in model_statistics(group, each, version=version))
        rows = [{key: row[key] for key in row if key not in _UNLISTED} for row in document["model_stats"]]
        return json_format.ParseDict({"model_stats": rows}, self._answers["ModelStatistics"]())

    def _index(self, request: Any, question: Question) -> Any:  # noqa: ANN401
        answer = self._answers["RepositoryIndex"]()
        services = readable_services(self._board, self._caller(question), question.asked.project)
        for name, version, state, reason in index_rows(services, only_ready=request.ready):
            answer.models.add(name=name, version=version, state=state, reason=reason)
        return answer

    async def _set_loaded(self, request: Any, question: Question, *, loaded: bool) -> Any:  # noqa: ANN401
        caller = self._caller(question)
        service = service_to_change(self._board, caller, question.asked.project, request.model_name)
        check_parameters(_plain(request.parameters), loaded=loaded)
        await self._repository.set_loaded(service, caller, question.asked.authorization, loaded=loaded)
        return self._answers["RepositoryModelLoad" if loaded else "RepositoryModelUnload"]()

    async def _log_settings(self, request: Any, question: Question) -> Any:  # noqa: ANN401
        caller, wish = self._caller(question), _plain(request.settings)
        if wish:
            await self._repository.set_logging(wish, caller, question.asked.authorization)
        answer = self._answers["LogSettings"]()
        for name, value in self._repository.logs.document().items():
            setattr(answer.settings[name], _LOG_FIELDS[type(value)], value)
        return answer

    def _caller(self, question: Question) -> Caller:
        return self._board.keys.identify(question.asked.authorization)

    def _backend(self, request: Any, question: Question) -> tuple[Service, ServedBackend]:  # noqa: ANN401
        service = service_to_read(self._board, self._caller(question), question.asked.project, request.name)
        question.backend = backend_of(service, request.version or None)
        return service, question.backend


def _plain(values: Any) -> dict[str, object]:  # noqa: ANN401  (a protobuf map)
    """Parameters or settings as plain values; one without a value is None."""
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in values.items()}
    return {name: None if field is None else getattr(values[name], field) for name, field in chosen.items()}
