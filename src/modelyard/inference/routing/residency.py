"""Models that are held on demand: loaded by the first request, let go when nobody asks or another needs the room.

A service that may go to zero in the listening process has an `OnDemandRunner` where others have the model's own. While
the model is not there it takes no runs, so requests wait in the batcher within their deadlines; the first one has the
model loaded, once for all that wait. A model that runs is never let go, and letting go happens between two turns of the
loop, so no request falls between.

`Residency` keeps the sum of what such models take, as measured when each was loaded, within a budget: before one is
loaded, those that were used longest ago go. What a model takes is known from its last load, and counts as nothing
before its first.
"""

import asyncio
import logging
from time import monotonic
from typing import Any, Final, Protocol

import numpy as np

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import NotReady
from modelyard.foundation.memory import return_free_memory
from modelyard.inference.batching import Done, Terms
from modelyard.inference.routing.models import HeldModel, ModelKey, ModelShelf

Array = np.ndarray[Any, Any]
_LOOK_EVERY_S: Final = 0.5
_TRIM_AFTER_S: Final = 0.2
_log = logging.getLogger(__name__)


class Sleeper(Protocol):
    """Is told when the model behind a runner comes and goes."""

    def woke(self, held: HeldModel) -> None:
        """It was loaded and runs may begin."""

    def fell_asleep(self, reason: str) -> None:
        """It was let go: `idle` or `room`."""

    def could_not_wake(self, error: ModelyardError) -> None:
        """It cannot be loaded now; who waits is to be told."""


class OnDemandRunner:
    """Runs a model while it is there, and has it loaded when a run is asked for. A `Runner`."""

    takes_terms = False

    def __init__(self, residency: "Residency", key: ModelKey, sleeper: Sleeper, *, idle_s: float) -> None:
        self.key = key
        self.idle_s = idle_s
        self.sleeper = sleeper
        self.used_at = monotonic()
        self.held: HeldModel | None = None
        self.in_flight = 0
        self.is_closed = False
        self._residency = residency

    @property
    def capacity(self) -> int:
        """One run at a time; none, and loading begins, while the model is not there."""
        if self.held is None:
            self._residency.want(self)
            return 0
        return 1

    @property
    def is_idle(self) -> bool:
        """Whether the model is there and nothing runs."""
        return self.held is not None and not self.in_flight

    def start(self, batch: dict[str, Array], rows: int, done: Done, terms: Terms | None = None) -> None:
        """Run `batch`."""
        assert self.held is not None
        self.in_flight += 1
        self.used_at = monotonic()

        def finished(outputs: dict[str, Array] | None, error: Exception | None, took: float) -> None:
            self.in_flight -= 1
            self.used_at = monotonic()
            done(outputs, error, took)

        self.held.runner.start(batch, rows, finished, terms)

    def close(self) -> None:
        """Let go of the model for good. Nothing runs any more."""
        self.is_closed = True
        self._residency.forget(self)


