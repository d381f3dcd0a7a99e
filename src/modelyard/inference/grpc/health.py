"""`grpc.health.v1.Health`: the server as a whole, and each of the services that it speaks. Asks for no key.

The name "" and `inference.GRPCInferenceService` follow readiness, as `GET /v2/health/ready` does. Models are asked
after with `ModelReady`.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from modelyard.domain.errors.platform import NotFound
from modelyard.inference.grpc.asked import Asked
from modelyard.inference.grpc.messages import SERVICES, message, parse

NAME: Final = "grpc.health.v1.Health"
_Request: Final = message("grpc.health.v1.HealthCheckRequest")
_Response: Final = message("grpc.health.v1.HealthCheckResponse")
_KNOWN: Final = frozenset({"", *SERVICES})


class Health:
    """Check and Watch."""

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready
        self._turn = asyncio.Event()
        self._draining = False

    def methods(self) -> dict[str, Any]:
        """What answers each call."""
        return {"Check": self._check, "Watch": self._watch}

    def changed(self) -> None:
        """Readiness may have changed."""
        self._turn.set()
        self._turn = asyncio.Event()

    def drain(self) -> None:
        """Tell watchers that this server no longer serves, and let them go."""
        self._draining = True
        self.changed()

    def _check(self, request: Any, asked: Asked) -> Any:  # noqa: ANN401  (of protobuf)
        if request.service not in _KNOWN:
            raise NotFound("no such service", hint='ask for "" or inference.GRPCInferenceService')
        return _Response(status=self._status(request.service))

    async def _watch(self, body: bytes, context: Any) -> None:  # noqa: ANN401  (of grpc)
        """The status now and whenever it changes; an unknown name is SERVICE_UNKNOWN and stays watched."""
        service, shown = parse(_Request, body).service, None
        while True:
            turn, status = self._turn, self._status(service)
            if status != shown:
                shown = status
                await context.write(_Response(status=status).SerializeToString())
            if self._draining:
                return
            await turn.wait()

    def _status(self, service: str) -> Any:  # noqa: ANN401  (an enum value of protobuf)
        if service not in _KNOWN:
            return _Response.SERVICE_UNKNOWN
        fine = not self._draining and (service not in {"", SERVICES[0]} or self._is_ready())
        return _Response.SERVING if fine else _Response.NOT_SERVING
