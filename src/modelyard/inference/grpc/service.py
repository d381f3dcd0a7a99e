"""`inference.GRPCInferenceService`: what the HTTP listener's pages say, as messages."""

from collections.abc import Callable
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
from modelyard.inference.server.pages import EXTENSIONS, index_rows, live_versions, no_loading
from modelyard.inference.server.reach import backend_of, readable_services, require_deploy, service_to_read
from modelyard.inference.server.statistics import model_statistics
from modelyard.version import __version__

OVER_GRPC: Final = tuple(name for name in EXTENSIONS if name != "binary_tensor_data")
"""Extensions that `ServerMetadata` lists; raw contents are part of the protocol itself here."""
_UNLISTED: Final = frozenset({"response_stats"})


class InferenceService:
    """Answers from a switchboard. `metrics` is the directory of mapped counters."""

    def __init__(self, board: Switchboard, metrics: Path, *, is_ready: Callable[[], bool]) -> None:
        self._board = board
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
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._load,
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

    def _load(self, request: Any, question: Question) -> Any:  # noqa: ANN401
        caller = self._caller(question)
        require_deploy(caller, service_to_read(self._board, caller, question.asked.project, request.model_name))
        raise no_loading()

    def _caller(self, question: Question) -> Caller:
        return self._board.keys.identify(question.asked.authorization)

    def _backend(self, request: Any, question: Question) -> tuple[Service, ServedBackend]:  # noqa: ANN401
        service = service_to_read(self._board, self._caller(question), question.asked.project, request.name)
        question.backend = backend_of(service, request.version or None)
        return service, question.backend
