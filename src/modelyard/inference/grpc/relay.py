"""From a listening socket that was inherited to grpcio, which can only listen by itself: bytes handed on, both ways.

grpcio takes no descriptor. Were each server to listen for itself (SO_REUSEPORT), the connections that wait in a dying
server's queue would be lost with it. So the socket stays the supervisor's and is shared, connections are accepted here,
and their bytes pass through a Unix socket in a private directory to the gRPC server of the same process. TLS ends here
too, with the certificate reload of the HTTP listener. A slow reader on either side holds the other back.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, cast

FindTarget = Callable[[], Awaitable[Path]]
MAX_CONNECTIONS: Final = 10_000
_HIGH_WATER: Final = 1 << 18
_HANDSHAKE_S: Final = 10.0
_log = logging.getLogger(__name__)


class Relay:
    """Connections from outside, each paired with one to the gRPC server. Call `open` once.

    `find_target` gives the path of the server's Unix socket, and may take its time to.
    """

    def __init__(self, sockets: list[socket.socket], find_target: FindTarget, context: ssl.SSLContext | None) -> None:
        self._sockets = sockets
        self._find_target = find_target
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._servers: list[asyncio.Server] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._all_gone = asyncio.Event()
        self.pairs: set[Outer] = set()

    async def open(self) -> None:
        """Begin to accept."""
        for each in self._sockets:
            copy = each.dup()  # ours outlives the server's, so that closing can empty the accept queue
            copy.setblocking(False)  # noqa: FBT003  (the socket module's own signature)
            handshake = None if self._context is None else _HANDSHAKE_S
            self._servers.append(
                await self._loop.create_server(
                    self._accept, sock=copy, backlog=4096, ssl=self._context, ssl_handshake_timeout=handshake
                )
            )

    async def stop_accepting(self) -> None:
        """Let go of the sockets; what waits unaccepted in their queues is still taken."""
        for server in self._servers:
            server.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.setblocking(False)  # noqa: FBT003  (as above)
                while True:
                    client, _ = each.accept()
                    client.setblocking(False)  # noqa: FBT003  (as above)
                    await self._loop.connect_accepted_socket(self._accept, client, ssl=self._context)
            each.close()

    async def close(self, linger_s: float) -> None:
        """Let answers that are on their way leave, for at most `linger_s`, then drop what is still open."""
        if self.pairs:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), linger_s)
        for task in self._connecting:
            task.cancel()
        for pair in list(self.pairs):
            pair.abort()
        await asyncio.sleep(0)

    def joined(self, outer: "Outer") -> None:
        """A connection has begun."""
        self._all_gone.clear()
        self.pairs.add(outer)

    def gone(self, outer: "Outer") -> None:
        """A connection has ended."""
        self.pairs.discard(outer)
        if not self.pairs:
            self._all_gone.set()

    def connect(self, outer: "Outer") -> None:
        """Find the other side for a connection."""
        task = self._loop.create_task(self._connect(outer), name="grpc relay")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def _accept(self) -> "Outer":
        return Outer(self)

    async def _connect(self, outer: "Outer") -> None:
        try:
            path = await self._find_target()
            await self._loop.create_unix_connection(lambda: Inner(outer), str(path))
        except Exception:  # noqa: BLE001  (the loop: a connection that cannot be served ends, the listener stays)
            _log.exception("a gRPC connection cannot be served")
            outer.abort()


class _Half(asyncio.Protocol):
    """One side; `other` is the transport of the other one, as soon as there is one."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.write(data)

    def eof_received(self) -> bool:
        """HTTP/2 has no half-closed connections: one side's end is the end."""
        return False

    def pause_writing(self) -> None:
        if self.other is not None and not self.other.is_closing():
            self.other.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.is_closing():
            self.other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Outer(_Half):
    """The client's side. What comes before the inner side stands waits here: one read's worth."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if len(self._relay.pairs) >= MAX_CONNECTIONS:
            self.abort()
            return
        self._relay.joined(self)
        self._relay.connect(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.other is not None:
            self.other.write(data)
            return
        self._early.append(data)
        if self.transport is not None:  # not from the start: uvloop takes up reading after connection_made
            self.transport.pause_reading()

    def pair(self, inner: asyncio.Transport) -> None:
        """The inner side stands."""
        self.other = inner
        for data in self._early:
            inner.write(data)
        self._early.clear()
        if self.transport is not None:
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        self._relay.gone(self)


class Inner(_Half):
    """The gRPC server's side."""

    def __init__(self, outer: Outer) -> None:
        super().__init__()
        self._outer = outer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        outer = self._outer.transport
        if outer is None or outer.is_closing():
            self.abort()
            return
        self.other = outer
        self._outer.pair(cast("asyncio.Transport", transport))
