"""Tick batching: requests that arrive in one turn of the event loop share one run of the model.

A request is appended, and the first of a turn asks the loop to flush when the turn is over. So nothing waits at low
load, and under load batches form by themselves while the model runs. There is no future, task, lock or timer per
request. One timer per batcher exists while a run is under way elsewhere: it settles what passes its deadline meanwhile.

A batch that fails is run again one call at a time, so that one caller's bad row fails nobody else.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Protocol

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import DeadlineExceeded, Overloaded, RunFailed
from modelyard.domain.errors.platform import Unavailable
from modelyard.inference.batching.call import Call
from modelyard.inference.batching.gather import Array, gather, is_scatterable, join
from modelyard.inference.batching.runner import Runner, Terms

_LAST: Final = 1 << 62
_NEW_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How requests share runs.

    Requests are gathered up to `max_rows` rows; one request alone may run with up to `longest` rows at once, and is cut
    into several runs beyond. `longest` 0 says that the model has no batch axis: each request runs whole, by itself.
    """

    max_rows: int
    longest: int
    max_wait_s: float = 0.0


class Observer(Protocol):
    """Is told once a batch what happened."""

    def ran(self, calls: list[Call], rows: int, *, began: float, took: float) -> None:
        """A run ended well. `began` is of `time.perf_counter`."""

    def answered(self, calls: list[Call], now: float) -> None:
        """The calls of a run have their answers: `ok` tells which are predictions."""

    def failed(self, error: Exception, calls: int) -> None:
        """A run of that many calls raised."""


