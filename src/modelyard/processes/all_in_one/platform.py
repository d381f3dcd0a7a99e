"""One run of `modelyard up`: sockets, then the control plane, then the model servers; drained in the opposite order.

The supervisor owns the listening sockets and hands them to the servers, so that a server that dies loses no connection
that was not its own. When the supervisor itself is killed, its children go on answering, and the next `up` with the
same options adopts them; with other options it ends them in order first.
"""

import asyncio
import hashlib
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import psutil
import setproctitle

from modelyard.domain.errors.platform import StartRefused
from modelyard.foundation.listening import bind_or_next, url_host
from modelyard.foundation.places import Places
from modelyard.foundation.supervision import Child, ChildSpec, DirectoryLock, Supervisor
from modelyard.foundation.supervision.adoption import (
    Left,
    borrow_descriptor,
    left_of,
    read_left,
    write_left,
)
from modelyard.processes.all_in_one.children import (
    CONTROL,
    Sockets,
    WorkerPlaces,
    agent_specs,
    control_spec,
    job_worker_specs,
    sender_specs,
    server_specs,
    worker_again,
    worker_spec,
)
from modelyard.processes.all_in_one.options import UpOptions
from modelyard.processes.all_in_one.orders import Orders
from modelyard.processes.edge_rules import require_safe

