"""The gRPC listener of a model server: its sockets, TLS and drain, and grpcio behind them once somebody connects.

grpcio costs memory and start-up time (docs/reference/grpc.md), so it is imported for the first connection, in a thread:
whoever never speaks gRPC never pays for it, and the loop goes on answering meanwhile.
"""

import asyncio
import importlib
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelyard.foundation.http.tls import ReloadingTls
from modelyard.inference.grpc.relay import Relay
from modelyard.inference.grpc.settings import GrpcSettings
from modelyard.inference.routing import Switchboard

if TYPE_CHECKING:
    from modelyard.inference.grpc.inner import InnerServer

_INNER: Final = "modelyard.inference.grpc.inner"
_TLS_CHECK_S: Final = 1.0
_LINGER_S: Final = 1.0


class GrpcListener:
    """A running listener. Made by `serve_grpc`; belongs to the event loop it was made on."""

    def __init__(
        self,
        board: Switchboard,
        metrics: Path,
        *,
        sockets: Sequence[socket.socket],
        is_ready: Callable[[], bool],
        settings: GrpcSettings,
    ) -> None:
        self._board = board
        self._metrics = metrics
        self._is_ready = is_ready
        self._settings = settings
        self._inner: InnerServer | None = None
        self._starting = asyncio.Lock()
        self._place = Path(tempfile.mkdtemp(prefix="modelyard-grpc-"))  # mode 0700: nobody else gets past TLS and keys
        self._tls = ReloadingTls(settings.tls) if settings.tls is not None else None
        self._tls_timer: asyncio.TimerHandle | None = None
        if self._tls is not None:
            self._tls.context.set_alpn_protocols(["h2"])
        context = None if self._tls is None else self._tls.context
        self._relay = Relay(list(sockets), self._target, context)
        self.addresses = ["{}:{}".format(*each.getsockname()[:2]) for each in sockets]

    async def open(self) -> None:
        """Begin to accept."""
        if self._tls is not None:
            self._watch_tls()
        await self._relay.open()

    def services_changed(self) -> None:
        """Readiness may have changed: watchers are told."""
        if self._inner is not None:
            self._inner.services_changed()

    async def close(self, drain_s: float) -> None:
        """Stop accepting, answer what is in hand for at most `drain_s` seconds, close.

        Each connection is told to go elsewhere (GOAWAY); watchers and streams are ended in order.
        """
        await self._relay.stop_accepting()
        if self._inner is not None:
            await self._inner.close(drain_s)
        await self._relay.close(min(_LINGER_S, drain_s))
        if self._tls_timer is not None:
            self._tls_timer.cancel()
        shutil.rmtree(self._place, ignore_errors=True)

    async def _target(self) -> Path:
        """Where the gRPC server listens; the first caller starts it."""
        path = self._place / "grpc.sock"
        async with self._starting:
            if self._inner is None:
                loop, settings = asyncio.get_running_loop(), self._settings
                module = await loop.run_in_executor(None, importlib.import_module, _INNER)
                inner: InnerServer = module.InnerServer(
                    self._board,
                    self._metrics,
                    is_ready=self._is_ready,
                    max_message_bytes=settings.max_message_bytes,
                    access_log=settings.access_log,
                )
                await inner.start(path)
                self._inner = inner
        return path

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
    """Serve what `board` holds over gRPC on listening `sockets`, which are the listener's from now on.

    Raises:
        StartRefused: the TLS files cannot be used.
    """
    listener = GrpcListener(board, metrics, sockets=sockets, is_ready=is_ready, settings=settings or GrpcSettings())
    await listener.open()
    return listener