class Batcher:
    """The queue in front of one model. All methods belong to the event loop."""

    def __init__(
        self, runner: Runner, limits: BatchLimits, loop: asyncio.AbstractEventLoop, *, observer: Observer
    ) -> None:
        self.limits = limits
        self._runner = runner
        self._loop = loop
        self._observer = observer
        self._waiting: deque[Call] = deque()
        self._running: dict[int, list[Call]] = {}
        self._runs = 0
        self._usual_s = 0.0
        self._flush_asked = False
        self._plain = True
        self._prioritised = False
        self._wait_timer: asyncio.TimerHandle | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None

    @property
    def pending(self) -> int:
        """Calls that wait or run."""
        return len(self._waiting) + sum(map(len, self._running.values()))

    @property
    def may_wait(self) -> bool:
        """Whether a new call may have to wait longer than this turn, so that its client can go meanwhile."""
        return bool(self._running) or self.limits.max_wait_s > 0 or self._runner.capacity == 0

    def submit(self, call: Call) -> None:
        """Take `call`; it is answered, failed or dropped, exactly once."""
        self._waiting.append(call)
        if call.priority:
            self._prioritised = True
        if call.shape_key is not None:
            self._plain = False
        if self._flush_asked:
            return
        if self.limits.max_wait_s and not self._is_full():
            if self._wait_timer is None:
                wait = min(self.limits.max_wait_s, max(0.0, (call.deadline - perf_counter()) / 2))
                self._wait_timer = self._loop.call_later(wait, self._flush)
            return
        self._flush_asked = True
        self._loop.call_soon(self._flush)

    def submit_turn(self, calls: Sequence[Call]) -> None:
        """Take what came in one turn, when that turn is over: without a window to wait for, it runs at once."""
        self._waiting.extend(calls)
        if self.limits.max_wait_s and not self._is_full():
            if self._wait_timer is None and not self._flush_asked:
                self._wait_timer = self._loop.call_later(self.limits.max_wait_s, self._flush)
        else:
            self._flush()

    def discard(self, call: Call) -> None:
        """Drop a call whose client has gone. Its run, if under way, is not stopped."""
        if not call.settled:
            call.settled = True
            if call in self._waiting:
                self._waiting.remove(call)
            call.drop()

    def instrument(self, runner: Runner, observer: Observer) -> None:
        """Another runner of the same model, and another observer, from the next run on."""
        self._runner, self._observer = runner, observer

    def wake(self) -> None:
        """Look again: the runner's capacity has grown."""
        if self._waiting and not self._flush_asked:
            self._flush_asked = True
            self._loop.call_soon(self._flush)

    def refuse_all(self, error: ModelyardError) -> None:
        """Fail everything that waits."""
        while self._waiting:
            _settle(self._waiting.popleft(), error)

    def _is_full(self) -> bool:
        return sum(call.rows for call in self._waiting) >= self.limits.max_rows

    def _flush(self) -> None:
        self._flush_asked = False
        if self._wait_timer is not None:
            self._wait_timer.cancel()
            self._wait_timer = None
            self._plain = False
        if self._prioritised:
            self._waiting = deque(sorted(self._waiting, key=lambda call: call.priority or _LAST))
            self._prioritised = False
        while self._waiting and len(self._running) < self._runner.capacity:
            calls = self._take_all() or self._take(perf_counter())
            if calls:
                self._start(calls)
        self._plain = not self._waiting and not self._running
        if (self._running or self._waiting) and self._deadline_timer is None:
            self._arm()

    def _take_all(self) -> list[Call] | None:
        """All that waits, when it came in this turn, is alike, and fits one run: the usual case, at its price."""
        if not self._plain:
            return None
        calls = list(self._waiting)
        if len(calls) > 1 and sum([call.rows for call in calls]) > self.limits.max_rows:
            return None
        self._waiting.clear()
        return calls

    def _take(self, now: float) -> list[Call]:
        """The next calls that fit one run; what has expired is settled on the way."""
        waiting, calls, rows = self._waiting, list[Call](), 0
        limit = self.limits.max_rows
        while waiting:
            call = waiting[0]
            if call.deadline <= now:
                _settle(waiting.popleft(), _expired())
            elif not call.is_wanted():
                waiting.popleft()
            elif (
                call.deadline <= now + self._usual_s and len(waiting) > 1
            ):  # the last is tried: what is known may be old
                _settle(waiting.popleft(), _hopeless())
            elif calls and (
                rows + call.rows > limit or call.alone or calls[0].alone or call.shape_key != calls[0].shape_key
            ):
                break
            else:
                calls.append(waiting.popleft())
                rows += call.rows
        return calls

    def _start(self, calls: list[Call]) -> None:
        self._runs += 1
        number = self._runs
        self._running[number] = calls
        if 0 < self.limits.longest < calls[0].rows and len(calls) == 1:
            _Pieces(self, number, calls[0]).next()
            return
        try:
            batch = gather(calls)
        except ValueError as error:  # shapes that cannot be joined: each by itself then
            self.finished(number, None, error, 0.0)
            return
        rows = sum([call.rows for call in calls]) if len(calls) > 1 else calls[0].rows
        began = perf_counter()
        self._runner.start(
            batch,
            rows,
            lambda outputs, error, took: self.finished(number, outputs, error, took, began=began),
            _terms(calls) if self._runner.takes_terms else None,
        )

    def run_piece(self, piece: dict[str, Array], rows: int, then: "_Pieces") -> None:
        """Run a part of one call."""
        self._runner.start(piece, rows, then.took, _terms([then.call]) if self._runner.takes_terms else None)

    def finished(
        self,
        number: int,
        outputs: dict[str, Array] | None,
        error: Exception | None,
        took: float,
        *,
        began: float = 0.0,
    ) -> None:
        """Settle the calls of a run, or line them up again one by one."""
        calls = self._running.pop(number)
        if outputs is not None:
            rows = sum([call.rows for call in calls]) if len(calls) > 1 else calls[0].rows
            if len(calls) == 1 or is_scatterable(outputs, rows):
                self._usual_s += _NEW_SHARE * (took - self._usual_s)
                self._observer.ran(calls, rows, began=began, took=took)
                _scatter(calls, outputs)
                self._observer.answered(calls, perf_counter())
            else:
                error = ValueError("the model's outputs do not have one entry a row")
        if error is not None:
            self._rerun(calls, error)
        if self._waiting and not self._flush_asked:
            self._flush_asked = True
            self._loop.call_soon(self._flush)
        if self._deadline_timer is not None and not self._waiting and not self._running:
            self._deadline_timer.cancel()
            self._deadline_timer = None

    def _rerun(self, calls: list[Call], error: Exception) -> None:
        if isinstance(error, (DeadlineExceeded, Unavailable)):  # no fault of any of them: nothing is to be found out
            for call in calls:
                _settle(call, error)
            return
        self._observer.failed(error, sum([call.count for call in calls]))
        if len(calls) == 1 and calls[0].count == 1:
            _settle(calls[0], error if isinstance(error, ModelyardError) else _run_failed(error))
            return
        singles = [single for call in calls if not call.settled for single in call.apart()]
        for call in reversed(singles):
            if not call.settled:
                call.alone = True
                self._plain = False
                self._waiting.appendleft(call)

    def _arm(self) -> None:
        """Wake at the earliest deadline of all that waits or runs elsewhere."""
        earliest = min((call.deadline for call in self._all() if not call.settled), default=None)
        if earliest is not None:
            self._deadline_timer = self._loop.call_later(max(0.0, earliest - perf_counter()), self._expire)

    def _expire(self) -> None:
        self._deadline_timer = None
        now = perf_counter()
        late = [call for call in self._all() if call.deadline <= now and not call.settled]
        for call in late:
            _settle(call, _expired())
        if late:
            self._waiting = deque(call for call in self._waiting if not call.settled)
        self._arm()

    def _all(self) -> Iterable[Call]:
        yield from self._waiting
        for calls in self._running.values():
            yield from calls


