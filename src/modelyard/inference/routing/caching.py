"""The response cache of a service that asks for one: the same question is answered without a run.

An answer is found again only by everything that made it: the service, the model's digest and version, the revision, the
caller's project, and the bytes of every input and parameter. So another model, a new revision or another tenant never
gets it. Kept are the arrays that the model gave, whole; each answer is written anew, in the form and with the outputs
that its request wants, so that HTTP and gRPC share what is kept. One cache a service and process, bounded in entries
and bytes; what was used longest ago goes first.
"""

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.routing import ResponseCache
from modelyard.foundation.http.wire import HeaderLines
from modelyard.inference.batching import BatchLimits, Call, Queue
from modelyard.inference.routing.backends import ServedBackend

Array = np.ndarray[Any, Any]
Outputs = Mapping[str, Array]
_HIT: Final = b"x-cache: hit\r\n"
_MISS: Final = b"x-cache: miss\r\n"
_OBJECT_BYTES: Final = 64
_ENTRY_BYTES: Final = 256
_MOST_SCOPES: Final = 4096


class _Entry(NamedTuple):
    outputs: Outputs
    size: int
    until: float


class KeptAnswers:
    """What is kept, the least recently used first. `clock` gives seconds."""

    def __init__(self, wish: ResponseCache, *, clock: Callable[[], float] = perf_counter) -> None:
        self.wish = wish
        self.size = 0
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: bytes) -> Outputs | None:
        """What is kept under `key` and not too old."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry.until:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.outputs

    def keep(self, key: bytes, outputs: Outputs) -> None:
        """Keep a copy, and let go of what there is no room for. What is larger than all the room is not kept."""
        size = _ENTRY_BYTES + sum(_bytes_of(array) for array in outputs.values())
        if size > self.wish.max_bytes:
            return
        self._drop(key)
        copies = {name: array.copy() for name, array in outputs.items()}
        self._entries[key] = _Entry(copies, size, self._clock() + self.wish.ttl_s)
        self.size += size
        while self.size > self.wish.max_bytes or len(self._entries) > self.wish.max_entries:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry.size


class CachedQueue:
    """Stands before a backend's queue for callers of one project. Belongs to the event loop."""

    def __init__(self, backend: ServedBackend, kept: KeptAnswers, project: str) -> None:
        assert backend.batcher is not None
        self._inner: Queue = backend.batcher
        self._kept = kept
        self._measures = backend.measures
        key = backend.key
        named = (key.project, key.service, key.digest, key.version, key.revision, project)
        self._seed = msgspec.json.encode(named)
        self._waiting: dict[int, _Asking] = {}
        self._hit = _view(backend, self, _HIT)
        self._miss = _view(backend, self, _MISS)

    @property
    def limits(self) -> BatchLimits:
        """Those of the queue behind it."""
        return self._inner.limits

    @limits.setter
    def limits(self, limits: BatchLimits) -> None:
        self._inner.limits = limits

    @property
    def pending(self) -> int:
        """Calls that wait or run."""
        return self._inner.pending

    @property
    def may_wait(self) -> bool:
        """Whether a call that is not found may have to wait."""
        return self._inner.may_wait

    def submit(self, call: Call) -> None:
        """Answer from what is kept, else let the model answer and keep it."""
        began = perf_counter()
        key = self._key(call)
        outputs = self._kept.find(key)
        now = perf_counter()
        self._measures.looked_up(now - began, found=outputs is not None)
        if outputs is None:
            _place(call, self._miss)
            asking = _Asking(call, self, key)
            self._waiting[id(call)] = asking
            self._inner.submit(asking)
            return
        _place(call, self._hit)
        call.settled = True
        call.succeed(outputs)
        self._measures.answered([call], perf_counter())

    def discard(self, call: Call) -> None:
        """Drop a call whose client has gone."""
        asking = self._waiting.get(id(call))
        if asking is not None:
            self._inner.discard(asking)

    def wake(self) -> None:
        """Look again."""
        self._inner.wake()

    def refuse_all(self, error: ModelyardError) -> None:
        """Fail everything that waits."""
        self._inner.refuse_all(error)

    def keep(self, key: bytes, outputs: Outputs) -> None:
        """A model answered a question that was not known."""
        self._kept.keep(key, outputs)

    def over(self, call: Call) -> None:
        """A call has its end."""
        self._waiting.pop(id(call), None)

    def _key(self, call: Call) -> bytes:
        digest = hashlib.blake2b(self._seed, digest_size=20)
        for name in sorted(call.inputs):
            array = call.inputs[name]
            digest.update(f"\0{name}\0{array.dtype.str}{array.shape}\0".encode())
            digest.update(_content(array))
        parameters = getattr(getattr(call, "parsed", None), "parameters", None)
        if parameters:
            digest.update(msgspec.json.encode(parameters, order="sorted"))
        return digest.digest()


class _Asking(Call):
    """A call that was not found, on its way through the queue: what comes out is kept."""

    __slots__ = ("_call", "_key", "_queue")

    def __init__(self, call: Call, queue: CachedQueue, key: bytes) -> None:
        super().__init__(call.inputs, call.rows, started=call.started, deadline=call.deadline)
        self.shape_key = call.shape_key
        self.priority = call.priority
        self._call = call
        self._queue = queue
        self._key = key

    def succeed(self, outputs: Outputs) -> None:
        self._end()
        self._queue.keep(self._key, outputs)
        self._call.succeed(outputs)
        self.ok = self._call.ok

    def fail(self, error: ModelyardError) -> None:
        self._end()
        self._call.fail(error)

    def drop(self) -> None:
        self._end()
        self._call.drop()

    def _end(self) -> None:
        self._call.settled = True
        self._queue.over(self._call)


class CachedChoice:
    """Chooses as `choose` does, and gives the chosen backend with its cache before it. One for each table's goal."""

    def __init__(
        self,
        choose: Callable[[Mapping[bytes, bytes]], ServedBackend],
        kept: KeptAnswers,
        project_of: Callable[[bytes | None], str],
    ) -> None:
        self._choose = choose
        self._kept = kept
        self._project_of = project_of
        self._views: dict[tuple[int, str], tuple[ServedBackend, ServedBackend]] = {}

    def __call__(self, fields: Mapping[bytes, bytes]) -> ServedBackend:
        """Who answers a request with these header fields."""
        backend = self._choose(fields)
        project = self._project_of(fields.get(b"authorization"))
        place = (id(backend), project)
        found = self._views.get(place)
        if found is not None and found[0] is backend:
            return found[1]
        if len(self._views) >= _MOST_SCOPES:
            self._views.clear()
        queue = CachedQueue(backend, self._kept, project)
        view = _view(backend, queue, b"")
        self._views[place] = (backend, view)
        return view


def _view(backend: ServedBackend, queue: CachedQueue, lines: bytes) -> ServedBackend:
    """The same backend with the cache before its queue, and a header that says what came of it."""
    view = copy.copy(backend)
    view.batcher = queue
    view.headers = HeaderLines(backend.headers + lines)
    return view


def _place(call: Call, view: ServedBackend) -> None:
    """Let the answer say where it came from; a call that names no backend says nothing."""
    if hasattr(call, "backend"):
        call.backend = view


def _content(array: Array) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    parts = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
    return b"".join(len(part).to_bytes(8) + part for part in parts)


def _bytes_of(array: Array) -> int:
    if array.dtype != object:
        return array.nbytes
    return sum(len(item) + _OBJECT_BYTES for item in array.ravel())
