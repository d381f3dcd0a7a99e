"""Open a gRPC listener on sockets or an address; it drains and reloads certificates as the HTTP/1.1 listener does."""

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from modelyard.foundation.http.connection import Connection
from modelyard.foundation.http.edge import AccessLog, Edge, EdgeSettings
from modelyard.foundation.http.limits import EdgeLimits
from modelyard.foundation.http.listener import Listener
from modelyard.foundation.http.tls import ReloadingTls, TlsFiles
from modelyard.foundation.http2.call import Call
from modelyard.foundation.http2.connection import Http2Connection
from modelyard.foundation.http2.handling import GrpcHandler
from modelyard.foundation.http2.limits import Http2Limits
from modelyard.foundation.http2.outflow import Turns
from modelyard.foundation.http2.shared import Shared
from modelyard.foundation.http2.status import Status
from modelyard.foundation.http2.streaming import StreamCall


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcSettings:
    """How a gRPC listener behaves. `edge.idle_s` is long, since gRPC clients keep a connection for later.

    `access_log` hears of calls that no handler saw; handlers write what they answered themselves.
    """

    edge: EdgeLimits = field(default_factory=lambda: EdgeLimits(idle_s=600.0))
    http2: Http2Limits = field(default_factory=Http2Limits)
    access_log: AccessLog | None = None


class Methods:
    """A handler that asks one function per method: those of one message each way, and those with streams."""

    def __init__(
        self,
        methods: Mapping[bytes, Callable[[Call], None]],
        streams: Mapping[bytes, Callable[[StreamCall], None]] = MappingProxyType({}),
    ) -> None:
        self._methods = dict(methods)
        self._streams = dict(streams)
        self.streams = frozenset(streams)

    def handle(self, call: Call) -> None:
        """Hand `call` to its method; UNIMPLEMENTED where there is none."""
        method = self._methods.get(call.head.path)
        if method is None:
            call.fail(Status.UNIMPLEMENTED, "there is no such method")
        else:
            method(call)

    def open(self, call: StreamCall) -> None:
        """Hand a streaming call to its method."""
        self._streams[call.head.path](call)


class GrpcListener(Listener):
    """Sockets on which gRPC calls are served. Made by `serve_grpc`; `close` drains."""

    def __init__(
        self, shared: Shared, sockets: list[socket.socket], tls: ReloadingTls | None, handler: GrpcHandler
    ) -> None:
        super().__init__(shared.edge, sockets, tls, _NoHttp1())
        self._shared = shared
        self._calls = handler

    def _connection(self) -> Callable[[], Connection]:
        shared, handler, tls = self._shared, self._calls, self._tls is not None

        def make() -> Connection:
            return Http2Connection(shared, handler, tls=tls)  # type: ignore[return-value]  # a protocol all the same

        return make


class _NoHttp1:
    """Stands where the HTTP/1.1 listener has its handler; no request of that kind is ever read here."""

    def handle(self, request: object, reply: object) -> None:
        raise NotImplementedError


async def serve_grpc(
    handler: GrpcHandler,
    *,
    sockets: Iterable[socket.socket],
    settings: GrpcSettings | None = None,
    tls: TlsFiles | None = None,
) -> GrpcListener:
    """Serve `handler` on the running loop: HTTP/2 with prior knowledge, or by ALPN over TLS.

    `sockets` are bound and listening (`foundation.listening.bind`), ours from now on; TCP or Unix.

    Raises:
        StartRefused: the TLS files cannot be used.
    """
    settings = settings or GrpcSettings()
    loop = asyncio.get_running_loop()
    reloading = ReloadingTls(tls) if tls is not None else None
    if reloading is not None:
        reloading.context.set_alpn_protocols(["h2"])
    edge = Edge(EdgeSettings(limits=settings.edge, access_log=settings.access_log), loop)
    listener = GrpcListener(Shared(edge, settings.http2, Turns(loop)), list(sockets), reloading, handler)
    await listener.open()
    return listener
