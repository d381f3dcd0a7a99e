"""`grpc.health.v1.Health`: the server as a whole, and each of the services that it speaks. Asks for no key.

The name "" and `inference.GRPCInferenceService` follow readiness, as `GET /v2/health/ready` does. Models are asked
after with `ModelReady`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import NotFound
from modelyard.foundation.http2 import Status, StreamCall
from modelyard.inference.grpc.asked import asked_of
from modelyard.inference.grpc.messages import message, parse
from modelyard.inference.grpc.names import HEALTH, SERVICES
from modelyard.inference.grpc.rpc import Question
from modelyard.inference.grpc.statuses import refuse

_Request: Final = message("grpc.health.v1.HealthCheckRequest")
_Response: Final = message("grpc.health.v1.HealthCheckResponse")
_KNOWN: Final = frozenset({"", *SERVICES})
WATCH: Final = f"/{HEALTH}/Watch".encode()


@dataclass(slots=True, eq=False)
class _Watcher:
    """One client that watches a name, and what it was told last."""

    rpc: StreamCall
    service: str | None = None
    shown: Any = None


class Health:
    """Check and Watch."""

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready
        self._watchers: set[_Watcher] = set()
        self._draining = False

    def check(self, request: Any, question: Question) -> Any:  # noqa: ANN401  (of protobuf)
        """What stands now."""
        if request.service not in _KNOWN:
            raise NotFound("no such service", hint='ask for "" or inference.GRPCInferenceService')
        return _Response(status=self._status(request.service))

    def watch(self, rpc: StreamCall) -> None:
        """The status now and whenever it changes; an unknown name is SERVICE_UNKNOWN and stays watched."""
        watcher = _Watcher(rpc)

        def begin(body: bytes) -> None:
            if watcher.service is not None:
                rpc.fail(Status.UNIMPLEMENTED, "Watch takes one message")
                self._watchers.discard(watcher)
                return
            try:
                watcher.service = parse(_Request, body).service
            except ModelyardError as error:
                refuse(rpc, error, request_id=asked_of(rpc.head).request_id())
                return
            self._watchers.add(watcher)
            self._tell(watcher)

        def end() -> None:
            if watcher.service is None:
                rpc.fail(Status.UNIMPLEMENTED, "Watch takes one message, this call has none")

        rpc.listen(begin, end)
        rpc.on_cancel(lambda: self._watchers.discard(watcher))

    def changed(self) -> None:
        """Readiness may have changed."""
        for watcher in list(self._watchers):
            self._tell(watcher)

    def drain(self) -> None:
        """Tell watchers that this server no longer serves, and let them go."""
        self._draining = True
        self.changed()

    def _tell(self, watcher: _Watcher) -> None:
        assert watcher.service is not None
        status = self._status(watcher.service)
        if status != watcher.shown:
            watcher.shown = status
            watcher.rpc.send(_Response(status=status).SerializeToString())
        if self._draining:
            self._watchers.discard(watcher)
            watcher.rpc.finish()

    def _status(self, service: str) -> Any:  # noqa: ANN401  (an enum value of protobuf)
        if service not in _KNOWN:
            return _Response.SERVICE_UNKNOWN
        fine = not self._draining and (service not in {"", SERVICES[0]} or self._is_ready())
        return _Response.SERVING if fine else _Response.NOT_SERVING
