"""What the data plane counts: families, the account of requests, and the cells of one service and one backend.

One input is one inference request. Everything here is updated once a batch, except `received` and refusals.
"""

import logging
from collections.abc import Mapping
from time import perf_counter
from typing import Final

from modelyard.foundation.metrics import Book, Counter, Family, Histogram, Kind
from modelyard.foundation.metrics.inputs import ANSWERED, IN_FLIGHT, LOST, RECEIVED, REJECTED
from modelyard.inference.admission import Pressure
from modelyard.inference.batching import Call

_log = logging.getLogger(__name__)
_SERVICE: Final = ("project", "service")
_MODEL: Final = ("project", "service", "model", "version")


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family(name=name, kind=Kind.COUNTER, help=text, labels=labels)


REQUEST_DURATION: Final = Family(
    name="modelyard_request_duration_seconds",
    kind=Kind.HISTOGRAM,
    help="From the whole request received to the answer handed to the connection, predictions only.",
    labels=_MODEL,
)
INFERENCE_DURATION: Final = Family(
    name="modelyard_inference_duration_seconds",
    kind=Kind.HISTOGRAM,
    help="The model's own run, as each request in it saw it.",
    labels=_MODEL,
)
QUEUE_DURATION: Final = Family(
    name="modelyard_queue_duration_seconds",
    kind=Kind.HISTOGRAM,
    help="From the request received to the start of the run that answered it.",
    labels=_MODEL,
)
REQUESTS: Final = _counter(
    "modelyard_requests_total",
    "Inference requests by how they ended: ok, the error code, cancelled.",
    *_SERVICE,
    "outcome",
)
ROWS: Final = _counter("modelyard_inferences_total", "Rows that models answered.", *_MODEL)
RUNS: Final = _counter("modelyard_executions_total", "Runs of models; rows ÷ runs is the batch size.", *_MODEL)
FAILURES: Final = _counter("modelyard_run_failures_total", "Runs that raised.", *_MODEL)
MODEL_MEMORY: Final = Family(
    name="modelyard_model_memory_bytes",
    kind=Kind.GAUGE,
    help="Memory that loading the model took, measured, summed over the processes that hold it.",
    labels=_MODEL,
)
MODEL_LOAD: Final = Family(
    name="modelyard_model_load_seconds",
    kind=Kind.GAUGE,
    help="Time to load, warm up and check the model, in the process that took longest to say so.",
    labels=("project", "service", "model", "version", "process"),
)
FIRST_BYTE: Final = Family(
    name="modelyard_time_to_first_byte_seconds",
    kind=Kind.HISTOGRAM,
    help="From the whole request received to the first part of an answer that streams.",
    labels=_MODEL,
)
TOKENS: Final = _counter(
    "modelyard_tokens_total", "Tokens as upstreams count them: prompt, completion.", *_MODEL, "kind"
)
SENT_RUNS: Final = _counter(
    "modelyard_worker_runs_total",
    "Runs sent to isolated workers: first, retry, hedge (a second copy of a slow one), trial (of a worker set aside).",
    *_SERVICE,
    "why",
)
LEFT_ALONE: Final = _counter(
    "modelyard_workers_set_aside_total",
    "Times that an isolated worker got no more work: silent, slow, failing.",
    *_SERVICE,
    "why",
)
CIRCUIT_OPEN: Final = Family(
    name="modelyard_worker_circuit_open",
    kind=Kind.GAUGE,
    help="Processes in which the circuit to the isolated workers is open.",
    labels=_SERVICE,
)
CACHE_LOOKUP: Final = Family(
    name="modelyard_response_cache_lookup_seconds",
    kind=Kind.HISTOGRAM,
    help="Looking for a kept answer, by outcome: hit, miss. Only of services with a response cache.",
    labels=(*_MODEL, "outcome"),
)
WAKES: Final = _counter("modelyard_model_wakes_total", "Loads of models that are held on demand.", *_MODEL)
SLEEPS: Final = _counter(
    "modelyard_model_sleeps_total", "Models let go: idle, or for the room of another.", *_MODEL, "reason"
)
TABLE_REVISION: Final = Family(
    name="modelyard_routing_table_revision",
    kind=Kind.GAUGE,
    help="Routing table in effect in each process.",
    labels=("process",),
)

