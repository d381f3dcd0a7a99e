"""The control plane: one process that decides and remembers.

    python -m modelyard.processes.control_plane --config FILE [--ready-fd N] [--tied-to PID]

The configuration is a `ControlConfig` as JSON. It serves the control API on its listener and, on a Unix socket that
only this user can open, the routing table to the model servers. It says that it is ready when both listen. SIGTERM
drains. Predictions do not come through here: this process may be killed at any time without one of them failing.
"""

import asyncio
import os
import platform
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from modelyard.control.api import create_app, end_streams, open_parts, problem
from modelyard.control.catalog import VersionRecord, VersionUsers, find_model, set_alias
from modelyard.control.deployments import (
    ORCHESTRATORS,
    Addresses,
    Deployments,
    EnvironmentPreparer,
    Pace,
    Reconciler,
    Rollouts,
    Scaler,
    Targets,
    services_using,
    services_with_secret,
)
from modelyard.control.identity import Authenticator, IssuerBook, SecretStore
from modelyard.control.intake import (
    IntakeParts,
    Step,
    Target,
    UploadCentre,
    UploadDesk,
    UploadLimits,
    keeper_of,
    no_step,
    open_intake,
)
from modelyard.control.jobs import JobDesk
from modelyard.control.nodes import Board, BoardExchange, Roster
from modelyard.control.records import ControlParts, Transaction, shared_files
from modelyard.control.traffic import GuardLoop, InternalApp, Publisher, ServingChanges, TableFeed
from modelyard.domain.deferred import DeferredRules
from modelyard.domain.errors import ModelyardError, quote
from modelyard.domain.errors.platform import InvalidRequest, Unavailable
from modelyard.domain.routing import RoutingTable
from modelyard.domain.upstreams import UpstreamRules
from modelyard.foundation.environments import environments_of
from modelyard.foundation.http import (
    AsgiHandler,
    EdgeLimits,
    EdgeSettings,
    HostPolicy,
    Listener,
    RouteRule,
    TrustedProxies,
    problem_errors,
    run,
    serve,
)
from modelyard.foundation.metrics import Book, Family, Group, Kind, render
from modelyard.foundation.places import Places
from modelyard.foundation.settings import (
    AuditSettings,
    DeferredSettings,
    Settings,
    UploadSettings,
    UpstreamSettings,
    load,
)
from modelyard.foundation.supervision import EXIT_REFUSED
from modelyard.foundation.supervision.inside import ChildArguments, child_arguments
from modelyard.foundation.telemetry import set_up_logging
from modelyard.inspection import InspectionPolicy, TrustedKey
from modelyard.ports.orchestrator import Orchestrator
from modelyard.processes.artifact_stores import ARTIFACT_STORES
from modelyard.processes.job_parts import open_jobs
from modelyard.processes.tls_config import TlsConfig, tls_files

TITLE: Final = "modelyard: control-plane"
_REQUESTS: Final = Family(
    name="modelyard_control_requests_total",
    help="Requests of the control listener, by method and status.",
    kind=Kind.COUNTER,
    labels=("method", "status"),
)
_SWEEP_UPLOADS_S: Final = 60.0


class ControlConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Settings of the control plane.

    `data` is the data directory. It listens on the inherited descriptor `fd`, or on `host` and `port` (0 takes a free
    one); with `address_file`, the address it got is written there. `hosts` are names beyond loopback that `Host` may
    carry; ["*"] allows any. `inference_url` is what answers print as the address of services. `settings` is the file of
    a person's settings. `uploads` changes limits of uploads by field, `inspection` those of the audit, `pace` those of
    deployments. `model_servers` is how many of them share the inference address.
    """

    data: str
    fd: int | None = None
    host: str = "127.0.0.1"
    port: int = 8700
    address_file: str | None = None
    internal_socket: str | None = None
    supervisor_socket: str | None = None
    nodes: dict[str, str] = msgspec.field(default_factory=dict)
    auth: Literal["open", "required"] = "open"
    tls: TlsConfig | None = None
    hosts: list[str] = msgspec.field(default_factory=list)
    trusted_proxies: list[str] = msgspec.field(default_factory=list)
    inference_url: str = "http://127.0.0.1:8080"
    settings: str | None = None
    uploads: dict[str, int | float | None] = msgspec.field(default_factory=dict)
    inspection: dict[str, int | bool] = msgspec.field(default_factory=dict)
    model_servers: int = 0
    pace: dict[str, float] = msgspec.field(default_factory=dict)
    drain_s: float = 10.0


class ControlPlane:
    """All parts of one control plane. `open` them, `run` until a signal, and they close in the opposite order.

    `step` is called with the name of each step of a commit and of a deployment; fault tests end the process in it.
    """

    def __init__(self, config: ControlConfig, *, step: Step = no_step) -> None:
        self.config = config
        self.settings = load(
            file=Path(config.settings) if config.settings else None, environment=os.environ, given=None
        )
        self.places = Places(Path(config.data), shared_files(self.settings.records))
        self.limits = _struct(UploadLimits, {**upload_limits(self.settings.uploads), **config.uploads})
        self._step = step
        self._stack = AsyncExitStack()

    async def run(self, arguments: ChildArguments) -> None:
        """Serve until SIGTERM."""
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stopped.set)
        async with self._stack:
            listener = await self.open()
            if self.config.address_file is not None:
                _write_whole(Path(self.config.address_file), "\n".join(listener.addresses) + "\n")
            arguments.ready()
            await stopped.wait()

    async def open(self) -> Listener:
        """Open records, parts and both listeners; gives the one of the control API."""
        parts = self._parts()
        centre, desk = self._intake(parts)
        self._stack.callback(centre.close)
        board = self._board(parts)
        keepers = self._keepers()
        roster = Roster(parts.database, names=tuple(keepers), agents=tuple(self.config.nodes), clock=parts.clock)
        parts.put(Roster, roster)
        issuers = self._issuers(parts)
        standing = standing_table(self.settings, auth_required=parts.auth_required)
        publisher = Publisher(packages=self.places.packages, standing=standing, board=board, issuers=issuers)
        targets = Targets(_orchestrators(keepers), named=self.settings.targets)
        deployments = Deployments(
            parts.database, publish=publisher, packages=self.places.packages, targets=targets, step=self._step
        )
        pace: Pace = _struct(Pace, {**asdict(self.settings.deployments), **self.config.pace})
        reconciler = Reconciler(
            deployments,
            board=board,
            roster=roster,
            pace=pace,
            prepare=EnvironmentPreparer(
                environments_of(self.places.environments, self.settings.environments), parts.clock
            ),
        )
        feed = TableFeed(parts.database, publisher)
        for kind, service in ((Board, board), (Deployments, deployments), (UploadCentre, centre), (UploadDesk, desk)):
            parts.put(kind, service)
        rollouts = Rollouts(deployments, pace=pace)
        parts.put(Rollouts, rollouts)
        guard = GuardLoop(parts.database, board, rollouts, self.settings.guard)
        parts.put(GuardLoop, guard)
        parts.put(VersionUsers, VersionUsers(ask=[services_using]))
        parts.put(SecretStore, SecretStore(self.places.sealing_key, users=[services_with_secret]))
        parts.put(Addresses, Addresses(self.config.inference_url))
        with parts.database.leading() as leads:
            if leads:
                with parts.database.begin() as tx:
                    publisher(tx)  # the table in force may name places of another directory, when this was restored
        await feed.start()
        self._stack.push_async_callback(feed.stop)
        scaler = Scaler(deployments, board)
        parts.put(Scaler, scaler)
        loop: Scaler | Reconciler | GuardLoop
        for loop in (scaler, reconciler, guard):
            loop.start()
            self._stack.push_async_callback(asyncio.to_thread, loop.stop)
        self._stack.callback(asyncio.get_running_loop().create_task(_sweep(desk)).cancel)
        asks = partial(parts.get, Authenticator) if parts.auth_required else None  # made with the API
        workers = open_jobs(parts, deployments, inference_url=self.config.inference_url, stack=self._stack)
        changes = ServingChanges(deployments, board, asks)
        await self._serve_internal(InternalApp(feed, board, roster, changes, jobs=workers), feed, workers)
        return await self._serve_api(parts)

    def _parts(self) -> ControlParts:
        self.places.create()
        store: Any = ARTIFACT_STORES.get("files")
        parts = self._stack.enter_context(
            open_parts(
                self.places,
                artifacts=store(self.places.artifacts),
                settings=self.settings,
                auth_required=self.config.auth == "required",
            )
        )
        metrics = self.places.metrics / "control"
        parts.metrics = lambda: render(Group.read(metrics), [_REQUESTS])
        return parts

    def _board(self, parts: ControlParts) -> Board:
        """What servers say; those of other control planes too, where the platform has several."""
        if self.places.shared is None:
            return Board(parts.clock, expected=self.config.model_servers)
        plane = f"{platform.node()[:96]}.{keeper_of(self.places)}"
        board = Board(parts.clock, expected=self.config.model_servers, plane=plane)
        exchange = BoardExchange(parts.database, board, clock=parts.clock)
        exchange.start()
        self._stack.push_async_callback(asyncio.to_thread, exchange.stop)
        return board

    def _issuers(self, parts: ControlParts) -> IssuerBook:
        """Whose tokens count; their addresses are asked beside everything else."""
        issuers = IssuerBook(self.settings.tokens, kept=self.places.issuers)
        parts.put(IssuerBook, issuers)
        issuers.start()
        self._stack.push_async_callback(asyncio.to_thread, issuers.stop)
        return issuers

    def _intake(self, parts: ControlParts) -> tuple[UploadCentre, UploadDesk]:
        intake = IntakeParts(
            database=parts.database,
            artifacts=parts.artifacts,
            places=parts.places,
            limits=self.limits,
            policy=_struct(InspectionPolicy, {**audit_policy(self.settings.audit), **self.config.inspection}),
            set_alias=_point_alias,
            step=self._step,
        )
        centre, desk, _ = open_intake(intake, describe=partial(problem, request_id=""))
        return centre, desk

    def _keepers(self) -> dict[str, Path]:
        """Who keeps isolated workers: the agents of the nodes, or the supervisor as the only node."""
        if self.config.nodes:
            return {name: Path(path) for name, path in self.config.nodes.items()}
        path = self.config.supervisor_socket
        return {platform.node() or "localhost": self.places.supervisor_socket if path is None else Path(path)}

    async def _serve_internal(self, app: InternalApp, feed: TableFeed, workers: JobDesk) -> None:
        path = self.config.internal_socket
        handler = AsgiHandler(app)
        limits = EdgeLimits(max_body_bytes=8 << 20)
        listener = await serve(
            handler,
            unix_path=self.places.control_socket if path is None else Path(path),
            settings=EdgeSettings(limits=limits, errors=problem_errors),
        )
        self._stack.push_async_callback(handler.stop)
        self._stack.push_async_callback(listener.close, 1.0)
        self._stack.push_async_callback(feed.stop)  # lets the waiting polls go, so that the listener can close
        self._stack.callback(workers.stop)  # and those who wait for a job
        await handler.start()

    async def _serve_api(self, parts: ControlParts) -> Listener:
        config = self.config
        app = create_app(parts)
        handler = AsgiHandler(app)
        await handler.start()
        self._stack.push_async_callback(handler.stop)
        book = _open_book(self.places.metrics / "control")
        self._stack.callback(book.close)
        counters: dict[tuple[str, int], Any] = {}

        def count(method: str, path: str, status: int, seconds: float, size: int) -> None:
            del path, seconds, size
            key = (method, status)
            if key not in counters:
                counters[key] = book.counter(_REQUESTS, method, str(status))
            counters[key].add()

        settings = EdgeSettings(
            limits=EdgeLimits(max_body_bytes=parts.settings.api.max_body_bytes, drain_s=config.drain_s),
            hosts=HostPolicy(None) if "*" in config.hosts else HostPolicy.of(config.hosts),
            proxies=TrustedProxies.of(config.trusted_proxies),
            routes=self._rule,
            errors=problem_errors,
            access_log=count,
        )
        listener = await serve(
            handler,
            sockets=[] if config.fd is None else [socket.socket(fileno=config.fd)],
            address=(config.host, config.port) if config.fd is None else None,
            settings=settings,
            tls=tls_files(config.tls),
        )
        self._stack.push_async_callback(listener.close, config.drain_s)
        self._stack.callback(end_streams, app)
        return listener

    def _rule(self, method: str, path: str) -> RouteRule | None:
        """Uploads are streams; everything else is small."""
        is_version = method == "POST" and path.startswith("/api/v1/models/") and path.endswith("/versions")
        if method == "POST" and path == "/api/v1/job-files":
            return RouteRule(max_body_bytes=self.settings.jobs.input_mib << 20, streamed=True)
        is_piece = method == "PATCH" and path.startswith("/api/v1/uploads/")
        if not (is_version or is_piece):
            return None
        headers = self.limits.files * self.limits.part_header_bytes
        return RouteRule(
            max_body_bytes=self.limits.total_bytes + headers,
            streamed=True,
            min_rate_bytes_s=self.limits.minimum_bytes_per_s,
            rate_window_s=self.limits.grace_s,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one control plane; the exit code."""
    arguments = child_arguments(list(sys.argv[1:] if argv is None else argv), title=TITLE)
    try:
        config = msgspec.json.decode(arguments.config.read_bytes(), type=ControlConfig)
        plane = ControlPlane(config)
        set_up_logging(level=plane.settings.log.level)
        run(plane.run(arguments))
    except Unavailable as error:  # the records' database does not answer: it may when this is started again
        print(str(error), file=sys.stderr)  # noqa: T201  (last words)
        return 1
    except ModelyardError as error:
        print(str(error), file=sys.stderr)  # noqa: T201  (last words)
        return EXIT_REFUSED
    except (OSError, ValueError) as error:
        print(f"the control plane cannot start: {error}", file=sys.stderr)  # noqa: T201  (last words)
        return EXIT_REFUSED
    return 0


