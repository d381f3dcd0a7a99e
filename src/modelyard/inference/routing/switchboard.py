"""Put routing tables into effect: load what is new, switch when it is ready, let go of what is drained.

A table never interrupts a request: whoever holds a call goes on with the backend that took it, and a service changes
over in one assignment on the event loop. A table counts as acknowledged when each of its backends is ready or has
failed for good.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final

from modelyard.domain.contract import Isolation
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import NotReady
from modelyard.domain.graph import Graph
from modelyard.domain.names import DEFAULT_PROJECT
from modelyard.domain.routing import Backend, BackendStatus, RoutingTable, ServiceLoad, ServiceRoute
from modelyard.domain.sketches import ShadowSketch, Sketch
from modelyard.domain.upstreams import Upstream, UpstreamProtocol, UpstreamRules
from modelyard.foundation.documents import read_package
from modelyard.foundation.metrics import Book
from modelyard.inference.admission import FILE, RECORDS, Allowances, Caller, KeyRing, SharedLimits
from modelyard.inference.routing.backends import BackendKey, BackendState, ServedBackend, batch_limits
from modelyard.inference.routing.graphs import PATIENCE_S, GraphHolder
from modelyard.inference.routing.load import LOOK_EVERY_S, LoadMeters
from modelyard.inference.routing.measures import TABLE_REVISION, BackendMeasures, PoolMeasures, ServiceMeasures
from modelyard.inference.routing.models import ModelKey, ModelShelf
from modelyard.inference.routing.residency import Residency
from modelyard.inference.routing.services import Service
from modelyard.inference.routing.workers import WorkerPool
from modelyard.inference.upstreams import SecretBook, UpstreamClient, V2Upstream
from modelyard.ports.runtime import LoadOptions

_DRAIN_EVERY_S: Final = 0.05
_FIRST_AGAIN_S: Final = 0.5
_LONGEST_AGAIN_S: Final = 5.0
_log = logging.getLogger(__name__)
Place = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardOptions:
    """Defaults of all services: bound on requests in flight in this process, deadline, and how models are loaded.

    `keys_required` asks for keys whatever the table says. `sealing_key` is the file that opens sealed secrets.
    """

    max_in_flight: int = 1024
    deadline_s: float = 30.0
    load: LoadOptions = LoadOptions()  # noqa: RUF009  (frozen)
    keys_required: bool = False
    sealing_key: Path | None = None


class Switchboard:
    """All services of this server. Belongs to one event loop. `on_change` hears of every change of state."""

    def __init__(
        self, options: BoardOptions, *, book: Book, limits: SharedLimits, pepper: bytes, on_change: Callable[[], None]
    ) -> None:
        self.services: dict[Place, Service] = {}
        self.keys = KeyRing((), pepper=pepper, required=True)
        self.revision = -1
        self.acknowledged = -1
        self._options = options
        self._book = book
        self._limits = limits
        self._of_keys: SharedLimits | None = None
        self._pepper = pepper
        self._on_change = on_change
        self._shelf = ModelShelf(options.load)
        self._residency = Residency(self._shelf)
        self._meters = LoadMeters(on_waiting=on_change)
        self._secrets = SecretBook(options.sealing_key)
        self._upstreams = UpstreamRules()
        self._graphs: dict[ServedBackend, GraphHolder] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining: list[ServedBackend] = []
        self._drain_timer: asyncio.TimerHandle | None = None
        self._shown_revision = book.gauge(TABLE_REVISION, book.name)

    def apply(self, table: RoutingTable) -> None:
        """Make `table` the goal; an older or equal one is ignored."""
        if table.revision <= self.revision:
            return
        self.revision = table.revision
        required = table.auth_required or self._options.keys_required
        self.keys = KeyRing(
            table.keys,
            pepper=self._pepper,
            required=required,
            issuers=table.issuers,
            allowances=Allowances(self._key_limits, table.quotas),
        )
        self._secrets.take(table.secrets)
        self._upstreams = table.upstreams
        self._residency.bound(table.model_memory_bytes)
        wanted = {(route.project, route.name): route for route in table.services}
        for place in [place for place in self.services if place not in wanted]:
            self._draining += self.services.pop(place).backends.values()
        for place, route in wanted.items():
            self._take(place, route)
        self._meters.follow(self.services.values())
        self._settle()

    def _identify(self, authorization: bytes | None) -> Caller:
        """Who asks, by the keys of the present table."""
        return self.keys.identify(authorization)

    def _key_limits(self) -> SharedLimits:
        """The mapped file of keys and projects, beside that of services; made when the first of them has a limit."""
        if self._of_keys is None:
            self._of_keys = SharedLimits(self._limits.path.with_name(FILE), records=RECORDS)
        return self._of_keys

    def find(self, project: str, name: str) -> Service | None:
        """The service of this name."""
        return self.services.get((project, name))

    def statuses(self) -> tuple[BackendStatus, ...]:
        """Where every backend stands."""
        held = [backend.status() for service in self.services.values() for backend in service.backends.values()]
        return (*held, *(backend.status() for backend in self._draining))

    def sketches(self) -> tuple[Sketch, ...]:
        """What was counted of revisions that are compared."""
        return tuple(sketch for service in self.services.values() for sketch in service.comparison.sketches())

    def shadows(self) -> tuple[ShadowSketch, ...]:
        """How the answers of shadows compare."""
        return tuple(service.mirror.snapshot() for service in self.services.values() if service.mirror is not None)

    def loads(self) -> tuple[ServiceLoad, ...]:
        """What scaled services had to do since this was asked last."""
        return self._meters.report()

    async def meter(self) -> None:
        """Look at what scaled services have to do, for ever."""
        while True:
            self._meters.look()
            await asyncio.sleep(LOOK_EVERY_S)

    @property
    def is_ready(self) -> bool:
        """Whether a table is there and every service of it can answer."""
        return self.revision >= 0 and all(
            service.split.items or not any(backend.weight for backend in service.goal.backends)
            for service in self.services.values()
        )

    @property
    def is_loading(self) -> bool:
        """Whether this process loads a model of its own just now; nobody waits for isolated workers and parts."""
        return any(
            backend.state is BackendState.LOADING
            and backend.key.isolation is Isolation.SHARED
            and backend.backend.graph is None
            for service in self.services.values()
            for backend in service.backends.values()
        )

    @property
    def in_flight(self) -> int:
        """Requests in hand, in this process."""
        return sum(service.in_flight for service in self.services.values())

    def only_service(self) -> Service | None:
        """The one service of the default project, where there is just one service."""
        if len(self.services) == 1:
            return next(iter(self.services.values()))
        own = [service for (project, _), service in self.services.items() if project == DEFAULT_PROJECT]
        return own[0] if len(own) == 1 else None

    async def close(self) -> None:
        """Stop loading and let go of everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for service in self.services.values():
            self._draining += service.backends.values()
        for backend in self._draining:
            backend.unload()
        if self._of_keys is not None:
            self._of_keys.close()

    def _take(self, place: Place, route: ServiceRoute) -> None:
        service = self.services.get(place)
        if service is None:
            measures = ServiceMeasures(self._book, route.project, route.name)
            options = self._options
            service = Service(
                route,
                measures,
                bound=options.max_in_flight,
                deadline_s=options.deadline_s,
                identify=self._identify,
            )
            self.services[place] = service
        service.aim(route)
        service.limit(self._limits)
        for wish in service.goal.backends:
            key = BackendKey.of(route, wish)
            backend = service.backends.get(key)
            lasting = wish.upstream is not None or wish.graph is not None  # these find out by themselves
            if backend is None or (backend.state is BackendState.FAILED and not lasting):
                labels = (route.project, route.name, wish.model, wish.version)
                backend = ServedBackend(key, wish, BackendMeasures(self._book, service.measures, *labels))
                service.backends[key] = backend
                self._prepare(backend, route, wish)
            else:
                _adjust(backend, route, wish)
                if backend.client is not None:
                    backend.client.follow(self._upstreams)

    def _prepare(self, backend: ServedBackend, route: ServiceRoute, wish: Backend) -> None:
        if wish.upstream is not None:
            work = self._reach(backend, route, wish.upstream)
        elif wish.graph is not None:
            work = self._gather(backend, route, wish, wish.graph)
        elif backend.key.isolation is Isolation.PROCESS:
            work = self._attach(backend, route, wish)
        else:
            work = self._load(backend, route, wish)
        task = asyncio.get_running_loop().create_task(work, name=f"prepare {route.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self, backend: ServedBackend, route: ServiceRoute, wish: Backend) -> None:
        """Load and check the model; one that may sleep, and answered before this process did, is left asleep."""
        key = ModelKey(
            route.project,
            backend.key.package,
            backend.key.digest,
            device=wish.device,
            memory_bytes=wish.memory_bytes,
            threads=wish.threads,
        )
        first = self.acknowledged < 0 and wish.weight > 0
        try:
            if route.on_demand and first:
                await self._lay_asleep(backend, route, key)
                return
            held = await self._shelf.take(key)
            if route.on_demand:
                runner = self._residency.runner(key, backend, idle_s=route.idle_s, held=held)
                backend.equip(held.hosted.package, runner, route.batching, release=runner.close)
            else:
                release = lambda: self._shelf.give_back(key)  # noqa: E731
                backend.equip(held.hosted.package, held.runner, route.batching, release=release)
            model = held.hosted.model
            backend.became_ready(load_s=held.hosted.load_s, memory_bytes=model.memory_bytes, device=model.device)
        except Exception as error:  # noqa: BLE001  (the plugin edge: a runtime may raise anything)
            backend.failed(_explain(error))
        self._settle()

    async def _lay_asleep(self, backend: ServedBackend, route: ServiceRoute, key: ModelKey) -> None:
        package = await asyncio.get_running_loop().run_in_executor(None, read_package, Path(key.package))
        if package.digest != key.digest:
            raise NotReady("the package on disk is not of the digest that the table names")
        runner = self._residency.runner(key, backend, idle_s=route.idle_s)
        backend.equip(package, runner, route.batching, release=runner.close)
        backend.asleep = True
        backend.became_ready(load_s=0.0, memory_bytes=0, device="")
        self._settle()

    async def _attach(self, backend: ServedBackend, route: ServiceRoute, wish: Backend) -> None:
        loop = asyncio.get_running_loop()
        try:
            package = await loop.run_in_executor(None, read_package, Path(wish.package))
            pool = WorkerPool(
                loop,
                wish.digest,
                on_change=lambda: self._workers_changed(backend),
                resilience=route.resilience,
                observer=PoolMeasures(self._book, route.project, route.name),
            )
            backend.equip(package, pool, route.batching, release=pool.close)
            pool.follow(wish.workers)
            if route.scaled and wish.weight and not wish.workers:  # at zero: requests wait for the first worker
                backend.became_ready(load_s=0.0, memory_bytes=0, device="")
        except Exception as error:  # noqa: BLE001  (a package that cannot be read must not end the task unseen)
            backend.failed(_explain(error))
        self._settle()

    async def _reach(self, backend: ServedBackend, route: ServiceRoute, upstream: Upstream) -> None:
        """Make sure that somebody answers there; while nobody does, try again for as long as it is wanted."""
        own = asyncio.current_task()
        client = UpstreamClient(upstream, self._upstreams, secret=partial(self._secrets.open, route.project))

        def release() -> None:
            client.close()
            if own is not None:
                own.cancel()

        backend.lend(release)
        pause, began = _FIRST_AGAIN_S, perf_counter()
        while backend.state is not BackendState.READY:
            try:
                await _meet(backend, client)
                backend.became_ready(load_s=perf_counter() - began, memory_bytes=0, device="elsewhere")
            except Exception as error:  # noqa: BLE001  (whatever it is, it is a reason why nobody answers there)
                reason = _explain(error)
                if (backend.state, backend.reason) != (BackendState.FAILED, reason):
                    backend.failed(reason)
                    self._settle()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_AGAIN_S)
        self._settle()
        if upstream.check_s:
            await client.watch()

    async def _gather(self, backend: ServedBackend, route: ServiceRoute, wish: Backend, graph: Graph) -> None:
        """Load what a graph asks itself; from then on it looks at its parts whenever something changes."""
        holder = GraphHolder(backend, graph, project=route.project, find=self.find)
        try:
            await holder.load(route, {part.reference: part for part in wish.parts}, self._shelf, self._book)
            self._graphs[backend] = holder
        except Exception as error:  # noqa: BLE001  (the plugin edge: a runtime may raise anything)
            backend.failed(_explain(error))
        self._settle()
        await asyncio.sleep(PATIENCE_S)
        self._settle()

    def _workers_changed(self, backend: ServedBackend) -> None:
        pool = backend.workers
        if pool is None or not pool.hellos:
            return
        hellos = pool.hellos
        if backend.batcher is not None:
            backend.batcher.wake()
        backend.became_ready(
            load_s=max(hello.load_s for hello in hellos),
            memory_bytes=sum(hello.memory_bytes for hello in hellos),
            device=hellos[0].device,
        )
        self._settle()

    def _settle(self) -> None:
        decided = [service.settle() for service in self.services.values()]
        for _ in range(len(self._graphs)):  # a graph may be a part of another
            changed = [holder.fit() for holder in self._graphs.values()]
            if not any(changed):
                break
            decided = [service.settle() for service in self.services.values()]
        for service in self.services.values():
            for backend in service.retired():
                del service.backends[backend.key]
                self._draining.append(backend)
        if all(decided):
            self.acknowledged = self.revision
            self._shown_revision.set(self.revision)
        if self._draining:
            self._drain()
        self._on_change()

    def _held_by(self, gone: ServedBackend) -> list[ServedBackend]:
        """Backends of the same service."""
        service = self.services.get((gone.key.project, gone.key.service))
        return [] if service is None else list(service.backends.values())

    def _drain(self) -> None:
        """Unload what nobody waits for; look again soon while somebody does."""
        for backend in [backend for backend in self._draining if not backend.pending]:
            if backend.state is not BackendState.LOADING:
                self._draining.remove(backend)
                self._graphs.pop(backend, None)
                backend.unload()
                for other in self._held_by(backend):
                    other.show_memory()  # revisions of one version share its figure
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        self._drain_timer = (
            asyncio.get_running_loop().call_later(_DRAIN_EVERY_S, self._drain) if self._draining else None
        )


def _adjust(backend: ServedBackend, route: ServiceRoute, wish: Backend) -> None:
    """Take over what may change without loading anew."""
    backend.backend = wish
    if backend.batcher is not None and backend.package is not None:
        backend.batcher.limits = batch_limits(backend.package.contract, route.batching)
    if backend.workers is not None:
        backend.workers.follow(wish.workers)
        backend.workers.adjust(route.resilience)


async def _meet(backend: ServedBackend, client: UpstreamClient) -> None:
    await client.probe()
    if client.upstream.protocol is UpstreamProtocol.OPENAI:
        backend.equip_relay(client)
    else:
        upstream = V2Upstream(client)
        await upstream.learn()
        backend.equip_upstream(upstream)


def _explain(error: Exception) -> str:
    return error.detail if isinstance(error, ModelyardError) else f"{type(error).__name__}: {error}"[:300]
