"""What every orchestrator must do. Subclass; give `orchestrator` (empty) and `package` (a directory it can serve).

```python
class TestLocal(OrchestratorConformance):
    @pytest.fixture
    def orchestrator(self, supervisor: Path) -> Orchestrator:
        return LocalOrchestrator({"here": supervisor})
```
"""

import time
from collections.abc import Callable
from typing import Final

import pytest

from modelyard.ports.orchestrator import Orchestrator, Replica, ReplicaSpec, ReplicaState

DEADLINE_S: Final = 30.0


def eventually(claim: Callable[[], bool], *, within_s: float = DEADLINE_S) -> None:
    """Return when `claim` holds; fail after `within_s`."""
    end = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


class OrchestratorConformance:
    """The promises of `modelyard.ports.orchestrator.Orchestrator`."""

    @pytest.fixture
    def orchestrator(self) -> Orchestrator:
        """The orchestrator under test, with nothing running."""
        raise NotImplementedError

    @pytest.fixture
    def package(self) -> str:
        """The directory of a package that its workers can serve."""
        raise NotImplementedError

    @pytest.fixture
    def crash(self) -> Callable[[str], None]:
        """Kills the worker of a replica id, behind the orchestrator's back."""
        pytest.skip("workers cannot be reached from a test")

    def spec(self, package: str, index: int = 0) -> ReplicaSpec:
        """A replica of a service named `iris`."""
        return ReplicaSpec(
            id=f"default.iris.1.{index}",
            project="default",
            service="iris",
            revision=1,
            package=package,
        )

    def seen(self, orchestrator: Orchestrator, replica_id: str) -> Replica | None:
        """The replica as it is listed now."""
        return next((replica for replica in orchestrator.replicas() if replica.id == replica_id), None)

    def is_ready(self, orchestrator: Orchestrator, replica_id: str) -> bool:
        """Whether it is listed as ready."""
        replica = self.seen(orchestrator, replica_id)
        return replica is not None and replica.state is ReplicaState.READY

    def test_nothing_runs_at_first(self, orchestrator: Orchestrator) -> None:
        """A listing is empty before the first start."""
        assert list(orchestrator.replicas()) == []
        assert orchestrator.name

    def test_a_started_replica_becomes_ready_at_an_address(self, orchestrator: Orchestrator, package: str) -> None:
        """Start records the wish; the listing shows when it is fulfilled."""
        spec = self.spec(package)
        orchestrator.start(spec)
        eventually(lambda: self.is_ready(orchestrator, spec.id))
        replica = self.seen(orchestrator, spec.id)
        assert replica is not None
        assert replica.address
        assert replica.node

    def test_started_twice_it_is_one(self, orchestrator: Orchestrator, package: str) -> None:
        """Ids are deterministic, so a repeated order changes nothing."""
        spec = self.spec(package)
        orchestrator.start(spec)
        orchestrator.start(spec)
        eventually(lambda: self.is_ready(orchestrator, spec.id))
        assert [replica.id for replica in orchestrator.replicas()] == [spec.id]

    def test_a_stopped_replica_goes_and_the_others_stay(self, orchestrator: Orchestrator, package: str) -> None:
        """Stop ends one; a second stop and one of an unknown id do nothing."""
        first, second = self.spec(package), self.spec(package, index=1)
        orchestrator.start(first)
        orchestrator.start(second)
        eventually(lambda: self.is_ready(orchestrator, first.id) and self.is_ready(orchestrator, second.id))
        orchestrator.stop(first.id, grace_s=2.0)
        eventually(lambda: self.seen(orchestrator, first.id) is None)
        assert self.is_ready(orchestrator, second.id)
        orchestrator.stop(first.id, grace_s=2.0)
        orchestrator.stop("default.nobody.1.0", grace_s=2.0)

    def test_a_stopped_replica_can_be_started_again(self, orchestrator: Orchestrator, package: str) -> None:
        """The same id may come back."""
        spec = self.spec(package)
        orchestrator.start(spec)
        eventually(lambda: self.is_ready(orchestrator, spec.id))
        orchestrator.stop(spec.id, grace_s=2.0)
        eventually(lambda: self.seen(orchestrator, spec.id) is None)
        orchestrator.start(spec)
        eventually(lambda: self.is_ready(orchestrator, spec.id))

    def test_a_crashed_replica_comes_back_at_the_same_address(
        self, orchestrator: Orchestrator, package: str, crash: Callable[[str], None]
    ) -> None:
        """It is kept running, and its crashes are counted."""
        spec = self.spec(package)
        orchestrator.start(spec)
        eventually(lambda: self.is_ready(orchestrator, spec.id))
        before = self.seen(orchestrator, spec.id)
        crash(spec.id)
        eventually(lambda: (found := self.seen(orchestrator, spec.id)) is not None and found.restarts == 1)
        eventually(lambda: self.is_ready(orchestrator, spec.id))
        after = self.seen(orchestrator, spec.id)
        assert before is not None
        assert after is not None
        assert after.address == before.address
