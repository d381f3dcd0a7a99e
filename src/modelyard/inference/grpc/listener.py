"""The gRPC listener of a model server: services, limits, TLS, drain. Imported only by a server that has a gRPC port."""

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc.aio

from modelyard.domain.errors.platform import StartRefused
from modelyard.foundation.http import TlsFiles
from modelyard.foundation.http.tls import ReloadingTls
from modelyard.inference.grpc import health, reflection, service
from modelyard.inference.grpc.relay import Relay
from modelyard.inference.grpc.rpc import Calls, LogLine
from modelyard.inference.routing import Switchboard

MAX_CALLS: Final = 4096
"""Calls that one server answers at once, streams included; more are refused with RESOURCE_EXHAUSTED."""
_TLS_CHECK_S: Final = 1.0
_LINGER_S: Final = 1.0
_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.absolute_max_metadata_size", 32 << 10),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.max_connection_idle_ms", 600_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcSettings:
    """`max_message_bytes` bounds a request message; a larger one is refused with RESOURCE_EXHAUSTED by grpcio."""

    max_message_bytes: int = 64 << 20
    tls: TlsFiles | None = None
    access_log: LogLine | None = None


class GrpcListener:
    """A running listener. Made by `serve_grpc`; belongs to the event loop it was made on."""

    def __init__(
        self, board: Switchboard, metrics: Path, *, is_ready: Callable[[], bool], settings: GrpcSettings
    ) -> None:
        calls = Calls(settings.access_log)
        self._health = health.Health(is_ready)
        self._service = service.InferenceService(board, metrics, is_ready=is_ready)
        self._server: Any = grpc.aio.server(
            options=(("grpc.max_receive_message_length", settings.max_message_bytes), *_OPTIONS),
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        services = {health.NAME: self._health.methods(), service.NAME: self._service.methods()}
        services |= {name: reflection.Reflection(name, board).methods() for name in reflection.NAMES}
        self._server.add_generic_rpc_handlers([calls.handlers(name, answers) for name, answers in services.items()])
        self._tls = ReloadingTls(settings.tls) if settings.tls is not None else None
        self._tls_timer: asyncio.TimerHandle | None = None
        self._place = Path(tempfile.mkdtemp(prefix="modelyard-grpc-"))  # mode 0700: nobody else gets past TLS and keys
        self._relay: Relay | None = None
        self.addresses: list[str] = []

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        """Begin to serve on listening sockets, ours from now on."""
        inner = self._place / "grpc.sock"
        try:
            self._server.add_insecure_port(f"unix:{inner}")
        except RuntimeError as error:
            raise StartRefused("the gRPC listener cannot open its socket", hint="check TMPDIR") from error
        await self._server.start()
        self.addresses = ["{}:{}".format(*each.getsockname()[:2]) for each in sockets]
        context = None
        if self._tls is not None:
            context = self._tls.context
            context.set_alpn_protocols(["h2"])
            self._watch_tls()
        self._relay = Relay(list(sockets), inner, context)
        await self._relay.open()

    def services_changed(self) -> None:
        """Readiness may have changed: watchers are told."""
        self._health.changed()

    async def close(self, drain_s: float) -> None:
        """Stop accepting, answer what is in hand for at most `drain_s` seconds, close.

        Each connection is told to go elsewhere (GOAWAY); watchers and streams are ended in order.
        """
        self._health.drain()
        self._service.stream.drain()
        if self._relay is not None:
            await self._relay.stop_accepting()
        await self._server.stop(drain_s)
        if self._relay is not None:
            await self._relay.close(min(_LINGER_S, drain_s))
        if self._tls_timer is not None:
            self._tls_timer.cancel()
        shutil.rmtree(self._place, ignore_errors=True)

    def _watch_tls(self) -> None:
        if self._tls is not None:
            self._tls.reload_if_changed()
            self._tls_timer = asyncio.get_running_loop().call_later(_TLS_CHECK_S, self._watch_tls)


async def serve_grpc(
    board: Switchboard,
    metrics: Path,
    *,
    sockets: Sequence[socket.socket],
    is_ready: Callable[[], bool],
    settings: GrpcSettings | None = None,
) -> GrpcListener:
    """Serve what `board` holds over gRPC on listening `sockets`.

    Raises:
        StartRefused: the TLS files cannot be used, or there is no room for a socket in the temporary directory.
    """
    listener = GrpcListener(board, metrics, is_ready=is_ready, settings=settings or GrpcSettings())
    await listener.open(sockets)
    return listener
