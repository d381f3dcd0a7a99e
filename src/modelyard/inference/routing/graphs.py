"""A graph as this server carries it out: its own models, the services beside it, and whether all of it fits.

A service is looked up for each request, so a part that changes its revision is followed at once. It is asked as if a
caller of its own had come: its account, its limits and its queue are those of every request to it.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import numpy as np

from modelyard.domain.composing import Composition, compose
from modelyard.domain.contract import ModelContract
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import NotReady
from modelyard.domain.errors.platform import NotSupported
from modelyard.domain.graph import Graph, GraphPart, Step
from modelyard.domain.routing import ServiceRoute
from modelyard.foundation.metrics import Book
from modelyard.inference.batching import Batcher
from modelyard.inference.composition import Asked, GraphExecutor, GraphQueue, ask_queue
from modelyard.inference.protocol import Signature
from modelyard.inference.routing.backends import BackendState, ServedBackend, batch_limits
from modelyard.inference.routing.measures import PartMeasures
from modelyard.inference.routing.models import HeldModel, ModelKey, ModelShelf
from modelyard.inference.routing.services import Service

Array = np.ndarray[Any, Any]
PLATFORM: Final = "modelyard_graph"
PATIENCE_S: Final = 20.0
"""How long a new graph waits for parts that come with it before it is said to have failed; it goes on looking."""
Find = Callable[[str, str], Service | None]


@dataclass(frozen=True, slots=True)
class _Own:
    """A model of the graph's own, with a queue of its own."""

    part: GraphPart
    held: HeldModel
    signature: Signature
    batcher: Batcher


class GraphHolder:
    """The parts of one backend that is a graph. `find` gives the services of this server."""

    def __init__(self, backend: ServedBackend, graph: Graph, *, project: str, find: Find) -> None:
        self.backend = backend
        self.graph = graph
        self.project = project
        self._find = find
        self._own: dict[str, _Own] = {}
        self._fitted: Composition | None = None
        self._until = perf_counter() + PATIENCE_S

    async def load(self, route: ServiceRoute, parts: Mapping[str, GraphPart], shelf: ModelShelf, book: Book) -> None:
        """Load the models that the graph asks itself; they are given back with the backend."""
        keys: list[ModelKey] = []

        def release() -> None:
            for key in keys:
                shelf.give_back(key)

        self.backend.lend(release)
        for reference in sorted(self.graph.models):
            part = parts[reference]
            key = ModelKey(self.project, part.package, part.digest)
            held = await shelf.take(key)
            keys.append(key)
            contract = held.hosted.package.contract
            labels = (self.project, route.name, part.model, part.version)
            batcher = Batcher(
                held.runner,
                batch_limits(contract, route.batching),
                asyncio.get_running_loop(),
                observer=PartMeasures(book, *labels),
            )
            self._own[reference] = _Own(part, held, Signature(part.model, contract), batcher)

    @property
    def memory_bytes(self) -> int:
        """What the graph's own models take."""
        return sum(own.held.hosted.model.memory_bytes for own in self._own.values())

    def fit(self) -> bool:
        """Look again whether all parts are there and fit; whether that changed what the backend is."""
        before = (self.backend.state, self.backend.reason, self.backend.contract)
        made = compose(self.graph, self._contract_of)
        if made.contract is None:
            self._unfit(made)
        elif self._fitted is None or made != self._fitted or self.backend.state is not BackendState.READY:
            self._fitted = made
            executor = GraphExecutor(self.graph, self, made.given, batched=made.contract.max_batch_size != 0)
            queue = GraphQueue(
                executor,
                asyncio.get_running_loop(),
                observer=self.backend.measures,
                tell=lambda call, used: call.name_parts(self._named(used)),
            )
            self.backend.equip_graph(queue, made.contract, PLATFORM)
            self.backend.became_ready(load_s=0.0, memory_bytes=self.memory_bytes, device="parts")
        return (self.backend.state, self.backend.reason, self.backend.contract) != before

    async def ask(self, step: Step, inputs: Mapping[str, Array], asked: Asked) -> dict[str, Array]:
        """Ask one part (see `Asker`)."""
        if step.model is not None:
            own = self._own[step.model]
            return await ask_queue(own.batcher, own.signature, inputs, asked)
        return await self._ask_service(step.service or "", inputs, asked)

    async def _ask_service(self, name: str, inputs: Mapping[str, Array], asked: Asked) -> dict[str, Array]:
        service = self._find(self.project, name)
        if service is None:
            raise NotReady("there is no such service", hint="deploy it again, or change the graph")
        measures = service.measures
        measures.received.add()
        try:
            gate = service.enter(None, asked.fields)
        except ModelyardError as error:
            measures.rejected(error.code)
            raise
        try:
            backend = service.choose(asked.fields)
            if backend.batcher is None or backend.signature is None:
                raise NotSupported("it takes no tensors")
            asked.used[name] = backend.key.revision
            outputs = await ask_queue(backend.batcher, backend.signature, inputs, asked)
        except asyncio.CancelledError:
            service.leave(gate)
            measures.lost("cancelled", "cancelled")
            raise
        except ModelyardError as error:
            service.leave(gate)
            service.book_failure(error)
            raise
        service.answered(gate)
        return outputs

    def _contract_of(self, step: Step) -> ModelContract | None:
        if step.model is not None:
            own = self._own.get(step.model)
            return None if own is None else own.held.hosted.package.contract
        service = self._find(self.project, step.service or "")
        if service is None or not service.split.items or service.is_relayed:
            return None
        backend = service.split.items[0]
        return backend.contract if backend.state is BackendState.READY else None

    def _unfit(self, made: Composition) -> None:
        if self.backend.state is BackendState.READY and not made.problems:
            return  # a part is away just now: requests say so, and those that need it not are answered
        if made.problems:
            first = made.problems[0]
            reason = f"graph.{first.path}: {first.what}"
        else:
            missing = [name for name in sorted(self.graph.services) if self._contract_of(_asks(name)) is None]
            reason = f"the part {missing[0] if missing else '?'} is not there, or cannot answer"
            if perf_counter() < self._until:
                self.backend.state, self.backend.reason = BackendState.LOADING, reason
                return
        if (self.backend.state, self.backend.reason) != (BackendState.FAILED, reason):
            self.backend.failed(reason)

    def _named(self, used: Mapping[str, int]) -> str:
        """The parts that took part, for the header `x-parts`: services with revisions, own models with versions."""
        services = [f"{name};revision={revision}" for name, revision in sorted(used.items())]
        models = [f"{own.part.model};version={own.part.version}" for own in self._own.values()]
        return ", ".join((*services, *models))


def _asks(service: str) -> Step:
    return Step(name=service, service=service)
