"""One run of `modelyard serve`: audit, package, start, prove, wait, clean up.

The model never enters this process: the audit's children convert and probe it, a model server holds it. What this
process adds is the order of things, and that nothing is left behind when it ends.
"""

import asyncio
import signal
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self, cast

import setproctitle

from modelyard.domain.contract import ServingPackage
from modelyard.domain.errors.platform import StartRefused
from modelyard.domain.names import require_name
from modelyard.domain.report import AuditReport, Check, Verdict
from modelyard.foundation.documents import read_package
from modelyard.foundation.listening import bind_or_next, url_host
from modelyard.foundation.supervision import Child, Supervisor
from modelyard.inspection import Inspection, InspectionPolicy, inspect_bundle
from modelyard.processes.edge_rules import Exposure, require_safe
from modelyard.processes.serve.environment import build_environment
from modelyard.processes.serve.golden import ask_golden, curl_of
from modelyard.processes.serve.plan import ListenFds, Placement, plan
from modelyard.processes.serve.received import name_of, received_files

DEFAULT_PORT: Final = 8080
DEFAULT_GRPC_PORT: Final = 8081
_START_TIMEOUT_S: Final = 60.0
_GRACE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What a person asked of `serve`."""

    path: Path
    name: str
    labels: Path | None = None
    config: Path | None = None
    port: int | None = None
    grpc_port: int | None = None
    workers: int = 1
    device: str = "auto"
    trust: bool = False
    wheels: Path | None = None
    index: str | None = None
    exposure: Exposure

    @classmethod
    def from_command_line(cls, path: Path, options: Mapping[str, object]) -> Self:
        """Options as the command line gives them."""
        name = cast("str | None", options["name"])
        return cls(
            path=path,
            name=require_name(name, what="service name") if name else name_of(path),
            labels=cast("Path | None", options["labels"]),
            config=cast("Path | None", options["config"]),
            port=cast("int | None", options["port"]),
            grpc_port=cast("int | None", options["grpc_port"]),
            workers=cast("int", options["workers"]),
            device=str(options["device"]),
            trust=bool(options["trust"]),
            wheels=cast("Path | None", options["wheels"]),
            index=_text(options["index"]),
            exposure=Exposure(
                host=str(options["host"]),
                auth="open",
                tls_cert=_text(options["tls_cert"]),
                tls_key=_text(options["tls_key"]),
                trusted_proxies=cast("tuple[str, ...]", options["trusted_proxy"]),
                allowed_hosts=cast("tuple[str, ...]", options["allowed_host"]),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What stands when `serve` is ready."""

    url: str
    grpc_address: str
    answer: str
    answer_ms: float
    started_s: float
    curl: str


class Narrator(Protocol):
    """Is told each step as it happens."""

    def opened(self, name: str, path: Path, size: int) -> None:
        """The files are read; `size` is their sum in bytes."""

    def check(self, check: Check) -> None:
        """A check has finished."""

    def judged(self, report: AuditReport, digest: str) -> None:
        """The audit has finished."""

    def explained(self, package: ServingPackage) -> None:
        """What will be served, and how to ask it."""

    def serving(self, served: Served) -> None:
        """It answers."""

    def event(self, text: str) -> None:
        """Something happened to a child process."""


def serve(options: ServeOptions, narrator: Narrator) -> Verdict:
    """Audit and serve until a signal ends it. Returns at once, with the verdict, when the model is not served."""
    began = time.monotonic()
    setproctitle.setproctitle(f"modelyard: serve {options.name}")
    require_safe(options.exposure, command=f"modelyard serve {options.path}")
    with tempfile.TemporaryDirectory(prefix="modelyard-") as place:
        workdir = Path(place)
        inspection = _inspect(options, workdir, narrator)
        accepted = (Verdict.APPROVED, Verdict.NEEDS_REVIEW) if options.trust else (Verdict.APPROVED,)
        if inspection.report.verdict not in accepted or inspection.package_dir is None:
            return inspection.report.verdict
        package = read_package(inspection.package_dir)
        narrator.explained(package)
        build_environment(
            package, inspection.package_dir, index=options.index, wheels=options.wheels, say=narrator.event
        )
        asyncio.run(_run(options, package, inspection.package_dir, narrator, began=began))
    return Verdict.APPROVED


def _inspect(options: ServeOptions, workdir: Path, narrator: Narrator) -> Inspection:
    files = received_files(options.path)
    narrator.opened(options.name, options.path, sum(file.size for file in files))
    inspection = inspect_bundle(
        files,
        model_name=options.name,
        workdir=workdir,
        policy=InspectionPolicy(consent=options.trust),
        on_check=narrator.check,
        labels=options.labels,
        config=options.config,
    )
    narrator.judged(inspection.report, inspection.digest)
    return inspection


async def _run(
    options: ServeOptions, package: ServingPackage, directory: Path, narrator: Narrator, *, began: float
) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)

    def on_event(child: Child, text: str) -> None:
        narrator.event(f"{child.spec.name}: {text}")

    supervisor = Supervisor(on_event=on_event)
    exposure = options.exposure
    host = url_host(exposure.host)
    with (
        closing(bind_or_next(exposure.host, options.port, DEFAULT_PORT, option="--port")) as listener,
        closing(bind_or_next(exposure.host, options.grpc_port, DEFAULT_GRPC_PORT, option="--grpc-port")) as over_grpc,
    ):
        base = f"{exposure.scheme}://{host}:{listener.getsockname()[1]}"
        fds = ListenFds(http=listener.fileno(), grpc=over_grpc.fileno())
        placement = Placement(options.workers, options.device)
        specs = plan(options.name, package, directory, exposure=exposure, placement=placement, fds=fds)
        try:
            for spec in specs:
                await supervisor.started(supervisor.start(spec), timeout_s=_START_TIMEOUT_S)
            answer = await asyncio.to_thread(ask_golden, base, options.name, package, tls_cert=exposure.tls_cert)
            narrator.serving(
                Served(
                    url=f"{base}/v2/models/{options.name}",
                    grpc_address=f"{host}:{over_grpc.getsockname()[1]}",
                    answer=answer.text,
                    answer_ms=answer.milliseconds,
                    started_s=time.monotonic() - began,
                    curl=curl_of(base, options.name, package),
                )
            )
            await _until_stopped(stopped, supervisor)
        finally:
            await supervisor.stop_all([child.spec.name for child in supervisor.children], grace_s=_GRACE_S)


async def _until_stopped(stopped: asyncio.Event, supervisor: Supervisor) -> None:
    """Wait for a signal; a child that cannot be started again ends the run with its reason."""
    ends = {asyncio.ensure_future(child.ended.wait()): child for child in supervisor.children}
    signalled = asyncio.ensure_future(stopped.wait())
    done, pending = await asyncio.wait([signalled, *ends], return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in done:
        if task in ends:
            raise StartRefused(f"{ends[task].spec.name} ended: {ends[task].reason}")


def _text(value: object) -> str | None:
    return None if value is None else str(value)
