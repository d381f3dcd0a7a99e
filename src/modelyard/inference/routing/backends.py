"""One backend of a service as this server holds it: its model or its workers, its batcher, and where it stands."""

import asyncio
import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from modelyard.domain.contract import Isolation, ModelContract, ServingPackage
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.routing import Backend, BackendStatus, Batching, ServiceRoute
from modelyard.foundation.http.wire import HeaderLines, header_lines
from modelyard.inference.batching import Batcher, BatchLimits, Queue, Runner
from modelyard.inference.composition import GraphQueue
from modelyard.inference.protocol import Forms, Signature, forms_of
from modelyard.inference.routing.measures import BackendMeasures
from modelyard.inference.routing.models import HeldModel
from modelyard.inference.routing.sketching import Place, RevisionSketch
from modelyard.inference.routing.taps import Tap, TappedMeasures, TappedRunner
from modelyard.inference.routing.workers import WorkerPool
from modelyard.inference.upstreams import UpstreamClient, UpstreamQueue, V2Upstream

_MOST_NAMED = 64
_log = logging.getLogger(__name__)


class BackendState(StrEnum):
    """Where a backend stands on this server."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADED = "unloaded"


@dataclass(frozen=True, slots=True)
class BackendKey:
    """What makes two backends the same thing to hold; weights, limits and workers may change without loading anew."""

    project: str
    service: str
    revision: int
    version: str
    digest: str
    package: str
    isolation: Isolation

    @classmethod
    def of(cls, route: ServiceRoute, backend: Backend) -> "BackendKey":
        """The key of `backend` in `route`."""
        return cls(
            route.project,
            route.name,
            backend.revision,
            backend.version,
            backend.digest,
            backend.package,
            backend.isolation_in(route),
        )


class ServedBackend:
    """Holds what answers. `signature` and `batcher` are there from `READY` on.

    A server elsewhere is asked through `client`; one that speaks the OpenAI dialect has neither signature nor batcher.
    """

    def __init__(self, key: BackendKey, backend: Backend, measures: BackendMeasures) -> None:
        self.key = key
        self.backend = backend
        self.measures = measures
        self.state = BackendState.LOADING
        self.reason = ""
        self.load_s: float | None = None
        self.memory_bytes: int | None = None
        self.asleep = False
        self.device = ""
        self.package: ServingPackage | None = None
        self.contract: ModelContract | None = None
        self.platform = ""
        self.client: UpstreamClient | None = None
        self.signature: Signature | None = None
        self.forms: Forms | None = None
        self.batcher: Queue | None = None
        self.runner: Runner | None = None
        self.sketch: RevisionSketch | None = None
        self._mirror: Tap | None = None
        self._release: Callable[[], None] | None = None
        self._named: dict[str, ServedBackend] = {}
        self.headers: HeaderLines = header_lines(
            [
                (b"x-model-version", backend.version.encode()),
                (b"x-model-digest", backend.digest.encode()),
                (b"x-revision", str(backend.revision).encode()),
            ]
        )

    @property
    def workers(self) -> WorkerPool | None:
        """The isolated workers, where there are such."""
        return self.runner if isinstance(self.runner, WorkerPool) else None

    @property
    def pending(self) -> int:
        """Calls in hand."""
        streaming = self.workers.streaming if self.workers is not None else 0
        return streaming + (self.batcher.pending if self.batcher is not None else 0)

    def equip(
        self, package: ServingPackage, runner: Runner, batching: Batching, *, release: Callable[[], None]
    ) -> None:
        """Take what answers; `release` gives it back."""
        self.package = package
        self.contract = package.contract
        self.platform = package.platform
        self.runner = runner
        self._release = release
        self.signature = Signature(self.key.service, package.contract, package.golden)
        self.forms = forms_of(self.signature)
        limits = batch_limits(package.contract, batching)
        self.batcher = Batcher(runner, limits, asyncio.get_running_loop(), observer=self.measures)

    def lend(self, release: Callable[[], None]) -> None:
        """Take what has to be given back in the end, whatever becomes of this backend before."""
        self._release = release

    def equip_relay(self, client: UpstreamClient) -> None:
        """Take an upstream whose dialect is relayed as it is."""
        self.client = client
        self.contract = ModelContract(inputs=(), outputs=())
        self.platform = client.upstream.protocol.value

    def equip_upstream(self, upstream: V2Upstream) -> None:
        """Take a V2 upstream that was learned."""
        assert upstream.contract is not None
        self.client = upstream.client
        self.contract = upstream.contract
        self.platform = upstream.platform
        self.signature = Signature(self.key.service, upstream.contract)
        self.batcher = UpstreamQueue(upstream, asyncio.get_running_loop(), observer=self.measures)

    def woke(self, held: HeldModel) -> None:
        """The model that is held on demand is there, because a request asked for it."""
        model = held.hosted.model
        self.asleep = False
        self.measures.woke()
        self.became_ready(load_s=held.hosted.load_s, memory_bytes=model.memory_bytes, device=model.device)
        if self.batcher is not None:
            self.batcher.wake()

    def fell_asleep(self, reason: str) -> None:
        """The model was let go; the next request brings it back."""
        self.asleep = True
        self.memory_bytes = 0
        self.measures.memory.set(0.0)
        self.measures.fell_asleep(reason)

    def could_not_wake(self, error: ModelyardError) -> None:
        """Who waits for the model is told why it does not come; the next request tries again."""
        self.reason = error.detail
        if self.batcher is not None:
            self.batcher.refuse_all(error)

    def watch(self, place: Place) -> None:
        """Count apart what this backend answers from now on, where it answers here."""
        if self.signature is None or self.runner is None or not isinstance(self.batcher, Batcher):
            return  # answered elsewhere: what comes out of a run is not seen here
        self.sketch = RevisionSketch(self, self.signature, place)
        self._instrument()

    def unwatch(self) -> None:
        """Count nothing apart any more."""
        self.sketch = None
        self._instrument()

    def copy_to(self, mirror: Tap | None) -> None:
        """Let `mirror` copy what this backend answers, where it answers here; None ends that."""
        if mirror is not self._mirror:
            self._mirror = mirror
            self._instrument()

    def _instrument(self) -> None:
        if self.runner is None or not isinstance(self.batcher, Batcher):
            return
        taps = [tap for tap in (self.sketch, self._mirror) if tap is not None]
        if taps:
            measures = TappedMeasures(self.measures, taps)
            self.batcher.instrument(TappedRunner(self.runner, measures), measures)
        else:
            self.batcher.instrument(self.runner, self.measures)

    def aside(self) -> "ServedBackend":
        """The same backend for requests that are not to be compared, though they are answered all the same."""
        return copy.copy(self)

    def equip_graph(self, queue: GraphQueue, contract: ModelContract, platform: str) -> None:
        """Take a graph whose parts are there and fit."""
        self.contract = contract
        self.platform = platform
        self.signature = Signature(self.key.service, contract)
        self.batcher = queue

    def naming(self, parts: str) -> "ServedBackend":
        """The same backend for an answer that says which parts of its graph took part."""
        known = self._named.get(parts)
        if known is None:
            if len(self._named) >= _MOST_NAMED:
                self._named.clear()
            known = self._named[parts] = copy.copy(self)
            known.headers = HeaderLines(self.headers + header_lines([(b"x-parts", parts.encode("ascii"))]))
        return known

    def became_ready(self, *, load_s: float, memory_bytes: int, device: str) -> None:
        """It may take traffic."""
        self.state = BackendState.READY
        self.reason = ""
        self.load_s = load_s
        self.memory_bytes = memory_bytes
        self._named.clear()
        self.device = device
        self.show_memory()
        self.measures.load.set(load_s)

    def show_memory(self) -> None:
        """Say anew what the model takes, where it is there."""
        if self.state is BackendState.READY:
            self.measures.memory.set(self.memory_bytes or 0)

    def failed(self, reason: str) -> None:
        """It cannot take traffic."""
        self.state = BackendState.FAILED
        self.reason = reason
        _log.error(
            "a backend failed", extra={"service": self.key.service, "revision": self.key.revision, "why": reason}
        )

    def unload(self) -> None:
        """Let go of everything; nothing is in hand any more."""
        self.state = BackendState.UNLOADED
        self.measures.memory.set(0.0)
        if self._release is not None:
            self._release()
            self._release = None
        self.signature = self.forms = self.batcher = self.runner = self.client = None

    def status(self) -> BackendStatus:
        """What a report says of it."""
        return BackendStatus(
            project=self.key.project,
            service=self.key.service,
            version=self.key.version,
            digest=self.key.digest,
            revision=self.key.revision,
            state=self.state.value,
            reason=self.reason or ("" if self.client is None else self.client.remark),
            load_s=self.load_s,
            memory_bytes=self.memory_bytes,
            device=self.device,
            asleep=self.asleep,
        )


def batch_limits(contract: ModelContract, batching: Batching) -> BatchLimits:
    """The service's wish within what the contract proved."""
    proved = contract.max_batch_size
    return BatchLimits(
        max_rows=max(1, min(proved, batching.max_size)), longest=proved, max_wait_s=batching.max_wait_ms / 1000
    )
