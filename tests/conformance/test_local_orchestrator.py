"""The local orchestrator keeps the promises of its port, against the real supervisor and its real socket."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from keeper import RunningSupervisor

from modelyard.domain.errors.platform import Unavailable
from modelyard.integrations.orchestrators.local import LocalOrchestrator
from modelyard.testing.conformance.orchestrator import OrchestratorConformance


class TestLocal(OrchestratorConformance):
    @pytest.fixture
    def running(self, tmp_path: Path) -> Iterator[RunningSupervisor]:
        running = RunningSupervisor(tmp_path)
        yield running
        running.close()

    @pytest.fixture
    def orchestrator(self, running: RunningSupervisor) -> LocalOrchestrator:
        return LocalOrchestrator({"here": running.socket})

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
            LocalOrchestrator({"here": tmp_path / "nobody.sock"}).replicas()
        assert "modelyard up" in caught.value.hint
