"""The supervisor: all children of one platform, each with a task that keeps it running."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from modelyard.domain.errors.platform import NotFound, StartRefused
from modelyard.foundation.memory import held_memory
from modelyard.foundation.supervision.child import EXIT_REFUSED, Child, ChildSpec, ChildState

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
CALM_S: Final = 5.0
"""A child that ran this long starts its pauses from the beginning again."""

Listener = Callable[[Child, str], None]
"""Is told what happened to a child, in words."""


class Supervisor:
    """Starts children and starts them again when they end. All methods belong to one event loop."""

    def __init__(self, *, on_event: Listener) -> None:
        self._children: dict[str, Child] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._on_event = on_event

    @property
    def children(self) -> list[Child]:
        """All of them, in the order of their start."""
        return list(self._children.values())

    def get(self, name: str) -> Child:
        """The child of this name, or `NotFound`."""
        child = self._children.get(name)
        if child is None:
            raise NotFound(f"no process of the name {name} is supervised here")
        return child

    def start(self, spec: ChildSpec, *, adopt: int | None = None) -> Child:
        """Begin to keep `spec` running; a second start of the same name is the same child.

        `adopt` is the id of a process that does this work already; it is started anew only when that one ends.
        """
        known = self._children.get(spec.name)
        if known is not None and known.state not in (ChildState.STOPPED, ChildState.STOPPING):
            return known
        child = Child(spec)
        if adopt is not None:
            child.adopt(adopt)
        self._children[spec.name] = child
        self._tasks[spec.name] = asyncio.get_running_loop().create_task(self._keep(child), name=spec.name)
        return child

    async def started(self, child: Child, *, timeout_s: float) -> None:
        """Return when `child` said that it is ready.

        Raises:
            StartRefused: it ended for good, or took longer than `timeout_s`; with its own last words.
        """
        waits = [asyncio.ensure_future(child.ready.wait()), asyncio.ensure_future(child.ended.wait())]
        done, pending = await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()
        if not child.ready.is_set():
            reason = child.reason or f"not ready after {timeout_s:g} s"
            raise StartRefused(f"{child.spec.name} did not start: {reason}", hint=_log_hint(child) if done else "")

    async def stop(self, name: str, *, grace_s: float) -> None:
        """Ask the child to end, make it end after `grace_s`, and forget it."""
        child = self.get(name)
        child.state = ChildState.STOPPING
        child.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(child.ended.wait(), grace_s)
        if not child.ended.is_set():
            child.signal(signal.SIGKILL)
            task = self._tasks[name]
            if child.process is None or child.process.returncode is not None:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._children.pop(name, None)
        self._tasks.pop(name, None)

    async def stop_all(self, names: list[str], *, grace_s: float) -> None:
        """Stop these children side by side."""
        await asyncio.gather(*(self.stop(name, grace_s=grace_s) for name in names if name in self._children))

    def check_memory(self) -> None:
        """End children that hold more memory than they may, with the reason. To be called about once a second."""
        for child in self._children.values():
            most = child.spec.memory_bytes
            if most is None or child.pid is None:
                continue
            held = held_memory(child.pid)
            if held > most:
                child.end_for(f"it held {held >> 20} MiB of the {most >> 20} MiB of memory that it may have")

    async def _keep(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_S
        try:
            while True:
                began = loop.time()
                if not child.ready.is_set():
                    await child.spawn()
                assert child.process is not None
                code = await child.process.wait()
                if child.state is ChildState.STOPPING:
                    break
                child.reason = child.explain(code)
                ready = child.ready.is_set()
                child.ready.clear()
                if code == EXIT_REFUSED or not child.spec.restart:
                    child.state = ChildState.REFUSED
                    self._on_event(child, f"will not be started again: {child.reason}")
                    return
                if code == 0 or (ready and loop.time() - began > CALM_S):
                    pause = FIRST_PAUSE_S  # somebody asked it to end, or it did its work for a while
                child.state = ChildState.BACKOFF
                child.restarts += 1
                self._on_event(child, f"{child.reason}; starting again in {pause:g} s")
                if await _pause(child, pause):
                    break
                pause = FIRST_PAUSE_S if code == 0 else min(pause * 2, LONGEST_PAUSE_S)
                child.state = ChildState.STARTING
        finally:
            if child.state is ChildState.STOPPING:
                child.state = ChildState.STOPPED
            child.ended.set()


async def _pause(child: Child, seconds: float) -> bool:
    """Wait; True when the child was asked to stop meanwhile."""
    end = asyncio.get_running_loop().time() + seconds
    while (left := end - asyncio.get_running_loop().time()) > 0:
        if child.state is ChildState.STOPPING:
            return True
        await asyncio.sleep(min(left, 0.1))
    return child.state is ChildState.STOPPING


def _log_hint(child: Child) -> str:
    return f"its log is {child.spec.log}" if child.spec.log is not None else ""