FAMILIES: Final = (
    REQUEST_DURATION,
    INFERENCE_DURATION,
    QUEUE_DURATION,
    REQUESTS,
    ROWS,
    RUNS,
    FAILURES,
    RECEIVED,
    ANSWERED,
    REJECTED,
    LOST,
    IN_FLIGHT,
    MODEL_MEMORY,
    MODEL_LOAD,
    FIRST_BYTE,
    TOKENS,
    SENT_RUNS,
    LEFT_ALONE,
    CIRCUIT_OPEN,
    CACHE_LOOKUP,
    WAKES,
    SLEEPS,
    TABLE_REVISION,
)
"""All of them, in the order they are shown."""


class ServiceMeasures:
    """The account of one service."""

    __slots__ = ("_answered", "_book", "_labels", "_ok", "pressure", "received")

    def __init__(self, book: Book, project: str, service: str) -> None:
        self._book = book
        self._labels = (project, service)
        self.received = book.counter(RECEIVED, project, service)
        self._answered = book.counter(ANSWERED, project, service)
        self._ok = book.counter(REQUESTS, project, service, "ok")
        self.pressure = Pressure()

    def ok(self, requests: int) -> None:
        """Predictions were given."""
        self._answered.add(requests)
        self._ok.add(requests)

    def answered_with(self, code: str) -> None:
        """The model saw the request and failed."""
        self._answered.add()
        self._book.counter(REQUESTS, *self._labels, code).add()

    def rejected(self, code: str) -> None:
        """The model never saw the request."""
        self._book.counter(REJECTED, *self._labels, code).add()
        self._book.counter(REQUESTS, *self._labels, code).add()

    def lost(self, reason: str, code: str) -> None:
        """Accepted, and no prediction."""
        self._book.counter(LOST, *self._labels, reason).add()
        self._book.counter(REQUESTS, *self._labels, code).add()


class PoolMeasures:
    """The figures of a pool of isolated workers; what a `WorkerPool` tells."""

    __slots__ = ("_book", "_circuit", "_labels", "_sent")

    def __init__(self, book: Book, *labels: str) -> None:
        self._book = book
        self._labels = labels
        self._sent: dict[str, Counter] = {}
        self._circuit = book.gauge(CIRCUIT_OPEN, *labels)

    def sent(self, why: str) -> None:
        """A run was sent."""
        counter = self._sent.get(why)
        if counter is None:
            counter = self._sent[why] = self._book.counter(SENT_RUNS, *self._labels, why)
        counter.add()

    def left_alone(self, why: str) -> None:
        """A worker gets no work for now."""
        self._book.counter(LEFT_ALONE, *self._labels, why).add()

    def circuit(self, *, is_open: bool) -> None:
        """The circuit opened or closed."""
        self._circuit.set(1.0 if is_open else 0.0)