class _Pieces:
    """A call with more rows than one run may have: run after run, then one answer."""

    def __init__(self, batcher: Batcher, number: int, call: Call) -> None:
        self._batcher = batcher
        self._number = number
        self.call = call
        self._step = batcher.limits.longest
        self._done: list[dict[str, Array]] = []
        self._row = 0
        self._seconds = 0.0
        self._began = perf_counter()

    def next(self) -> None:
        """Run the next part."""
        end = min(self._row + self._step, self.call.rows)
        piece = {name: array[self._row : end] for name, array in self.call.inputs.items()}
        rows, self._row = end - self._row, end
        self._batcher.run_piece(piece, rows, self)

    def took(self, outputs: dict[str, Array] | None, error: Exception | None, seconds: float) -> None:
        """Keep a part's outputs; go on in a later turn of the loop, or finish."""
        self._seconds += seconds
        if outputs is None:
            self._batcher.finished(self._number, None, error, self._seconds)
            return
        self._done.append(outputs)
        if self._row < self.call.rows and not self.call.settled:
            asyncio.get_running_loop().call_soon(self.next)
        else:
            self._batcher.finished(self._number, join(self._done), None, self._seconds, began=self._began)


def _scatter(calls: list[Call], outputs: dict[str, Array]) -> None:
    if len(calls) == 1:
        call = calls[0]
        if not call.settled:
            call.settled = True
            call.succeed(outputs)
        return
    start = 0
    items = list(outputs.items())
    for call in calls:
        end = start + call.rows
        if not call.settled:
            call.settled = True
            call.succeed({name: array[start:end] for name, array in items})
        start = end


def _settle(call: Call, error: ModelyardError) -> None:
    if not call.settled:
        call.settled = True
        call.fail(error)


def _expired() -> DeadlineExceeded:
    return DeadlineExceeded("the answer was not there by the deadline", hint="try again later, or allow more time")


def _hopeless() -> Overloaded:
    return Overloaded(
        "the answer could not have been there by the deadline", hint="try again later, or allow more time"
    )


def _run_failed(error: Exception) -> RunFailed:
    failure = RunFailed("the model failed on this input", hint="the server's log has the reason")
    failure.__cause__ = error
    return failure


def _terms(calls: list[Call]) -> Terms:
    return Terms(
        max([call.deadline for call in calls]),
        lambda: any(not call.settled for call in calls),
        sum([call.count for call in calls]),
        calls[0].alone,
    )