def _orchestrators(keepers: Mapping[str, Path]) -> Mapping[str, Orchestrator]:
    local: Any = ORCHESTRATORS.get("local")
    return {"local": local(keepers)}


async def _sweep(desk: UploadDesk) -> None:
    """Remove expired uploads now and then."""
    while True:
        await asyncio.sleep(_SWEEP_UPLOADS_S)
        await asyncio.to_thread(desk.sweep)


def _point_alias(tx: Transaction, target: Target, version: VersionRecord) -> None:
    if target.alias is not None and target.sender is not None:
        model = find_model(tx, version.project, version.model)
        set_alias(tx, target.sender, model, target.alias, version.version)


def upload_limits(settings: UploadSettings) -> dict[str, Any]:
    """The upload centre's bounds as a person set them."""
    values = asdict(settings)
    return {**values, "project_bytes": values["project_bytes"] or None}


def standing_table(settings: Settings, *, auth_required: bool) -> RoutingTable:
    """What holds for all services, as a person set it: a routing table without any."""
    return RoutingTable(
        revision=0,
        auth_required=auth_required,
        upstreams=upstream_rules(settings.upstreams, auth_required=auth_required),
        model_memory_bytes=(settings.serving.model_memory_mib << 20) or None,
        deferred=deferred_rules(settings.deferred),
    )


