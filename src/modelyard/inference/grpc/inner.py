"""The gRPC server itself, on a Unix socket behind the relay. Everything that imports grpcio is imported from here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc.aio

from modelyard.domain.errors.platform import StartRefused
from modelyard.inference.grpc import health, reflection, service
from modelyard.inference.grpc.rpc import Calls
from modelyard.inference.grpc.settings import LogLine
from modelyard.inference.routing import Switchboard

MAX_CALLS: Final = 4096
"""Calls that one server answers at once, streams included; more are refused with RESOURCE_EXHAUSTED."""
_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.absolute_max_metadata_size", 32 << 10),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.max_connection_idle_ms", 600_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class InnerServer:
    """All services on one gRPC server. `max_message_bytes` bounds a request message."""

    def __init__(
        self,
        board: Switchboard,
        metrics: Path,
        *,
        is_ready: Callable[[], bool],
        max_message_bytes: int,
        access_log: LogLine | None,
    ) -> None:
        calls = Calls(access_log)
        self._health = health.Health(is_ready)
        self._service = service.InferenceService(board, metrics, is_ready=is_ready)
        self._server: Any = grpc.aio.server(
            options=(("grpc.max_receive_message_length", max_message_bytes), *_OPTIONS),
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        services = {health.NAME: self._health.methods(), service.NAME: self._service.methods()}
        services |= {name: reflection.Reflection(name, board).methods() for name in reflection.NAMES}
        self._server.add_generic_rpc_handlers([calls.handlers(name, answers) for name, answers in services.items()])

    async def start(self, path: Path) -> None:
        """Listen on a Unix socket.

        Raises:
            StartRefused: there can be no socket at `path`.
        """
        try:
            self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise StartRefused("the gRPC server cannot open its socket", hint="check TMPDIR") from error
        await self._server.start()

    def services_changed(self) -> None:
        """Readiness may have changed: watchers are told."""
        self._health.changed()

    async def close(self, drain_s: float) -> None:
        """Tell connections to go elsewhere, answer what is in hand, end watchers and streams in order."""
        self._health.drain()
        self._service.stream.drain()
        await self._server.stop(drain_s)
