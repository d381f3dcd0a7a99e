"""Several keepers on one machine: a replica ordered elsewhere moves, and a silent node takes nothing with it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from keeper import RunningSupervisor

from modelyard.integrations.orchestrators import local
from modelyard.integrations.orchestrators.local import LocalOrchestrator
from modelyard.ports.orchestrator import Replica, ReplicaSpec, ReplicaState
from modelyard.testing.conformance.orchestrator import OrchestratorConformance, eventually


@pytest.fixture
def keepers(tmp_path: Path) -> Iterator[dict[str, RunningSupervisor]]:
    running = {}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        running[name] = RunningSupervisor(tmp_path / name)
    yield running
    for each in running.values():
        each.close()


def two(keepers: dict[str, RunningSupervisor]) -> LocalOrchestrator:
    return LocalOrchestrator({name: keeper.socket for name, keeper in keepers.items()})


@pytest.fixture
def orchestrator(keepers: dict[str, RunningSupervisor]) -> LocalOrchestrator:
    return two(keepers)


def spec(node: str, index: int = 0) -> ReplicaSpec:
    return ReplicaSpec(
        id=f"default.iris.1.{index}", project="default", service="iris", revision=1, package="", node=node
    )


def only(orchestrator: LocalOrchestrator) -> Replica:
    (replica,) = orchestrator.replicas()
    return replica


def is_ready_on(orchestrator: LocalOrchestrator, node: str) -> bool:
    found = orchestrator.replicas()
    return len(found) == 1 and found[0].node == node and found[0].state is ReplicaState.READY


class TestTwoNodes(OrchestratorConformance):
    """Two nodes keep the same promises as one."""

    @pytest.fixture
    def orchestrator(self, keepers: dict[str, RunningSupervisor]) -> LocalOrchestrator:
        return two(keepers)

    @pytest.fixture
    def package(self, tmp_path: Path) -> str:
        return str(tmp_path)

    @pytest.fixture
    def crash(self, keepers: dict[str, RunningSupervisor]):
        def kill(replica_id: str) -> None:
            for keeper in keepers.values():
                for child in keeper.supervisor.children:
                    if child.spec.facts.get("replica_id") == replica_id and child.pid is not None:
                        os.kill(child.pid, signal.SIGKILL)

        return kill


def test_a_replica_runs_where_it_was_ordered(orchestrator: LocalOrchestrator) -> None:
    orchestrator.start(spec("b"))
    eventually(lambda: is_ready_on(orchestrator, "b"))
    assert orchestrator.abilities().many_nodes


def test_a_replica_that_moves_answers_on_the_old_node_until_the_new_one_is_ready(
    orchestrator: LocalOrchestrator, keepers: dict[str, RunningSupervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_LINGER_S", 0.3)
    orchestrator.start(spec("a"))
    eventually(lambda: is_ready_on(orchestrator, "a"))
    before = only(orchestrator)
    orchestrator.start(spec("b"))
    between = only(orchestrator)
    assert between.node == "b" or (between.address, between.moving_to) == (before.address, "b")
    eventually(lambda: is_ready_on(orchestrator, "b"))
    assert only(orchestrator).address != before.address
    eventually(lambda: bool(orchestrator.replicas()) and not keepers["a"].supervisor.children)
    assert is_ready_on(orchestrator, "b")


def test_the_workers_of_a_silent_node_are_lost_and_run_elsewhere_and_its_copies_end_when_it_is_back(
    orchestrator: LocalOrchestrator, keepers: dict[str, RunningSupervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_LOST_AFTER_S", 0.2)
    monkeypatch.setattr(local, "_LINGER_S", 0.2)
    orchestrator.start(spec("a"))
    eventually(lambda: is_ready_on(orchestrator, "a"))
    paused = keepers["a"].socket.rename(keepers["a"].place / "away.sock")
    eventually(lambda: only(orchestrator).state is ReplicaState.LOST)
    assert "does not answer" in only(orchestrator).reason
    orchestrator.start(spec("b"))
    eventually(lambda: is_ready_on(orchestrator, "b"))
    assert len(keepers["a"].supervisor.children) == 1, "nobody could tell it"
    paused.rename(keepers["a"].socket)
    eventually(lambda: bool(orchestrator.replicas()) and not keepers["a"].supervisor.children)
    assert is_ready_on(orchestrator, "b")


def test_a_new_orchestrator_settles_on_one_of_two_copies(
    orchestrator: LocalOrchestrator, keepers: dict[str, RunningSupervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_LINGER_S", 0.1)
    for name, keeper in keepers.items():
        LocalOrchestrator({name: keeper.socket}).start(spec(name))
    eventually(lambda: all(child.ready.is_set() for keeper in keepers.values() for child in keeper.supervisor.children))
    chosen = only(orchestrator).node
    other = keepers["b" if chosen == "a" else "a"]
    eventually(lambda: bool(orchestrator.replicas()) and not other.supervisor.children)
    assert is_ready_on(orchestrator, chosen)


def test_an_order_for_a_node_that_is_not_there_is_refused(orchestrator: LocalOrchestrator) -> None:
    from modelyard.domain.errors.platform import Unavailable

    with pytest.raises(Unavailable, match="no node c"):
        orchestrator.start(spec("c"))
