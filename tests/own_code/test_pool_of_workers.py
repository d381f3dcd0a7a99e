"""The pool over real workers of own code: what is dropped, what is run again, and who is to blame for a death."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import numpy as np
import pytest
from own_code_kit import Worker, running_worker

from modelyard.domain.errors.inference import DeadlineExceeded, PoisonRequest, RunFailed, WorkersUnavailable
from modelyard.domain.routing import Resilience
from modelyard.foundation.environments import CodePolicy
from modelyard.inference.batching import Terms
from modelyard.inference.routing.workers import WorkerPool

COUNTS = """
import os
import time
import numpy as np

runs = 0

def load(path):
    return None

def predict(inputs):
    global runs
    runs += 1
    first = float(inputs["x"][0, 0])
    if first == 9:
        os._exit(3)
    if first == 8:
        raise ConnectionError("the feature store is away")
    if first == 7:
        raise MemoryError
    time.sleep(first / 10)
    return {"y": np.full((len(inputs["x"]), 1), runs, dtype="f4")}
"""
DIGEST = "sha256:" + "0" * 64
LONG_S = 60.0


class Observed:
    """What the pool told."""

    def __init__(self) -> None:
        self.sends: list[str] = []
        self.aside: list[str] = []
        self.circuits: list[bool] = []

    def sent(self, why: str) -> None:
        self.sends.append(why)

    def left_alone(self, why: str) -> None:
        self.aside.append(why)

    def circuit(self, *, is_open: bool) -> None:
        self.circuits.append(is_open)


class Asking:
    """A pool, asked by awaiting."""

    def __init__(self, *paths: Path, **rules: Any) -> None:
        self.seen = Observed()
        self.pool = WorkerPool(
            asyncio.get_running_loop(),
            DIGEST,
            on_change=lambda: None,
            resilience=Resilience(**rules),
            observer=self.seen,
        )
        self.pool.follow([str(path) for path in paths])

    async def __aenter__(self) -> Self:
        await self.until(lambda: self.pool.hellos)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.pool.close()
        await asyncio.sleep(0.05)

    async def until(self, condition: Callable[[], object], limit_s: float = LONG_S) -> None:
        async with asyncio.timeout(limit_s):
            while not condition():  # noqa: ASYNC110  (what is waited for belongs to the pool)
                await asyncio.sleep(0.02)

    def ask(
        self, first: float, *, within_s: float = LONG_S, wanted: Callable[[], bool] = lambda: True, calls: int = 1
    ) -> "asyncio.Future[float]":
        """The number of the run that answered; how many the worker had run before is in it."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def done(outputs: dict[str, Any] | None, error: Exception | None, took: float) -> None:
            if outputs is not None:
                future.set_result(float(outputs["y"][0, 0]))
            else:
                future.set_exception(error or AssertionError("nothing"))

        batch = {"x": np.array([[first, 0, 0, 0]] * calls, dtype="f4")}
        self.pool.start(batch, calls, done, Terms(perf_counter() + within_s, wanted, calls, False))
        return future


