"""Batches form by the turn of the loop; one caller's trouble is nobody else's."""

import asyncio
import threading
from collections.abc import Mapping
from time import perf_counter

import numpy as np

from modelyard.domain.errors.base import ModelyardError
from modelyard.inference.batching import Batcher, BatchLimits, Call, LocalRunner, Pace

LONG_S = 10.0


class Recorder:
    """What a batcher tells."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.failures = 0
        self.predictions = 0

    def ran(self, calls: list[Call], rows: int, *, began: float, took: float) -> None:
        self.rows.append(rows)

    def answered(self, calls: list[Call], now: float) -> None:
        self.predictions += sum(call.ok for call in calls)

    def failed(self, error: Exception, calls: int) -> None:
        self.failures += 1


class Asked(Call):
    """A call whose answer is a future."""

    __slots__ = ("answer", "was_dropped")

    def __init__(self, *rows: float, deadline_s: float = LONG_S, width: int = 1) -> None:
        now = perf_counter()
        array = np.array([[row] * width for row in rows], dtype="f4")
        super().__init__({"x": array}, len(rows), started=now, deadline=now + deadline_s)
        self.answer: asyncio.Future = asyncio.get_running_loop().create_future()
        self.was_dropped = False

    def succeed(self, outputs: Mapping[str, np.ndarray]) -> None:
        self.ok = True
        self.answer.set_result(outputs["y"].ravel().tolist())

    def fail(self, error: ModelyardError) -> None:
        self.answer.set_result(error.code)

    def drop(self) -> None:
        self.was_dropped = True


def double(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if (batch["x"] < 0).any():
        raise ValueError("negative")
    return {"y": batch["x"] * 2}


def batcher(run=double, *, first_run_s: float = 1e-5, **limits) -> tuple[Batcher, Recorder]:
    loop, recorder = asyncio.get_running_loop(), Recorder()
    given = {"max_rows": 64, "longest": 1000} | limits
    runner = LocalRunner(run, Pace(first_run_s), loop)
    return Batcher(runner, BatchLimits(**given), loop, observer=recorder), recorder


async def test_what_arrives_in_one_turn_runs_once() -> None:
    queue, recorder = batcher()
    calls = [Asked(float(n)) for n in range(10)]
    for call in calls:
        queue.submit(call)
    assert [await call.answer for call in calls] == [[2.0 * n] for n in range(10)]
    assert recorder.rows == [10]
    assert recorder.predictions == 10
    assert queue.pending == 0


async def test_a_batch_is_no_larger_than_allowed_and_requests_are_never_split_over_answers() -> None:
    queue, recorder = batcher(max_rows=4)
    calls = [Asked(1.0, 2.0, 3.0), Asked(4.0, 5.0), Asked(6.0), Asked(7.0)]
    for call in calls:
        queue.submit(call)
    assert [await call.answer for call in calls] == [[2, 4, 6], [8, 10], [12], [14]]
    assert recorder.rows == [3, 4]


async def test_one_bad_row_fails_its_caller_only() -> None:
    queue, recorder = batcher()
    calls = [Asked(1.0), Asked(-1.0), Asked(3.0)]
    for call in calls:
        queue.submit(call)
    assert [await call.answer for call in calls] == [[2.0], "run_failed", [6.0]]
    assert recorder.failures == 2, "the batch, then the bad one by itself"


async def test_a_model_without_proved_batches_sees_one_row_at_a_time() -> None:
    seen = []

    def run(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append(len(batch["x"]))
        return double(batch)

    queue, _ = batcher(run, max_rows=1, longest=1)
    calls = [Asked(1.0, 2.0, 3.0), Asked(4.0)]
    for call in calls:
        queue.submit(call)
    assert [await call.answer for call in calls] == [[2, 4, 6], [8]]
    assert seen == [1, 1, 1, 1]


async def test_shapes_that_differ_do_not_share_a_run() -> None:
    queue, recorder = batcher()
    narrow, wide = Asked(1.0), Asked(2.0, width=2)
    narrow.shape_key, wide.shape_key = ((1,),), ((2,),)
    queue.submit(narrow)
    queue.submit(wide)
    assert await narrow.answer == [2.0]
    assert await wide.answer == [4.0, 4.0]
    assert recorder.rows == [1, 1]


async def test_a_heavy_model_leaves_the_loop_free() -> None:
    release = threading.Event()

    def slow(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        release.wait(LONG_S)
        return double(batch)

    queue, recorder = batcher(slow, first_run_s=0.05)
    first = Asked(1.0)
    queue.submit(first)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [Asked(2.0), Asked(3.0)]
    for call in later:
        queue.submit(call)
    assert queue.may_wait
    release.set()
    assert await first.answer == [2.0]
    assert [await call.answer for call in later] == [[4.0], [6.0]]
    assert recorder.rows == [1, 2], "what waited ran together"


async def test_a_deadline_is_kept_while_the_model_is_busy() -> None:
    release = threading.Event()

    def slow(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        release.wait(LONG_S)
        return double(batch)

    queue, recorder = batcher(slow, first_run_s=0.05)
    running, waiting = Asked(1.0, deadline_s=0.05), Asked(2.0, deadline_s=0.05)
    queue.submit(running)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    queue.submit(waiting)
    assert await running.answer == "deadline_exceeded"
    assert await waiting.answer == "deadline_exceeded"
    release.set()
    fresh = Asked(3.0)
    queue.submit(fresh)
    assert await fresh.answer == [6.0]
    assert recorder.predictions == 1


async def test_a_client_that_has_gone_costs_no_run() -> None:
    queue, recorder = batcher()
    gone, stays = Asked(1.0), Asked(2.0)
    queue.submit(gone)
    queue.submit(stays)
    queue.discard(gone)
    assert await stays.answer == [4.0]
    assert gone.was_dropped
    assert recorder.rows == [1]


async def test_priority_goes_first() -> None:
    queue, _ = batcher(max_rows=1)
    order: list[str] = []
    calls = []
    for name, priority in (("none", 0), ("second", 2), ("first", 1)):
        call = Asked(1.0)
        call.priority = priority
        call.answer.add_done_callback(lambda _, name=name: order.append(name))
        queue.submit(call)
        calls.append(call.answer)
    await asyncio.gather(*calls)
    assert order == ["first", "second", "none"]


async def test_a_window_gathers_over_turns() -> None:
    queue, recorder = batcher(max_wait_s=0.02)
    calls = []
    for n in range(5):
        calls.append(Asked(float(n)))
        queue.submit(calls[-1])
        await asyncio.sleep(0)
    for call in calls:
        await call.answer
    assert recorder.rows == [5]


async def test_outputs_without_a_row_each_fall_back_to_single_runs() -> None:
    def total(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": batch["x"].sum(keepdims=True)}

    queue, _ = batcher(total)
    calls = [Asked(1.0), Asked(2.0)]
    for call in calls:
        queue.submit(call)
    assert [await call.answer for call in calls] == [[1.0], [2.0]]


def test_a_model_turns_heavy_and_light_by_measurement() -> None:
    pace = Pace(10e-6)
    assert not pace.is_heavy(1)
    assert pace.is_heavy(1000), "1000 rows in proportion are 10 ms"
    pace.record(1000, 0.1e-3)
    assert not pace.is_heavy(1000), "measured: they are not"
    pace.record(1, 20e-3)
    assert not pace.is_heavy(1), "one slow run is an accident"
    for _ in range(20):
        pace.record(1, 20e-3)
    assert pace.is_heavy(1)
    pace.record(1, 0.7e-3)
    assert pace.is_heavy(1)
    for _ in range(40):
        pace.record(1, 0.1e-3)
    assert not pace.is_heavy(1)


class Several(Asked):
    """A call that stands for a request a row."""

    __slots__ = ("count", "parts")

    def __init__(self, *rows: float) -> None:
        super().__init__(*rows)
        self.count = len(rows)
        self.parts: list[Asked] = []

    def apart(self) -> list[Call]:
        self.parts = [Asked(row) for row in self.inputs["x"][:, 0].tolist()]
        return self.parts


async def test_a_failed_call_for_several_requests_is_run_again_for_each() -> None:
    queue, recorder = batcher()
    several, alone = Several(1.0, -2.0, 3.0), Asked(4.0)
    queue.submit(alone)
    queue.submit_turn([several])
    assert await alone.answer == [8.0]
    assert [await part.answer for part in several.parts] == [[2.0], "run_failed", [6.0]]
    assert not several.settled
    assert recorder.predictions == 3
    assert queue.pending == 0


async def test_what_came_in_a_turn_runs_when_it_is_over() -> None:
    queue, recorder = batcher()
    before, several = Asked(1.0), Several(2.0, 3.0)
    queue.submit(before)
    queue.submit_turn([several])
    assert several.answer.result() == [4.0, 6.0]
    assert before.answer.result() == [2.0]
    assert recorder.rows == [3]


async def test_a_turn_waits_for_a_window_that_is_open() -> None:
    queue, recorder = batcher(max_wait_s=0.02)
    several, later = Several(2.0, 3.0), Asked(1.0)
    queue.submit_turn([several])
    assert not several.settled
    queue.submit(later)
    assert await later.answer == [2.0]
    assert recorder.rows == [3]
