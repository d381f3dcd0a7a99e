"""The local orchestrator keeps the promises of its port, against the real supervisor and its real socket."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.domain.errors.platform import Unavailable
from modelyard.foundation.supervision import ChildSpec, Supervisor
from modelyard.integrations.orchestrators.local import LocalOrchestrator
from modelyard.ports.orchestrator import ReplicaSpec
from modelyard.processes.all_in_one.orders import Orders
from modelyard.testing.conformance.orchestrator import OrchestratorConformance


class RunningSupervisor:
    """A supervisor with its order socket, on a loop in a thread of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.socket = place / "s.sock"
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self.loop).result(30)

    async def _open(self) -> None:
        self.supervisor = Supervisor(on_event=lambda child, text: None)
        self.orders = Orders(self.supervisor, make_worker=self._worker)
        await self.orders.open(self.socket)

    def _worker(self, replica: ReplicaSpec) -> ChildSpec:
        config = self.place / f"{replica.id}.json"
        config.write_text(json.dumps({}))
        return ChildSpec(
            name=f"worker {replica.id}",
            module="modelyard.testing.programs.sleeper",
            arguments=("--config", str(config)),
            facts={"replica_id": replica.id, "address": str(self.place / f"{replica.id}.sock")},
        )

    def close(self) -> None:
        async def end() -> None:
            await self.orders.close()
            await self.supervisor.stop_all([child.spec.name for child in self.supervisor.children], grace_s=5)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(60)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)
        self.loop.close()


class TestLocal(OrchestratorConformance):
    @pytest.fixture
    def running(self, tmp_path: Path) -> Iterator[RunningSupervisor]:
        running = RunningSupervisor(tmp_path)
        yield running
        running.close()

    @pytest.fixture
    def orchestrator(self, running: RunningSupervisor) -> LocalOrchestrator:
        return LocalOrchestrator(running.socket)

    @pytest.fixture
    def package(self, tmp_path: Path) -> str:
        return str(tmp_path)

    @pytest.fixture
    def crash(self, running: RunningSupervisor) -> Callable[[str], None]:
        def kill(replica_id: str) -> None:
            child = running.supervisor.get(f"worker {replica_id}")
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)

        return kill

    def test_without_a_supervisor_it_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match="does not answer") as caught:
            LocalOrchestrator(tmp_path / "nobody.sock").replicas()
        assert "modelyard up" in caught.value.hint