def deferred_rules(settings: DeferredSettings) -> DeferredRules:
    """Bounds of requests that are answered later, as a person set them."""
    return DeferredRules(
        at_once=settings.at_once,
        most_waiting=settings.waiting,
        most_bytes=settings.waiting_mib << 20,
        patience_s=settings.patience_s,
        kept_s=settings.kept_hours * 3600.0,
        webhook_ports=_ports(settings.webhook_ports) if settings.webhooks else None,
        webhook_private=settings.webhook_private,
    )


def _ports(texts: Sequence[str]) -> tuple[int, ...]:
    """The ports that webhooks may have; empty allows any.

    Raises:
        InvalidRequest: one is none.
    """
    if "any" in texts:
        return ()
    if not all(text.isdigit() and 0 < int(text) < 1 << 16 for text in texts):
        raise InvalidRequest("deferred.webhook_ports are numbers from 1 to 65535, or any", hint="443,80")
    return tuple(int(text) for text in texts)


def upstream_rules(settings: UpstreamSettings, *, auth_required: bool) -> UpstreamRules:
    """What holds for all upstreams, as a person set it."""
    chosen = settings.allow_private
    return UpstreamRules(
        allow_private=chosen == "always" or (chosen == "auto" and not auth_required),
        ca_file=settings.ca_file or None,
        max_answer_bytes=settings.max_answer_bytes,
    )


def audit_policy(settings: AuditSettings) -> dict[str, Any]:
    """The audit's bounds and trust as a person set them.

    Raises:
        InvalidRequest: a trusted key cannot be read.
    """
    values = asdict(settings)
    keys, required = values.pop("trusted_keys"), values.pop("require_signature")
    try:
        trusted = tuple(TrustedKey(name=Path(path).name, pem=Path(path).read_bytes()) for path in keys)
    except OSError as error:
        raise InvalidRequest(
            f"audit.trusted_keys: {quote(error.filename)} cannot be read", hint=error.strerror or ""
        ) from error
    bounds = {f"audit_{name}": value for name, value in values.items()}
    return {**bounds, "trusted_keys": trusted, "require_signature": required}


def _struct(kind: type[Any], values: Mapping[str, Any]) -> Any:  # noqa: ANN401  (the kind that was given)
    """`kind` with these fields; a name that it does not have is refused."""
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from error


def _open_book(directory: Path) -> Book:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Book.open(directory, "control-plane")


def _write_whole(path: Path, text: str) -> None:
    partial_path = path.with_suffix(".partial")
    partial_path.write_text(text)
    partial_path.replace(path)


if __name__ == "__main__":
    sys.exit(main())