CONTROL_PORT: Final = 8700
INFERENCE_PORT: Final = 8080
GRPC_PORT: Final = 8081
_START_TIMEOUT_S: Final = 90.0
_SAVE_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What stands when `up` is ready."""

    data: str
    control_url: str
    inference_url: str
    grpc_address: str
    auth_required: bool
    adopted: tuple[str, ...]
    bootstrap_token: str | None


class Watcher(Protocol):
    """Is told what happens."""

    def standing(self, standing: Standing) -> None:
        """Everything answers."""

    def event(self, text: str) -> None:
        """Something happened to a process."""

    def draining(self) -> None:
        """The end was asked for."""


def up(options: UpOptions, watcher: Watcher) -> None:
    """Run the platform until a signal ends it.

    Raises:
        StartRefused: unsafe address, data directory in use or newer than this version, port taken, a process that
            does not start; each with what to do.
    """
    exposure = options.exposure
    require_safe(exposure, command="modelyard up")
    setproctitle.setproctitle("modelyard: supervisor")
    places = options.places
    places.create()
    lock = DirectoryLock(places.lock)
    lock.take()
    try:
        asyncio.run(_Platform(options, places, watcher).run())
    finally:
        lock.release()


class _Platform:
    """The parts of one run."""

    def __init__(self, options: UpOptions, places: Places, watcher: Watcher) -> None:
        self._options = options
        self._places = places
        self._watcher = watcher
        self._supervisor = Supervisor(on_event=self._on_event)
        self._fingerprint = ""
        self._list = places.run / "children.json"

    def _on_event(self, child: Child, text: str) -> None:
        self._watcher.event(f"{child.spec.name}: {text}")

    async def run(self) -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        self._fingerprint = hashlib.sha256(repr(self._options).encode()).hexdigest()[:16]
        left = {entry.name: entry for entry in read_left(self._list)}
        if any(entry.fingerprint != self._fingerprint for entry in left.values()):
            await _end(list(left.values()), grace_s=self._options.grace_s)
            left = {}
        with ExitStack() as stack:
            sockets = self._sockets(left, stack)
            orders = Orders(self._supervisor, make_worker=partial(worker_spec, WorkerPlaces.of(self._places)))
            await orders.open(self._places.supervisor_socket)
            try:
                await self._start_all(sockets, left)
                self._save()
                self._watcher.standing(self._standing(sockets, left))
                await self._watch(stopped)
            finally:
                await orders.close()
                if stopped.is_set():
                    self._watcher.draining()
                await self._drain()

    def _sockets(self, left: dict[str, Left], stack: ExitStack) -> Sockets:
        """The listening sockets: those of the processes that were left, or new ones."""
        options = self._options
        host = options.exposure.host
        kept = _borrowed(left, self._places)
        if kept is not None:
            for listener in (kept.control, kept.inference, kept.grpc):
                stack.enter_context(closing(listener))
            return kept
        wishes = (
            (options.control_port, CONTROL_PORT, "--control-port"),
            (options.inference_port, INFERENCE_PORT, "--inference-port"),
            (options.grpc_port, GRPC_PORT, "--grpc-port"),
        )
        control, inference, over_grpc = (
            stack.enter_context(closing(bind_or_next(host, port, default, option=option)))
            for port, default, option in wishes
        )
        return Sockets(control=control, inference=inference, grpc=over_grpc)

    async def _start_all(self, sockets: Sockets, left: dict[str, Left]) -> None:
        sockets.write_down(self._places.run / "sockets.json")
        again = [worker_again(self._places, name) for name in left]
        workers = [spec for spec in again if spec is not None]
        await self._start(workers, left)
        await self._start([control_spec(self._options, self._places, sockets)], left)
        agents = agent_specs(self._options, self._places)
        servers = server_specs(self._options, self._places, sockets)
        beside = [*sender_specs(self._options, self._places), *job_worker_specs(self._options, self._places)]
        await self._start([*agents, *servers, *beside], left)
        known = {CONTROL, *(spec.name for spec in (*servers, *workers, *agents, *beside))}
        await _end([entry for name, entry in left.items() if name not in known], grace_s=self._options.grace_s)

    async def _start(self, specs: Sequence[ChildSpec], left: dict[str, Left]) -> None:
        children = [
            self._supervisor.start(spec, adopt=left[spec.name].pid if spec.name in left else None) for spec in specs
        ]
        for child in children:
            await self._supervisor.started(child, timeout_s=_START_TIMEOUT_S)

    async def _watch(self, stopped: asyncio.Event) -> None:
        """Keep the list of children true until the end is asked for, or the control plane refuses to live."""
        control = self._supervisor.get(CONTROL)
        while not stopped.is_set():
            self._save()
            self._supervisor.check_memory()
            if control.ended.is_set():
                raise StartRefused(f"the control plane ended: {control.reason}")
            try:
                await asyncio.wait_for(stopped.wait(), _SAVE_EVERY_S)
            except TimeoutError:
                continue

    def _save(self) -> None:
        entries = [
            left_of(child.spec.name, child.pid, fingerprint=self._fingerprint)
            for child in self._supervisor.children
            if child.pid is not None
        ]
        write_left(self._list, [entry for entry in entries if entry is not None])

    async def _drain(self) -> None:
        """Servers first, so that their requests end well; then isolated workers; the control plane last."""
        names = [child.spec.name for child in self._supervisor.children]
        servers = [name for name in names if name.startswith("model-server")]
        others = [name for name in names if name not in servers and name != CONTROL]
        for group in (servers, others, [name for name in names if name == CONTROL]):
            await self._supervisor.stop_all(group, grace_s=self._options.grace_s)
        self._list.unlink(missing_ok=True)

    def _standing(self, sockets: Sockets, left: dict[str, Left]) -> Standing:
        exposure = self._options.exposure
        host = url_host(exposure.host)
        token = self._places.data / "bootstrap.token"
        return Standing(
            data=str(self._places.data),
            control_url=f"{exposure.scheme}://{host}:{_port(sockets.control)}",
            inference_url=f"{exposure.scheme}://{host}:{_port(sockets.inference)}",
            grpc_address=f"{host}:{_port(sockets.grpc)}",
            auth_required=exposure.auth_required,
            adopted=tuple(left),
            bootstrap_token=str(token) if exposure.auth_required and token.exists() else None,
        )


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _borrowed(left: dict[str, Left], places: Places) -> Sockets | None:
    """The sockets that left processes hold; None (and nothing left) when they cannot be taken over."""
    server = next((entry for name, entry in left.items() if name.startswith("model-server")), None)
    if CONTROL not in left or server is None:
        return None
    numbers = Sockets.read_numbers(places.run / "sockets.json")
    if numbers is None:
        return None
    try:
        return Sockets(
            control=socket.socket(fileno=borrow_descriptor(left[CONTROL].pid, numbers["control"])),
            inference=socket.socket(fileno=borrow_descriptor(server.pid, numbers["inference"])),
            grpc=socket.socket(fileno=borrow_descriptor(server.pid, numbers["grpc"])),
        )
    except OSError:
        return None


async def _end(entries: Sequence[Left], *, grace_s: float) -> None:
    """Ask processes that are not ours to end, and make them end after `grace_s`."""
    processes = [psutil.Process(entry.pid) for entry in entries if entry.is_alive()]
    for process in processes:
        process.terminate()
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, grace_s)
    for process in alive:
        process.kill()
