"""The gRPC listener of a model server: HTTP/2 on its sockets, and the services behind it once somebody calls.

protobuf costs start-up time and memory, so it is imported with the first call, in a thread: whoever never speaks gRPC
never pays for it, and the loop goes on answering meanwhile.
"""

import asyncio
import importlib
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelyard.foundation.http import EdgeLimits
from modelyard.foundation.http2 import Call, Status, StreamCall
from modelyard.foundation.http2 import GrpcListener as Listener
from modelyard.foundation.http2 import GrpcSettings as ListenerSettings
from modelyard.foundation.http2 import serve_grpc as listen
from modelyard.inference.grpc.names import STREAMS
from modelyard.inference.grpc.settings import GrpcSettings
from modelyard.inference.routing import Switchboard
from modelyard.inference.server import Repository

if TYPE_CHECKING:
    from modelyard.inference.grpc.handler import Services

_SERVICES: Final = "modelyard.inference.grpc.handler"
_IDLE_S: Final = 600.0
_log = logging.getLogger(__name__)


class LateServices:
    """Takes calls from the first on, and hands them over once the services are loaded."""

    streams = STREAMS

    def __init__(self, load: "Callable[[], Services]") -> None:
        self._load = load
        self._waiting: deque[Call | StreamCall] = deque()
        self._loading: asyncio.Task[None] | None = None
        self.loaded: Services | None = None

    def handle(self, call: Call) -> None:
        """Take a call."""
        if self.loaded is not None:
            self.loaded.methods.handle(call)
        else:
            self._wait(call)

    def open(self, call: StreamCall) -> None:
        """Take a streaming call."""
        if self.loaded is not None:
            self.loaded.methods.open(call)
        else:
            call.hold()
            self._wait(call)

    async def settle(self) -> None:
        """Wait until nothing waits to be handed over."""
        if self._loading is not None:
            await self._loading

    def _wait(self, call: Call | StreamCall) -> None:
        self._waiting.append(call)
        if self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._hand_over(), name="load gRPC services")

    async def _hand_over(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, importlib.import_module, _SERVICES)
            loaded = self.loaded = self._load()
        except Exception:  # noqa: BLE001  (the plugin edge: protobuf may be missing or broken)
            _log.exception("the gRPC services cannot be loaded")
            self._refuse_all()
            return
        while self._waiting:
            call = self._waiting.popleft()
            if call.cancelled or call.is_answered:
                continue
            if isinstance(call, StreamCall):
                loaded.methods.open(call)
                call.go_on()
            else:
                loaded.methods.handle(call)

    def _refuse_all(self) -> None:
        """Nobody waits for what cannot be; the next call tries again."""
        self._loading = None
        while self._waiting:
            call = self._waiting.popleft()
            if not (call.cancelled or call.is_answered):
                call.fail(Status.INTERNAL, "the server cannot load its gRPC services; its log says why")


class GrpcListener:
    """A running listener. Made by `serve_grpc`; belongs to the event loop it was made on."""

    def __init__(self, services: LateServices, listener: Listener) -> None:
        self._services = services
        self._listener = listener
        self.addresses = listener.addresses

    def services_changed(self) -> None:
        """Models or readiness may have changed: watchers are told."""
        if self._services.loaded is not None:
            self._services.loaded.services_changed()

    async def close(self, drain_s: float) -> None:
        """Stop accepting, answer what is in hand for at most `drain_s` seconds, close.

        Each connection is told to go elsewhere (GOAWAY); watchers and streams are ended in order.
        """
        await self._services.settle()
        closing = asyncio.ensure_future(self._listener.close(drain_s))
        if self._services.loaded is not None:
            self._services.loaded.drain()
        await closing


async def serve_grpc(
    board: Switchboard,
    metrics: Path,
    repository: Repository,
    *,
    sockets: Sequence[socket.socket],
    is_ready: Callable[[], bool],
    settings: GrpcSettings | None = None,
) -> GrpcListener:
    """Serve what `board` holds over gRPC on listening `sockets`, which are the listener's from now on.

    Raises:
        StartRefused: the TLS files cannot be used.
    """
    settings = settings or GrpcSettings()

    def load() -> "Services":
        module = importlib.import_module(_SERVICES)
        services: Services = module.Services(
            board, metrics, repository, is_ready=is_ready, access_log=settings.access_log
        )
        return services

    services = LateServices(load)
    listener = await listen(
        services,
        sockets=sockets,
        settings=ListenerSettings(
            edge=EdgeLimits(max_body_bytes=settings.max_message_bytes, idle_s=_IDLE_S), access_log=settings.access_log
        ),
        tls=settings.tls,
    )
    return GrpcListener(services, listener)
