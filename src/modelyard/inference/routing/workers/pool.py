"""The pool: which worker gets a run, what becomes of a run that does not come back, and when a worker is left alone.

Least loaded first, of those the one that was asked longest ago. A worker that fell silent, is stuck in a run, or is set
aside gets nothing new; what it holds is given to another as well, and the first answer counts. A run whose worker died
goes to another at once; a second death fails it as poison, for the diary of the worker proves that it was under way.
"""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from modelyard.domain.errors.inference import WorkersUnavailable
from modelyard.domain.errors.platform import NotSupported
from modelyard.domain.routing import Resilience
from modelyard.inference.batching import Done, Terms
from modelyard.inference.routing.frames import Failure, Hello, Kind, pack_tensors, unpack_tensors
from modelyard.inference.routing.workers.connection import DEPTH, Connection, Standing
from modelyard.inference.routing.workers.flow import Flow
from modelyard.inference.routing.workers.health import (
    Breaker,
    HedgeBudget,
    RetryBudget,
    Typical,
    is_lone_failure,
    may_set_aside,
    why_outlier,
)
from modelyard.inference.routing.workers.job import Job
from modelyard.inference.routing.workers.refusals import (
    WorkerDied,
    WorkerFailed,
    cannot_now,
    circuit_open,
    cut,
    lost,
    model_failed,
    poison,
    too_late,
)

Array = np.ndarray[Any, Any]
PROBE_EVERY_S: Final = 1.0
SILENT_AFTER_S: Final = 2.5
DEATHS: Final = 2
_TICK_S: Final = 0.25
_STUCK_AFTER_S: Final = 1.0
_STUCK_TAILS: Final = 10.0
_BEHIND_S: Final = 0.25
_BREAKER_PROBE_S: Final = 1.0
_FIRST_ASIDE_S: Final = 1.0
_LONGEST_ASIDE_S: Final = 30.0
_SMALLEST_SLOW_S: Final = 0.005
_SUSPICION_S: Final = 5.0
_POISON_KEPT_S: Final = 60.0
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5
_log = logging.getLogger(__name__)


class PoolObserver(Protocol):
    """Is told what the pool does, for the figures."""

    def sent(self, why: str) -> None:
        """A run was sent: `first`, `retry`, `hedge` or `trial`."""

    def left_alone(self, why: str) -> None:
        """A worker gets no work for now: `silent`, `slow` or `failing`."""

    def circuit(self, *, is_open: bool) -> None:
        """The circuit opened or closed."""


