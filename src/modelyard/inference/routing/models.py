"""Models held by this process, shared by the backends of one project that use the same package.

Loading happens in threads beside the event loop, a few at a time. Models of different projects are never shared, not
even when their bytes are the same.
"""

import asyncio
import gc
import logging
import os
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from modelyard.domain.contract import Isolation
from modelyard.domain.errors.inference import NotReady
from modelyard.foundation.documents import read_package
from modelyard.inference.batching import LocalRunner, Pace
from modelyard.inference.hosting import HostedModel, load_model
from modelyard.ports.runtime import LoadOptions

AT_ONCE: Final = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelKey:
    """One model in memory; `device` as the service asks for it ("auto": as the process is set).

    `memory_bytes` bounds what it may take. `threads` are for one run, at most one a core; None: as the process is set.
    """

    project: str
    package: str
    digest: str
    device: str = "auto"
    memory_bytes: int | None = None
    threads: int | None = None


@dataclass(slots=True)
class HeldModel:
    """A loaded model and what runs it."""

    hosted: HostedModel
    runner: LocalRunner
    users: int = 0


@dataclass(slots=True)
class ModelShelf:
    """Loads each model once and lets it go with its last user. Belongs to the event loop."""

    options: LoadOptions
    _held: dict[ModelKey, "asyncio.Future[HeldModel]"] = field(default_factory=dict)
    _places: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(AT_ONCE))

    async def take(self, key: ModelKey) -> HeldModel:
        """The model of `key`, loaded if it is not yet; to be given back.

        Raises:
            Exception: whatever loading raised; the next call tries again.
        """
        future = self._held.get(key)
        if future is None:
            future = self._held[key] = asyncio.get_running_loop().create_future()
            threading.Thread(target=self._load, args=(key, future), name=f"load {key.digest}", daemon=True).start()
        try:
            held = await asyncio.shield(future)
        except Exception:
            self._held.pop(key, None)
            raise
        held.users += 1
        return held

    def give_back(self, key: ModelKey) -> None:
        """One user less; the last one unloads the model."""
        future = self._held.get(key)
        if future is None or not future.done():
            return
        held = future.result()
        held.users -= 1
        if held.users <= 0:
            del self._held[key]
            held.runner.close()
            held.hosted.model.close()

    def _load(self, key: ModelKey, future: "asyncio.Future[HeldModel]") -> None:
        loop = future.get_loop()
        try:
            with self._places:
                _require_shared(Path(key.package))
                device = self.options.device if key.device == "auto" else key.device
                threads = min(key.threads, os.cpu_count() or 1) if key.threads else self.options.threads
                options = replace(self.options, device=device, threads=threads)
                hosted = load_model(Path(key.package), options=options, digest=key.digest)
                _require_small(hosted, key.memory_bytes)
        except Exception as error:  # noqa: BLE001  (the plugin edge: a runtime may raise anything)
            loop.call_soon_threadsafe(_give_up, future, error)
            return
        loop.call_soon_threadsafe(_finish, key, future, hosted)


def _require_shared(package: Path) -> None:
    """A model that needs a process of its own is never loaded into one that listens, whatever a table says."""
    if read_package(package).isolation is Isolation.PROCESS:
        raise NotReady("this model needs a worker of its own", hint="deploy it with isolation process")


def _require_small(hosted: HostedModel, most: int | None) -> None:
    """Let go of a model that takes more than its service allows."""
    taken = hosted.model.memory_bytes
    if most is not None and taken > most:
        hosted.model.close()
        raise NotReady(
            f"the model takes {taken >> 20} MiB, and resources.memory allows {most >> 20} MiB",
            hint="allow more, or deploy a smaller model",
        )


def _give_up(future: "asyncio.Future[HeldModel]", error: Exception) -> None:
    if not future.cancelled():
        future.set_exception(error)


def _finish(key: ModelKey, future: "asyncio.Future[HeldModel]", hosted: HostedModel) -> None:
    if future.cancelled():
        hosted.model.close()
        return
    gc.collect()
    gc.freeze()  # what loading left will live long: no collection has to look at it again
    runner = LocalRunner(hosted.run, Pace(hosted.run_s), future.get_loop(), name=hosted.package.name)
    future.set_result(HeldModel(hosted, runner))
    _log.info("model loaded", extra={"digest": key.digest, "load_s": round(hosted.load_s, 3)})