async def again(worker: Worker, place: Path) -> None:
    """Start the worker anew when it has ended, as its supervisor would."""
    await asyncio.to_thread(worker.process.wait, 30)
    with worker.log.open("ab") as output:
        worker.process = subprocess.Popen(  # noqa: ASYNC220  (a moment)
            [sys.executable, "-m", "modelyard.processes.model_worker", "--config", str(place / "worker.json")],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


async def test_what_nobody_waits_for_any_more_is_not_begun(tmp_path: Path) -> None:
    with running_worker(tmp_path, COUNTS) as worker:
        async with Asking(worker.path) as asking:
            before = await asking.ask(0)
            is_there = True
            long = asking.ask(15)
            cancelled = asking.ask(0, wanted=lambda: is_there)
            is_there = False
            with pytest.raises(DeadlineExceeded):
                await cancelled
            assert not long.done()
            assert await long == before + 1
            assert await asking.ask(0) == before + 2


async def test_a_deadline_travels_to_the_worker(tmp_path: Path) -> None:
    with running_worker(tmp_path, COUNTS) as worker:
        async with Asking(worker.path) as asking:
            before = await asking.ask(0)
            long = asking.ask(12)
            late = asking.ask(0, within_s=0.3)
            with pytest.raises(DeadlineExceeded):
                await late
            await long
            assert await asking.ask(0) == before + 2


async def test_a_killed_workers_run_waits_for_the_successor(tmp_path: Path) -> None:
    with running_worker(tmp_path, COUNTS) as worker:
        async with Asking(worker.path) as asking:
            await asking.ask(0)
            held = asking.ask(20)
            await asyncio.sleep(0.3)  # so that it has begun
            os.kill(worker.process.pid, signal.SIGKILL)
            await again(worker, tmp_path)
            assert await held == 1 + _runs_of_warm_up()
            assert asking.seen.sends.count("retry") == 1


async def test_what_must_not_be_run_twice_is_not(tmp_path: Path) -> None:
    with running_worker(tmp_path, COUNTS) as worker:
        async with Asking(worker.path, idempotent=False) as asking:
            await asking.ask(0)
            begun, waiting = asking.ask(20), asking.ask(0)
            await asyncio.sleep(0.3)  # so that the first has begun
            os.kill(worker.process.pid, signal.SIGKILL)
            await again(worker, tmp_path)
            with pytest.raises(WorkersUnavailable):
                await begun
            assert await waiting == 1 + _runs_of_warm_up()


async def test_poison_is_named_after_two_deaths_and_what_waited_behind_it_is_answered(tmp_path: Path) -> None:
    with running_worker(tmp_path, COUNTS) as worker:
        async with Asking(worker.path) as asking:
            await asking.ask(0)
            poison, innocent = asking.ask(9), asking.ask(0)
            for _ in range(2):
                await again(worker, tmp_path)
            with pytest.raises(PoisonRequest):
                await poison
            assert await innocent >= 1
            with pytest.raises(PoisonRequest):
                await asking.ask(9)
            assert await asking.ask(0) >= 2  # the same again cost no worker


async def test_a_batch_whose_worker_died_is_handed_back_to_be_tried_call_by_call(tmp_path: Path) -> None:
    with running_worker(tmp_path, COUNTS) as worker:
        async with Asking(worker.path) as asking:
            await asking.ask(0)
            with pytest.raises(Exception, match="each call of the batch"):
                await asking.ask(9, calls=3)


async def test_the_circuit_opens_refuses_at_once_and_closes_by_itself(tmp_path: Path) -> None:
    with running_worker(tmp_path, COUNTS) as worker:
        async with Asking(worker.path, breaker_failures=4) as asking:
            for _ in range(4):
                with pytest.raises(WorkersUnavailable, match="cannot answer now"):
                    await asking.ask(8)
            assert asking.seen.circuits == [True]
            sent = len(asking.seen.sends)
            with pytest.raises(WorkersUnavailable, match="one run a second"):
                await asking.ask(0)
            assert len(asking.seen.sends) == sent
            end = perf_counter() + 20
            while asking.seen.circuits == [True] and perf_counter() < end:
                await asyncio.sleep(0.1)
                await asyncio.gather(asking.ask(0), return_exceptions=True)
            assert asking.seen.circuits == [True, False]


async def test_a_run_that_met_its_bound_says_which(tmp_path: Path) -> None:
    with running_worker(tmp_path, COUNTS, policy=CodePolicy(run_limit_s=1.0)) as worker:
        async with Asking(worker.path) as asking:
            with pytest.raises(RunFailed, match="more memory"):
                await asking.ask(7)
            with pytest.raises(RunFailed, match="in the time"):
                await asking.ask(100)


async def test_a_silent_worker_gets_nothing_and_its_late_answer_is_discarded(tmp_path: Path) -> None:
    places = [tmp_path / "a", tmp_path / "b"]
    with running_worker(places[0], COUNTS) as first, running_worker(places[1], COUNTS) as second:
        async with Asking(first.path, second.path) as asking:
            await asking.until(lambda: len(asking.pool.hellos) == 2)
            os.kill(first.process.pid, signal.SIGSTOP)
            try:
                answers = await asyncio.gather(*(asking.ask(0) for _ in range(4)))
                assert len(answers) == 4
                await asking.until(lambda: asking.seen.aside == ["silent"])
                sent = len(asking.seen.sends)
                await asking.ask(0)
                assert len(asking.seen.sends) == sent + 1
            finally:
                os.kill(first.process.pid, signal.SIGCONT)
            await asking.until(lambda: asking.pool.capacity == 4)


def _runs_of_warm_up() -> int:
    return 3


async def test_the_last_worker_is_asked_though_it_was_set_aside(tmp_path: Path) -> None:
    """Its peer ends, as in an update: who waits in the queue is told that there is somebody who can answer."""
    (tmp_path / "well").mkdir()
    (tmp_path / "odd").mkdir()
    odd_code = COUNTS.replace("    runs += 1\n", "    runs += 1\n    if runs < 40:\n        raise RuntimeError\n")
    with running_worker(tmp_path / "well", COUNTS) as well, running_worker(tmp_path / "odd", odd_code) as odd:
        async with Asking(well.path, odd.path) as asking:
            await asking.until(lambda: len(asking.pool.hellos) == 2)
            async with asyncio.timeout(LONG_S):
                while not asking.seen.aside:
                    await asyncio.gather(*(asking.ask(0) for _ in range(4)), return_exceptions=True)
            assert asking.seen.aside == ["failing"]
            asking.pool.follow([str(odd.path)])
            await asking.until(lambda: len(asking.pool.hellos) == 1)
            assert asking.pool.capacity > 0


async def test_a_worker_that_was_set_aside_is_asked_when_its_peer_does_not_answer(tmp_path: Path) -> None:
    """Nobody else would answer: its peer is stopped, and not yet known to be silent."""
    places = [tmp_path / "well", tmp_path / "odd"]
    odd_code = COUNTS.replace("    runs += 1\n", "    runs += 1\n    if runs == 30:\n        time.sleep(1)\n")
    with running_worker(places[0], COUNTS) as well, running_worker(places[1], odd_code) as odd:
        async with Asking(well.path, odd.path, hedge=False) as asking:
            await asking.until(lambda: len(asking.pool.hellos) == 2)
            async with asyncio.timeout(LONG_S):
                while asking.seen.aside != ["slow"]:
                    await asyncio.gather(*(asking.ask(0) for _ in range(2)))
            assert asking.pool.capacity == 2
            os.kill(well.process.pid, signal.SIGSTOP)
            try:
                answers = [asking.ask(0) for _ in range(8)]
                await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
                assert asking.seen.aside == ["slow"], "an answer came before its peer was called silent"
                assert len(await asyncio.gather(*answers)) == 8
            finally:
                os.kill(well.process.pid, signal.SIGCONT)
            await asking.until(lambda: asking.pool.capacity == 4)
