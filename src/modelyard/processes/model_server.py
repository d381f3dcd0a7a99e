"""The model server: one process that listens, holds models and answers predictions.

    python -m modelyard.processes.model_server --config FILE [--ready-fd N] [--tied-to PID]

The configuration is a `ServerConfig` as JSON. It takes its routing table from a file, or from the control plane by long
poll, and then also starts from the copy it kept. It says that it is ready when it listens and its first table is in
effect (or there is none yet). SIGTERM drains: each open connection's next answer is its last. Writes nothing but
structured log lines to stderr.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from modelyard.domain.deferred import DeferredRules
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import StartRefused
from modelyard.domain.routing import RoutingTable, ServerReport
from modelyard.foundation.http import (
    EdgeLimits,
    EdgeSettings,
    HostPolicy,
    Listener,
    TrustedProxies,
    run,
    serve,
)
from modelyard.foundation.listening import bind
from modelyard.foundation.metrics import Book, Group
from modelyard.foundation.metrics.inputs import ACCOUNT
from modelyard.foundation.supervision import EXIT_REFUSED
from modelyard.foundation.supervision.inside import ChildArguments, child_arguments
from modelyard.foundation.telemetry import set_up_logging
from modelyard.inference.admission import SharedLimits
from modelyard.inference.deferred import Deferrals, DeferredMeasures, Spool
from modelyard.inference.grpc import GrpcListener, GrpcSettings, serve_grpc
from modelyard.inference.routing import (
    TABLE_REVISION,
    BoardOptions,
    Changes,
    ControlLink,
    Switchboard,
    TableFile,
    TableStore,
    ThroughControlPlane,
)
from modelyard.inference.server import (
    AccessLog,
    DeferredDoor,
    InferenceHandler,
    Pages,
    Repository,
    ServerLogs,
    replay,
)
from modelyard.ports.runtime import LoadOptions
from modelyard.processes.tls_config import TlsConfig, tls_files

_SWITCH_S = 0.0005
"""A run that ends in a lane waits no longer than this for the interpreter (Python's own default is 5 ms)."""
_log = logging.getLogger("modelyard.model_server")


class TableConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where the routing table comes from: a file that a group of servers follows, or the control plane's Unix socket.

    `cache` is where the newest table is kept for a start without the control plane.
    """

    static: str | None = None
    control_socket: str | None = None
    cache: str | None = None


class ServerConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Settings of one model server.

    It listens on inherited descriptors `fds`, or on `host` and `port` (0 takes a free one), or on `unix_path`; for
    gRPC, if at all, on `grpc_fds` or on `host` and `grpc_port`; with `address_file`, the addresses it got are written
    there, one a line, those of gRPC behind the word `grpc`. `hosts` are names beyond loopback that `Host`
    may carry; ["*"] allows any. `pepper` is the file with the hex key of the key hashes, `sealing_key` the one that
    opens sealed secrets. `metrics` is the directory of
    mapped counters and limits, shared by all servers of this machine. `auth` required asks for keys whatever the table
    says. `threads` are for one run of a model. `deadline_s` and `max_in_flight` are defaults of services; `drain_s` is
    the grace period; `wait_first_s` how long the models of the first table are waited for before it listens and says
    that it is ready. `access_log` is a file that takes one line a request. `deferred` is the directory of requests that
    are answered later, shared by all servers of this machine; without it none are.
    """

    id: str = "model-server-0"
    index: int = 0
    table: TableConfig
    fds: list[int] = msgspec.field(default_factory=list)
    host: str = "127.0.0.1"
    port: int | None = None
    unix_path: str | None = None
    grpc_fds: list[int] = msgspec.field(default_factory=list)
    grpc_port: int | None = None
    address_file: str | None = None
    tls: TlsConfig | None = None
    hosts: list[str] = msgspec.field(default_factory=list)
    trusted_proxies: list[str] = msgspec.field(default_factory=list)
    pepper: str | None = None
    sealing_key: str | None = None
    metrics: str | None = None
    auth: Literal["open", "required"] = "open"
    threads: int = 1
    device: str = "auto"
    max_body_bytes: int = 64 << 20
    deadline_s: float = 30.0
    max_in_flight: int = 1024
    drain_s: float = 30.0
    wait_first_s: float = 10.0
    access_log: str | None = None
    deferred: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class ModelServer:
    """One running server: its board, its listener and its line to the control plane."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self._started_at = time.time()
        metrics = Path(config.metrics or tempfile.mkdtemp(prefix="modelyard-metrics-"))
        self._book = Book.open(metrics, config.id)
        self._book.settle(ACCOUNT)
        self._limits = SharedLimits(metrics / "limits")
        self._link: ControlLink | None = None
        if config.table.control_socket is not None:
            self._link = ControlLink(Path(config.table.control_socket), config.id)
        self._board = Switchboard(
            BoardOptions(
                max_in_flight=config.max_in_flight,
                deadline_s=config.deadline_s,
                load=LoadOptions(threads=config.threads, device=config.device),
                keys_required=config.auth == "required",
                sealing_key=Path(config.sealing_key) if config.sealing_key else None,
            ),
            book=self._book,
            limits=self._limits,
            pepper=read_pepper(config),
            on_change=self._changed,
        )
        self._file: TableFile | None = None
        self._logs = ServerLogs(config.log_level)
        self._repository = Repository(self._changes(), self._logs)
        self._pages = Pages(self._board, metrics, self._repository)
        self._deferrals: Deferrals | None = None
        if config.deferred is not None:
            self._deferrals = Deferrals(
                Spool(Path(config.deferred)),
                DeferredRules(),
                replay=partial(replay, self._board),
                measures=DeferredMeasures(self._book),
            )
        door = None if self._deferrals is None else DeferredDoor(self._board, self._deferrals)
        self._handler = InferenceHandler(self._board, self._pages, door)
        self._store = TableStore(Path(config.table.cache) if config.table.cache else None)
        self._settled = asyncio.Event()
        self._metrics = metrics
        self._grpc: GrpcListener | None = None

    async def run(self, arguments: ChildArguments) -> None:
        """Serve until SIGTERM, then drain."""
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        self._take_first_table()
        access_log = AccessLog(Path(self.config.access_log)) if self.config.access_log else None
        tasks = self._follow()
        await self._first_settled()  # the listening socket is shared: what this server cannot answer yet, others can
        listener = await self._listen(access_log)
        self._grpc = await self._listen_grpc(access_log)
        over_grpc = self._grpc.addresses if self._grpc is not None else []
        addresses = [*listener.addresses, *(f"grpc {each}" for each in over_grpc)]
        _write_addresses(self.config, addresses)
        arguments.ready(" ".join(addresses))
        _log.info("listening", extra={"addresses": addresses, "table": self._board.revision})
        await stop.wait()
        _log.info("draining", extra={"in_flight": self._board.in_flight})
        self._pages.draining = True
        await self._drain(listener)
        if self._deferrals is not None:
            await self._deferrals.close(self.config.drain_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._board.close()
        if access_log is not None:
            access_log.close()
        self._limits.close()
        self._book.close()

    async def _drain(self, listener: Listener) -> None:
        closings = [listener.close(self.config.drain_s)]
        if self._grpc is not None:
            closings.append(self._grpc.close(self.config.drain_s))
        await asyncio.gather(*closings)

    def _changes(self) -> Changes | None:
        """Who decides what callers ask of this server."""
        table = self.config.table
        if table.control_socket is not None:
            return ThroughControlPlane(Path(table.control_socket), self._board)
        if table.static is not None:
            self._file = TableFile(Path(table.static), self._board, self._group_reached)
        return self._file

    def _group_reached(self, revision: int) -> bool:
        """Whether all servers that share our figures have that table."""
        group = Group.read(self._metrics)
        shown = [cells[0] for (name, _), cells in group.series.items() if name == TABLE_REVISION.name]
        return all(each >= revision for each in shown)

    def _take_first_table(self) -> None:
        if self._file is not None:
            self._take(self._file.read())
        else:
            kept = self._store.load()
            if kept is not None:
                self._apply(kept)

    def _take(self, table: RoutingTable) -> None:
        if self._store.offer(table):
            self._apply(table)

    def _apply(self, table: RoutingTable) -> None:
        self._logs.take(table.logging)
        if self._deferrals is not None:
            self._deferrals.rules = table.deferred
        self._board.apply(table)

    def _changed(self) -> None:
        self._handler.services_changed()
        if self._grpc is not None:
            self._grpc.services_changed()
        if not self._board.is_loading:
            self._settled.set()
        if self._link is not None:
            self._link.changed()

    def _follow(self) -> list[asyncio.Task[None]]:
        link, loop = self._link, asyncio.get_running_loop()
        deferred = []
        if self._deferrals is not None:
            deferred = [loop.create_task(self._deferrals.follow(), name="deferred requests")]
        if self._file is not None:
            return [*deferred, loop.create_task(self._file.follow(self._take), name="table file")]
        if link is None:
            return deferred
        return [
            *deferred,
            loop.create_task(link.follow(self._take, after=lambda: self._board.revision), name="routing table"),
            loop.create_task(link.report(self._report), name="reports"),
            loop.create_task(self._board.meter(), name="load"),
        ]

    async def _first_settled(self) -> None:
        """With a table at hand, ready means that its models are; without one there is nothing to wait for."""
        if self._board.is_loading:
            self._settled.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), self.config.wait_first_s)

    def _report(self) -> ServerReport:
        return ServerReport(
            server=self.config.id,
            pid=os.getpid(),
            started_at=self._started_at,
            table_revision=self._board.acknowledged,
            backends=self._board.statuses(),
            in_flight=self._board.in_flight,
            table_refused="" if self._link is None else self._link.refused,
            sketches=self._board.sketches(),
            shadows=self._board.shadows(),
            loads=self._board.loads(),
        )

    async def _listen(self, access_log: AccessLog | None) -> Listener:
        config = self.config
        settings = EdgeSettings(
            limits=EdgeLimits(max_body_bytes=config.max_body_bytes, drain_s=config.drain_s),
            hosts=HostPolicy(None) if "*" in config.hosts else HostPolicy.of(config.hosts),
            proxies=TrustedProxies.of(config.trusted_proxies),
            access_log=access_log.add if access_log is not None else None,
            joint_log=access_log.add_many if access_log is not None else None,
        )
        tls = tls_files(config.tls)
        sockets = [socket.socket(fileno=fd) for fd in config.fds]
        address = (config.host, config.port) if config.port is not None else None
        path = Path(config.unix_path) if config.unix_path is not None else None
        if not sockets and address is None and path is None:
            raise StartRefused("the configuration names nothing to listen on", hint="give fds, port or unix_path")
        return await serve(self._handler, sockets=sockets, address=address, unix_path=path, settings=settings, tls=tls)

    async def _listen_grpc(self, access_log: AccessLog | None) -> GrpcListener | None:
        """The gRPC listener, where one is asked for."""
        config = self.config
        sockets = [socket.socket(fileno=fd) for fd in config.grpc_fds]
        if config.grpc_port is not None:
            sockets.append(bind(config.host, config.grpc_port, given=True, option="grpc_port"))
        if not sockets:
            return None
        settings = GrpcSettings(
            max_message_bytes=config.max_body_bytes,
            tls=tls_files(config.tls),
            access_log=access_log.add if access_log is not None else None,
        )
        return await serve_grpc(
            self._board,
            self._metrics,
            self._repository,
            sockets=sockets,
            is_ready=lambda: self._board.is_ready and not self._pages.draining,
            settings=settings,
        )


def read_pepper(config: ServerConfig) -> bytes:
    """The pepper's bytes.

    Raises:
        StartRefused: keys are required and there is no pepper, or others may read it.
    """
    if config.pepper is None or not (config.auth == "required" or Path(config.pepper).exists()):
        if config.auth == "required":
            raise StartRefused("keys are required, but no pepper file is named", hint="start it with modelyard up")
        return os.urandom(32)
    path = Path(config.pepper)
    if path.stat().st_mode & 0o077:
        raise StartRefused("the pepper file may be read by others", hint=f"chmod 600 {path}")
    return bytes.fromhex(path.read_text().strip())


def _write_addresses(config: ServerConfig, addresses: Sequence[str]) -> None:
    if config.address_file is not None:
        path = Path(config.address_file)
        partial = path.with_suffix(".partial")
        partial.write_text("\n".join(addresses) + "\n")
        partial.replace(path)


async def _serve(config: ServerConfig, arguments: ChildArguments) -> None:
    await ModelServer(config).run(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one server; the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = child_arguments(given, title="modelyard: model-server")
    try:
        config = msgspec.json.decode(arguments.config.read_bytes(), type=ServerConfig)
        set_up_logging(level=config.log_level)
        _name_process(config.index)
        sys.setswitchinterval(_SWITCH_S)
        run(_serve(config, arguments))
    except ModelyardError as error:
        print(str(error), file=sys.stderr)  # noqa: T201  (last words)
        return EXIT_REFUSED
    except (OSError, ValueError) as error:
        print(f"the model server cannot start: {error}", file=sys.stderr)  # noqa: T201  (last words)
        return EXIT_REFUSED
    return 0


def _name_process(index: int) -> None:
    import setproctitle

    setproctitle.setproctitle(f"modelyard: model-server {index}")


if __name__ == "__main__":
    sys.exit(main())