class Residency:
    """All models of this process that are held on demand, within `budget_bytes` if there is one.

    Belongs to the event loop.
    """

    def __init__(self, shelf: ModelShelf, *, budget_bytes: int | None = None) -> None:
        self._shelf = shelf
        self._budget = budget_bytes
        self._runners: set[OnDemandRunner] = set()
        self._footprints: dict[ModelKey, int] = {}
        self._loading: dict[OnDemandRunner, asyncio.Task[None]] = {}
        self._due: list[OnDemandRunner] = []
        self._clock: asyncio.TimerHandle | None = None
        self._trim: asyncio.TimerHandle | None = None

    def runner(
        self, key: ModelKey, sleeper: Sleeper, *, idle_s: float, held: HeldModel | None = None
    ) -> OnDemandRunner:
        """A runner for the model of `key`; `held` when it was taken from the shelf already."""
        runner = OnDemandRunner(self, key, sleeper, idle_s=idle_s)
        self._runners.add(runner)
        if held is not None:
            self._woke(runner, held)
            self._make_room(0, but=runner)
        self._look_after()
        return runner

    def bound(self, budget_bytes: int | None) -> None:
        """Another budget from now on."""
        self._budget = budget_bytes
        self._make_room(0, but=None)
        self._begin_loading()

    @property
    def resident_bytes(self) -> int:
        """What the models that are there took, each counted once."""
        keys = {runner.key for runner in self._runners if runner.held is not None}
        return sum(self._footprints[key] for key in keys)

    def want(self, runner: OnDemandRunner) -> None:
        """Have the model of `runner` loaded, once, as soon as there is room."""
        if runner in self._loading or runner in self._due or runner.held is not None or runner.is_closed:
            return
        self._due.append(runner)
        self._begin_loading()

    def forget(self, runner: OnDemandRunner) -> None:
        """The runner is closed."""
        self._runners.discard(runner)
        if runner in self._due:
            self._due.remove(runner)
        if runner.held is not None:
            runner.held = None
            self._shelf.give_back(runner.key)

    def _begin_loading(self) -> None:
        """Load what is due, one after the other: loading takes several times what the model does in the end."""
        while self._due and not self._loading:
            runner = self._due[0]
            known = self._footprints.get(runner.key)
            if not self._make_room(known or 0, but=runner):
                self._look_after()
                return
            self._due.pop(0)
            task = asyncio.get_running_loop().create_task(self._load(runner), name=f"wake {runner.key.digest}")
            self._loading[runner] = task

    async def _load(self, runner: OnDemandRunner) -> None:
        try:
            held = await self._shelf.take(runner.key)
        except Exception as error:  # noqa: BLE001  (the plugin edge: a runtime may raise anything)
            _log.warning("a model cannot be loaded on demand", extra={"digest": runner.key.digest, "why": str(error)})
            runner.sleeper.could_not_wake(_refusal(error))
        else:
            if runner.is_closed:
                self._shelf.give_back(runner.key)
            else:
                self._woke(runner, held)
                self._make_room(0, but=runner)
        finally:
            del self._loading[runner]
            self._begin_loading()
            self._look_after()

    def _woke(self, runner: OnDemandRunner, held: HeldModel) -> None:
        runner.held = held
        runner.used_at = monotonic()
        self._footprints[runner.key] = held.hosted.model.memory_bytes
        runner.sleeper.woke(held)

    def _make_room(self, need: int, *, but: OnDemandRunner | None) -> bool:
        """Let go of what was used longest ago until `need` fits; False when what is left is at work."""
        if self._budget is None:
            return True
        coming = sum(
            known
            for runner in self._loading
            if runner.held is None and (known := self._footprints.get(runner.key)) is not None
        )
        while self.resident_bytes + coming + need > self._budget:
            idle = [runner for runner in self._runners if runner.is_idle and runner is not but]
            if not idle:
                others = any(runner.held is not None for runner in self._runners if runner is not but)
                return not (others or self._loading)  # alone it may be larger than the budget
            self._let_go(min(idle, key=lambda runner: runner.used_at), "room")
        return True

    def _let_go(self, runner: OnDemandRunner, reason: str) -> None:
        runner.held = None
        self._shelf.give_back(runner.key)
        runner.sleeper.fell_asleep(reason)
        if self._trim is None:
            self._trim = asyncio.get_running_loop().call_later(_TRIM_AFTER_S, self._return_memory)

    def _return_memory(self) -> None:
        self._trim = None
        asyncio.get_running_loop().run_in_executor(None, return_free_memory)

    def _look_after(self) -> None:
        """Look again in a while, as long as there is something that may fall asleep or waits for room."""
        if self._clock is None and (self._due or any(runner.held is not None for runner in self._runners)):
            self._clock = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        self._clock = None
        now = monotonic()
        for runner in [each for each in self._runners if each.is_idle and now - each.used_at >= each.idle_s]:
            self._let_go(runner, "idle")
        self._begin_loading()
        self._look_after()


def _refusal(error: Exception) -> ModelyardError:
    detail = error.detail if isinstance(error, ModelyardError) else f"{type(error).__name__}: {error}"[:300]
    refusal = NotReady(f"the model cannot be loaded: {detail}", hint="try again; modelyard status tells more")
    refusal.__cause__ = error
    return refusal