class BackendMeasures:
    """The figures of one backend; what a `Batcher` tells."""

    __slots__ = ("_book", "_failures", "_inference", "_labels", "_queue", "_request", "_rows", "_runs", "_service",
                 "load", "memory")  # fmt: skip

    def __init__(self, book: Book, service: ServiceMeasures, *labels: str) -> None:
        self._service = service
        self._book = book
        self._labels = labels
        self._request = book.histogram(REQUEST_DURATION, *labels)
        self._inference = book.histogram(INFERENCE_DURATION, *labels)
        self._queue = book.histogram(QUEUE_DURATION, *labels)
        self._rows = book.counter(ROWS, *labels)
        self._runs = book.counter(RUNS, *labels)
        self._failures = book.counter(FAILURES, *labels)
        self.memory = book.gauge(MODEL_MEMORY, *labels)
        self.load = book.gauge(MODEL_LOAD, *labels, book.name)

    def ran(self, calls: list[Call], rows: int, *, began: float, took: float) -> None:
        """A run ended well."""
        self._rows.add(rows)
        self._runs.add()
        requests = sum([call.count for call in calls])
        self._service.pressure.ran(requests, began, began + took)
        self._inference.observe(took, requests)
        _observe_since(self._queue, calls, began)

    def answered(self, calls: list[Call], now: float) -> None:
        """The calls of a run have their answers."""
        given = [call for call in calls if call.ok]
        if given:
            self._service.ok(sum([call.count for call in given]))
            _observe_since(self._request, given, now)

    def latency_counts(self) -> list[float]:
        """Predictions so far by the bucket of their time."""
        return self._request.counts()

    def woke(self) -> None:
        """The model was loaded because a request asked for it."""
        self._book.counter(WAKES, *self._labels).add()

    def fell_asleep(self, reason: str) -> None:
        """The model was let go: `idle` or `room`."""
        self._book.counter(SLEEPS, *self._labels, reason).add()

    def looked_up(self, took: float, *, found: bool) -> None:
        """A kept answer was looked for."""
        self._book.histogram(CACHE_LOOKUP, *self._labels, "hit" if found else "miss").observe(took)

    def began(self, started: float) -> None:
        """An answer that streams has begun."""
        self._book.histogram(FIRST_BYTE, *self._labels).observe(perf_counter() - started)

    def relayed(self, *, started: float, tokens: Mapping[str, int]) -> None:
        """An answer from elsewhere was passed on whole; `tokens` are its counts by kind."""
        took = perf_counter() - started
        self._service.ok(1)
        self._rows.add()
        self._runs.add()
        self._inference.observe(took)
        self._request.observe(took)
        for kind, count in tokens.items():
            self._book.counter(TOKENS, *self._labels, kind).add(max(count, 0))

    def failed(self, error: Exception, calls: int) -> None:
        """A run raised."""
        self._failures.add()
        _log.warning("a run failed", extra={"calls": calls, "reason": f"{type(error).__name__}: {error}"})


class PartMeasures:
    """The figures of a model that a graph asks itself: its runs; the account is that of the graph."""

    __slots__ = ("_failures", "_inference", "_queue", "_rows", "_runs")

    def __init__(self, book: Book, *labels: str) -> None:
        self._inference = book.histogram(INFERENCE_DURATION, *labels)
        self._queue = book.histogram(QUEUE_DURATION, *labels)
        self._rows = book.counter(ROWS, *labels)
        self._runs = book.counter(RUNS, *labels)
        self._failures = book.counter(FAILURES, *labels)

    def ran(self, calls: list[Call], rows: int, *, began: float, took: float) -> None:
        """A run ended well."""
        self._rows.add(rows)
        self._runs.add()
        self._inference.observe(took, len(calls))
        _observe_since(self._queue, calls, began)

    def answered(self, calls: list[Call], now: float) -> None:
        """Whose request it is, is the graph's."""

    def failed(self, error: Exception, calls: int) -> None:
        """A run raised."""
        self._failures.add()
        _log.warning("a run failed", extra={"calls": calls, "reason": f"{type(error).__name__}: {error}"})


def _observe_since(histogram: Histogram, calls: list[Call], now: float) -> None:
    """Times from the calls' starts to `now`. Calls stand in the order of their arrival, all but prioritised ones."""
    if len(calls) == 1:
        histogram.observe(now - calls[0].started, calls[0].count)
        return
    count = sum([call.count for call in calls])
    total = now * count - sum([call.started * call.count for call in calls])
    if not histogram.observe_span(now - calls[-1].started, now - calls[0].started, total=total, times=count):
        for call in calls:
            histogram.observe(now - call.started, call.count)
