"""Open a listener on sockets, an address or a Unix path, and close it without losing a request."""

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from modelyard.domain.errors.platform import StartRefused
from modelyard.foundation.http.connection import Connection
from modelyard.foundation.http.edge import Edge, EdgeSettings
from modelyard.foundation.http.exchange import Handler
from modelyard.foundation.http.hosts import HostPolicy
from modelyard.foundation.http.tls import ReloadingTls, TlsFiles
from modelyard.foundation.http.turns import JointHandler, Turn

_BACKLOG: Final = 4096
_TLS_CHECK_S: Final = 1.0
_DRAIN_STEP_S: Final = 0.02
_ABORT_TURNS: Final = 5


class Listener:
    """Sockets that are being served. Made by `serve`."""

    def __init__(self, edge: Edge, sockets: list[socket.socket], tls: ReloadingTls | None, handler: Handler) -> None:
        self._edge = edge
        self._sockets = sockets
        self._tls = tls
        self._handler = handler
        self._turn = Turn(edge, handler.route if isinstance(handler, JointHandler) else None)
        self._addresses = [_address(each) for each in sockets]
        self._port = next((each.getsockname()[1] for each in sockets if each.family != socket.AF_UNIX), 0)
        self._servers: list[asyncio.Server] = []
        self._tls_timer: asyncio.TimerHandle | None = None
        self._unix_path: Path | None = None

    @property
    def addresses(self) -> list[str]:
        """`host:port` of each TCP socket, the path of each Unix socket."""
        return list(self._addresses)

    @property
    def port(self) -> int:
        """The port of the first TCP socket; 0 when there is none."""
        return self._port

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._edge.connections)

    @property
    def requests(self) -> int:
        """Requests taken, refused ones included."""
        return self._edge.requests

    def reload_tls(self) -> bool:
        """Take changed certificate files up now; it also happens by itself within a second."""
        return self._tls is not None and self._tls.reload_if_changed()

    async def close(self, drain_s: float | None = None) -> None:
        """Stop accepting, answer what is in flight (each connection's next answer says `Connection: close`), close.

        Waits at most `drain_s` seconds (the listener's limit when None); what is still open then is dropped. What waits
        unaccepted in the sockets' queues is served too.
        """
        edge = self._edge
        limit = edge.limits.drain_s if drain_s is None else drain_s
        edge.begin_drain()
        for server in self._servers:
            server.close()
        started = edge.loop.time()
        await self._accept_rest(limit)
        for each in self._sockets:
            each.close()
        while edge.connections and edge.loop.time() - started < limit:
            if edge.loop.time() - started >= min(edge.limits.drain_idle_s, limit / 2):
                for connection in list(edge.connections):
                    connection.close_idle()
            await asyncio.sleep(_DRAIN_STEP_S)
        for connection in list(edge.connections):
            connection.abort()
        for _ in range(_ABORT_TURNS):  # an aborted transport lets its socket go in a later turn of the loop
            await asyncio.sleep(0)
        edge.stop()
        if self._tls_timer is not None:
            self._tls_timer.cancel()
        if self._unix_path is not None:
            self._unix_path.unlink(missing_ok=True)

    async def open(self) -> None:
        """Begin to accept."""
        loop = self._edge.loop
        for each in self._sockets:
            copy = each.dup()  # ours outlives the server's, so that closing can empty the accept queue
            copy.setblocking(False)  # noqa: FBT003  (the socket module's own signature)
            make = self._connection()
            if each.family == socket.AF_UNIX:
                server = await loop.create_unix_server(make, sock=copy, backlog=_BACKLOG)
            elif self._tls is None:
                server = await loop.create_server(make, sock=copy, backlog=_BACKLOG)
            else:
                server = await loop.create_server(
                    make,
                    sock=copy,
                    backlog=_BACKLOG,
                    ssl=self._tls.context,
                    ssl_handshake_timeout=self._edge.limits.receipt_deadline_s,
                    ssl_shutdown_timeout=self._edge.limits.linger_s,
                )
            self._servers.append(server)
        if self._tls is not None:
            self._watch_tls()

    def _connection(self) -> Callable[[], Connection]:
        edge, handle, turn, tls = self._edge, self._handler.handle, self._turn, self._tls is not None

        def make() -> Connection:
            return Connection(edge, handle, turn, tls=tls)

        return make

    def _watch_tls(self) -> None:
        if self._tls is not None:
            self._tls.reload_if_changed()
            self._tls_timer = self._edge.loop.call_later(_TLS_CHECK_S, self._watch_tls)

    async def _accept_rest(self, limit_s: float) -> None:
        """Take what still stands in the accept queues; over TLS side by side, for each has to shake hands first."""
        waiting: list[socket.socket] = []
        for each in self._sockets:
            with contextlib.suppress(OSError):  # until none is left; of a listener that is closed already there is none
                each.setblocking(False)  # noqa: FBT003  (the socket module's own signature)
                while True:
                    waiting.append(each.accept()[0])
        taken = {asyncio.ensure_future(self._take(client)) for client in waiting}
        if taken:
            _, late = await asyncio.wait(taken, timeout=limit_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _take(self, client: socket.socket) -> None:
        client.setblocking(False)  # noqa: FBT003  (as above)
        context = self._tls.context if self._tls is not None else None
        with contextlib.suppress(OSError):  # it went away again, or does not speak TLS
            await self._edge.loop.connect_accepted_socket(self._connection(), client, ssl=context)

    def remember_unix_path(self, path: Path) -> None:
        """Remove `path` when the listener closes."""
        self._unix_path = path


async def serve(
    handler: Handler,
    *,
    sockets: Iterable[socket.socket] = (),
    address: tuple[str, int] | None = None,
    unix_path: Path | None = None,
    settings: EdgeSettings | None = None,
    tls: TlsFiles | None = None,
) -> Listener:
    """Serve `handler` on the running loop.

    Exactly one of: `sockets` (bound and listening, ours from now on), `address` (host and port; port 0 takes a free
    one), `unix_path` (made with mode 0600; an old socket there is replaced). On TCP the Host list of `settings`
    gets the bound ports; on a Unix socket any well-formed Host will do, since no browser can reach it.

    Raises:
        StartRefused: the address cannot be bound, or the TLS files cannot be used.
    """
    settings = settings or EdgeSettings()
    bound = list(sockets)
    try:
        if address is not None:
            bound.append(_bind(*address))
        if unix_path is not None:
            bound.append(_bind_unix(unix_path))
    except OSError as error:
        raise StartRefused(f"cannot listen there: {error.strerror}", hint="choose another address") from error
    ports = [each.getsockname()[1] for each in bound if each.family != socket.AF_UNIX]
    hosts = settings.hosts.at(*ports) if ports else HostPolicy(None)
    edge = Edge(dataclasses.replace(settings, hosts=hosts), asyncio.get_running_loop())
    listener = Listener(edge, bound, ReloadingTls(tls) if tls is not None else None, handler)
    if unix_path is not None:
        listener.remember_unix_path(unix_path)
    await listener.open()
    return listener


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def _bind_unix(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(str(path))
        path.chmod(0o600)
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _address(each: socket.socket) -> str:
    name = each.getsockname()
    return str(name) if each.family == socket.AF_UNIX else f"{name[0]}:{name[1]}"