class WorkerPool:
    """A `Runner` over isolated workers. `on_change` is called when what they can take has changed."""

    takes_terms = True

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        digest: str,
        *,
        on_change: Callable[[], None],
        resilience: Resilience,
        observer: PoolObserver,
    ) -> None:
        self._loop = loop
        self._digest = digest
        self._on_change = on_change
        self._observer = observer
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._live: list[Connection] = []
        self._parked: deque[Job] = deque()
        self._open: dict[int, Job] = {}
        self._numbers = 0
        self._watch: asyncio.Task[None] | None = None
        self._typical = Typical()
        self._suspect_until = 0.0
        self._poisons: dict[bytes, float] = {}
        self.resilience = resilience
        self._budget = RetryBudget(resilience.retry_gain)
        self._hedges = HedgeBudget(resilience.hedge_share)
        self._breaker = Breaker(resilience.breaker_failures)

    @property
    def capacity(self) -> int:
        """Two runs a worker that can take some: one in hand and one on the way."""
        now = perf_counter()
        return sum(DEPTH if self._takes_work(each, now) else 0 for each in self._live) + len(self._held_elsewhere(now))

    @property
    def hellos(self) -> Sequence[Hello]:
        """What the live workers said of themselves."""
        return [connection.hello for connection in self._live if connection.hello is not None]

    def adjust(self, resilience: Resilience) -> None:
        """Go on with other rules."""
        if resilience != self.resilience:
            self.resilience = resilience
            self._budget = RetryBudget(resilience.retry_gain)
            self._hedges = HedgeBudget(resilience.hedge_share)
            self._breaker = Breaker(resilience.breaker_failures)

    def follow(self, addresses: Sequence[str]) -> None:
        """Hold a connection to each of `addresses`, and to no other."""
        for address in [known for known in self._keepers if known not in addresses]:
            self._keepers.pop(address).cancel()
        for address in addresses:
            if address not in self._keepers:
                self._keepers[address] = self._task(self._keep(address), f"worker {address}")
        if self._watch is None:
            self._watch = self._task(self._look_after(), "worker health")

    def start(self, batch: dict[str, Array], rows: int, done: Done, terms: Terms | None = None) -> None:
        """Send `batch` to the worker with the least in hand; without one, keep it for the next that is there."""
        self._numbers += 1
        job = Job(self._numbers, batch, rows, done)
        if terms is not None:
            job.bind(deadline=terms.deadline, is_wanted=terms.is_wanted, calls=terms.calls)
            job.suspected = terms.alone and perf_counter() < self._suspect_until
        self._open[job.number] = job
        if self._poisons and self._is_known_poison(job):
            self._settle(job, None, poison())
            return
        self._assign(job, "first")

    @property
    def streaming(self) -> int:
        """Streams in hand."""
        return sum(len(connection.flows) for connection in self._live)

    def stream(self, request: dict[str, Array], *, left_s: float) -> Flow:
        """Ask for an answer in parts; its worker does nothing else meanwhile.

        Raises:
            NotSupported: the model gives one answer only.
            WorkersUnavailable: every worker is busy with a stream, or none is there.
        """
        if self.hellos and not any(hello.streams for hello in self.hellos):
            raise NotSupported("this model gives one answer, not a stream of them", hint="POST …/generate or …/infer")
        free = [each for each in self._live if each.standing is Standing.WELL and not each.flows]
        if not free:
            raise WorkersUnavailable(
                "every worker of this model is busy with a stream",
                hint="try again in a moment, or ask for more workers",
            )
        chosen = min(free, key=lambda each: len(each.jobs))
        self._numbers += 1
        flow = Flow(self._numbers, chosen)
        chosen.stream(flow, pack_tensors(request), left_s=left_s)
        return flow

    def freed(self, connection: Connection) -> None:
        """A stream is over."""
        connection.turn_at = perf_counter()
        self._changed()

    def close(self) -> None:
        """Let go of all connections."""
        for task in self._keepers.values():
            task.cancel()
        self._keepers.clear()
        if self._watch is not None:
            self._watch.cancel()
        for connection in list(self._live):
            connection.close()

    def arrived(self, connection: Connection) -> None:
        """A worker said hello."""
        assert connection.hello is not None
        if connection.hello.digest != self._digest:
            _log.error("a worker holds another model than the table names", extra={"address": connection.address})
            connection.close()
            return
        self._live.append(connection)
        self._changed()

    def departed(self, connection: Connection) -> None:
        """A connection ended; what the worker had in hand goes to another."""
        if connection in self._live:
            self._live.remove(connection)
        for flow in connection.flows.values():
            flow.end(cut())
        connection.flows.clear()
        culprit = connection.culprit() if connection.jobs else None
        jobs = list(connection.jobs.values())
        connection.jobs.clear()
        for job in jobs:
            job.holders.remove(connection)
            if job is culprit:
                job.deaths += 1
            if not job.settled and not job.holders:
                self._after_death(job, begun=job is culprit)
        self._changed()

    def heard(self, connection: Connection) -> None:
        """A silent worker speaks again. What it still holds may have been answered by others meanwhile."""
        connection.standing = Standing.WELL
        connection.turn_at = perf_counter()  # how long it was silent says nothing of how fast it runs
        connection.record = type(connection.record)()
        _log.info("a worker is heard again", extra={"address": connection.address})
        self._loop.call_soon(self._changed)

    def answered(self, connection: Connection, job: Job, kind: Kind, payload: bytes) -> None:
        """A worker answered; only the first answer to a run counts."""
        job.holders.remove(connection)
        now = perf_counter()
        if kind is Kind.DROPPED:
            connection.turn_at = now
            if not job.settled and not job.holders:
                self._settle(job, None, too_late())
            self._next_parked()
            return
        failure = msgspec.msgpack.decode(payload, type=Failure) if kind is Kind.FAILURE else None
        self._note(connection, job, now - connection.turn_at, failed=failure is not None)
        connection.turn_at = now
        if not job.settled:
            if failure is None:
                self._budget.succeeded()
                if self._breaker.succeeded():
                    self._circuit()
                self._settle(job, unpack_tensors(payload), None)
            else:
                self._after_failure(connection, job, failure)
        self._next_parked()

    # what becomes of a run

    def _assign(self, job: Job, why: str) -> None:
        now = perf_counter()
        if not job.is_wanted(now):
            self._settle(job, None, too_late())
            return
        choices = [each for each in self._live if self._may_take(each, job, now)]
        if self._breaker.is_open:
            choices = [each for each in choices if not each.jobs and now - each.tried_at >= _BREAKER_PROBE_S]
            if not choices and not job.holders and self._live:
                self._settle(job, None, circuit_open())
                return
        if not choices:
            if not job.holders:
                self._parked.append(job)
            return
        chosen = min(choices, key=lambda each: (each.standing is Standing.ASIDE, len(each.jobs), each.tried_at))
        chosen.tried_at = now
        self._send(chosen, job, why, now)
        if why == "first":
            self._hedge_later(job)
            self._try_one_aside(job, now)

    def _send(self, connection: Connection, job: Job, why: str, now: float) -> None:
        self._observer.sent(why)
        self._hedges.ran()
        connection.send(job, now)

    def _settle(self, job: Job, outputs: dict[str, Array] | None, error: Exception | None) -> None:
        self._open.pop(job.number, None)
        for holder in job.holders:
            holder.drop(job)
        job.settle(outputs, error)

    def _after_death(self, job: Job, *, begun: bool) -> None:
        if begun and not self.resilience.idempotent:
            self._settle(job, None, lost())
        elif job.deaths and job.calls > 1:
            self._suspect_until = perf_counter() + _SUSPICION_S
            self._settle(job, None, WorkerDied("each call of the batch is tried by itself"))
        elif job.deaths >= DEATHS or (job.deaths and job.suspected):
            _log.error("a request ended the workers that ran it", extra={"deaths": job.deaths})
            self._poisons[_digest(job)] = perf_counter() + _POISON_KEPT_S
            self._settle(job, None, poison())
        else:
            self._assign(job, "retry")

    def _is_known_poison(self, job: Job) -> bool:
        """Whether the very same request ended its workers lately: a client that tries again costs no worker."""
        now = perf_counter()
        self._poisons = {digest: until for digest, until in self._poisons.items() if until > now}
        return _digest(job) in self._poisons

    def _after_failure(self, connection: Connection, job: Job, failure: Failure) -> None:
        self._budget.failed()
        if job.holders:
            return  # another worker is at it still
        others = [each for each in self._live if each is not connection]
        if failure.transient and self._breaker.failed():
            self._circuit()
        lone = not failure.bound and is_lone_failure([each.record for each in others])
        elsewhere = failure.transient or lone
        if elsewhere and others and self._may_try_again(job):
            self._assign(job, "retry")
        elif failure.transient:
            self._settle(job, None, cannot_now(failure))
        else:
            self._settle(job, None, model_failed(failure) if job.calls == 1 else WorkerFailed(failure.text))

    def _may_try_again(self, job: Job) -> bool:
        rules = self.resilience
        in_bounds = job.tries <= rules.retries and self._budget.allows
        return rules.idempotent and in_bounds and job.is_wanted(perf_counter())

    def _copy(self, job: Job) -> bool:
        """Give the run to one more worker; whether there was one."""
        tries = job.tries
        self._assign(job, "retry")
        return job.tries > tries

    def _hedge_later(self, job: Job) -> None:
        after = self._typical.tail_s(job.rows) if self.resilience.hedge and self.resilience.idempotent else None
        if after is not None:
            self._loop.call_later(after, self._hedge, job)

    def _hedge(self, job: Job) -> None:
        now = perf_counter()
        free = any(self._may_take(each, job, now) for each in self._live)
        if not job.settled and job.holders and free and self._hedges.take():
            self._assign(job, "hedge")

    def _try_one_aside(self, job: Job, now: float) -> None:
        """Let a worker that is set aside show, with a copy of a run that a sound one has, whether it is well again."""
        if not self.resilience.idempotent or job.settled:
            return
        for each in self._live:
            if each.standing is Standing.ASIDE and not each.jobs and now >= each.trial_at:
                each.trial_at = now + each.trial_pause_s
                self._send(each, job, "trial", now)
                return

    def _next_parked(self) -> None:
        now = perf_counter()
        while self._parked and any(self._may_take(each, self._parked[0], now) for each in self._live):
            before = len(self._parked)
            job = self._parked.popleft()
            self._assign(job, "retry" if job.tries else "first")
            if len(self._parked) >= before:
                return

    # how the workers stand

    def _takes_work(self, connection: Connection, now: float) -> bool:
        if connection.standing is Standing.SILENT or connection.flows or self._is_stuck(connection, now):
            return False
        return connection.standing is Standing.WELL or not self._any_well(now)

    def _any_well(self, now: float) -> bool:
        """Whether any gives answers. One that is overdue proves nothing: those set aside are then better than it."""
        return any(each.standing is Standing.WELL and not self._is_overdue(each, now, _BEHIND_S) for each in self._live)

    def _is_stuck(self, connection: Connection, now: float) -> bool:
        return self._is_overdue(connection, now, _STUCK_AFTER_S)

    def _is_overdue(self, connection: Connection, now: float, least_s: float) -> bool:
        """Whether the run in its hands takes far longer than such runs do, and at least so long."""
        front = connection.front()
        if front is None or connection.flows or now - connection.turn_at < least_s:
            return False
        return now - connection.turn_at > _STUCK_TAILS * (self._typical.tail_s(front.rows) or 0.0)

    def _may_take(self, connection: Connection, job: Job, now: float) -> bool:
        if connection in job.holders or connection.flows or connection.standing is Standing.SILENT:
            return False
        if connection.standing is Standing.ASIDE and self._any_well(now):
            return False
        if not connection.jobs:
            return True
        if job.deaths or len(connection.jobs) >= DEPTH or now - connection.turn_at > _BEHIND_S:
            return False
        front = connection.front()
        return front is None or not front.deaths

    def _held_elsewhere(self, now: float) -> set[int]:
        """Runs in the hands of workers that take no more: they must not count against what the others can take."""
        idle = [each for each in self._live if not self._takes_work(each, now)]
        return {number for each in idle for number, job in each.jobs.items() if not job.settled}

    def _note(self, connection: Connection, job: Job, took: float, *, failed: bool) -> None:
        ratio = self._typical.ratio(job.rows, took) if took >= _SMALLEST_SLOW_S else None
        if not failed:
            self._typical.record(job.rows, took)
        connection.record.ran(failed=failed, ratio=1.0 if ratio is None and not failed else ratio)
        peers = [each.record for each in self._live if each is not connection and each.standing is Standing.WELL]
        if connection.standing is Standing.ASIDE:
            self._judge_trial(connection, failed=failed, ratio=ratio)
        elif self.resilience.eject and connection.standing is Standing.WELL:
            why = why_outlier(connection.record, peers, slow_factor=self.resilience.slow_factor)
            aside = sum(each.standing is not Standing.WELL for each in self._live)
            if why is not None and may_set_aside(aside, len(self._live)):
                connection.standing = Standing.ASIDE
                connection.trial_pause_s = _FIRST_ASIDE_S
                connection.trial_at = perf_counter() + _FIRST_ASIDE_S
                self._observer.left_alone(why)
                _log.warning("a worker is set aside", extra={"address": connection.address, "why": why})

    def _judge_trial(self, connection: Connection, *, failed: bool, ratio: float | None) -> None:
        if failed or (ratio is not None and ratio > self.resilience.slow_factor):
            connection.trial_pause_s = min(_LONGEST_ASIDE_S, 2 * connection.trial_pause_s)
            connection.trial_at = perf_counter() + connection.trial_pause_s
            return
        connection.standing = Standing.WELL
        connection.record = type(connection.record)()
        _log.info("a worker is well again", extra={"address": connection.address})
        self._loop.call_soon(self._changed)

    def _circuit(self) -> None:
        self._observer.circuit(is_open=self._breaker.is_open)
        _log.warning("the circuit to the workers %s", "opened" if self._breaker.is_open else "closed")
        if self._breaker.is_open:
            now = perf_counter()
            for each in self._live:
                each.tried_at = now

    def _changed(self) -> None:
        self._next_parked()
        self._on_change()

    # what happens by itself

    async def _look_after(self) -> None:
        timeout = self.resilience.try_timeout_ms
        while True:
            await asyncio.sleep(_TICK_S if timeout is None else max(0.02, min(_TICK_S, timeout / 4000)))
            now = perf_counter()
            for connection in list(self._live):
                self._probe(connection, now)
                self._rescue(connection, now)
            for job in [job for job in self._open.values() if not job.is_wanted(now)]:
                self._settle(job, None, too_late())
            self._parked = deque(job for job in self._parked if not job.settled)
            self._next_parked()

    def _probe(self, connection: Connection, now: float) -> None:
        if now - connection.pinged_at >= PROBE_EVERY_S:
            connection.ping(now)
        if now - connection.heard_at > SILENT_AFTER_S and connection.standing is not Standing.SILENT:
            connection.standing = Standing.SILENT
            self._observer.left_alone("silent")
            _log.warning("a worker is silent", extra={"address": connection.address})

    def _rescue(self, connection: Connection, now: float) -> None:
        """Give what a worker does not answer to another as well."""
        limit = self.resilience.try_timeout_ms
        front = connection.front()
        late = limit is not None and front is not None and now - connection.turn_at > limit / 1000
        silent = connection.standing is Standing.SILENT
        if not (silent or late or self._is_stuck(connection, now)):
            return
        for job in list(connection.jobs.values()):
            waits_only = job is not front and not silent
            if job.settled or len(job.holders) > 1:
                continue
            if waits_only and self.resilience.idempotent:
                self._copy(job)
            elif (silent or late) and self._may_try_again(job) and self._copy(job):
                self._budget.failed()

    async def _keep(self, address: str) -> None:
        """Connect, wait for the end, connect again."""
        pause = _FIRST_PAUSE_S
        connection: Connection | None = None
        try:
            while True:
                with suppress(OSError):
                    _, connection = await self._loop.create_unix_connection(lambda: Connection(self, address), address)
                    if not connection.is_own():
                        _log.error("a worker's socket is held by another user", extra={"address": address})
                        connection.close()
                    await connection.lost.wait()
                    pause = _FIRST_PAUSE_S
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        finally:
            if connection is not None:
                connection.close()

    def _task(self, work: Coroutine[None, None, None], name: str) -> "asyncio.Task[None]":
        task = self._loop.create_task(work, name=name)
        task.add_done_callback(_log_end)
        return task


def _log_end(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("a task ended", extra={"task": task.get_name()}, exc_info=task.exception())


def _digest(job: Job) -> bytes:
    return hashlib.blake2b(job.payload, digest_size=16).digest()
