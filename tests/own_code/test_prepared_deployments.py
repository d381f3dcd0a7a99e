"""Workers of own code start when their environment is there; until then the service says what is being built."""

from dataclasses import replace

from modelyard.control.deployments.plan import plan
from modelyard.control.deployments.state import Preparation, PreparationState, Revision, RevisionState, Service, Status
from modelyard.control.deployments.steps import Observed, Pace
from modelyard.domain.contract import Isolation
from modelyard.domain.routing import ServerReport
from modelyard.domain.service import Phase, ServiceSpec

NOW = 1_000_000.0
PATIENCE_S = 120.0


def service(**status: object) -> Service:
    spec = ServiceSpec(name="own", model="own", version="1", digest="sha256:" + "1" * 64, isolation=Isolation.PROCESS)
    revision = Revision(number=1, spec=spec, actor="a", why="", created_at=NOW)
    return Service(
        project="default",
        name="own",
        status=replace(Status(goal=1), **status),
        revisions={1: revision},  # type: ignore[arg-type]
    )


def observed(state: PreparationState, *, at: float = NOW, reason: str = "") -> Observed:
    preparation = Preparation(state=state, reason=reason, at=at)
    server = ServerReport(server="s", pid=1, started_at=NOW, table_revision=1)
    return Observed(servers=(server,), packages="/p", preparations={1: preparation})


def test_no_worker_starts_while_its_environment_is_built() -> None:
    made = plan(service(), observed(PreparationState.BUILDING, reason="its environment is being built"), now=NOW)
    assert made.start == ()
    assert (made.status.candidate, made.status.reason) == (1, "its environment is being built")


def test_building_takes_nothing_of_the_patience() -> None:
    begun = service(phase=Phase.LOADING, candidate=1, since=NOW)
    late = NOW + 100 * PATIENCE_S
    building = plan(begun, observed(PreparationState.BUILDING), now=late, pace=Pace(patience_s=PATIENCE_S))
    assert building.status.candidate == 1
    ready = observed(PreparationState.READY, at=late)
    soon_after = plan(begun, ready, now=late + PATIENCE_S / 2, pace=Pace(patience_s=PATIENCE_S))
    assert [replica.package for replica in soon_after.start] == ["/p/" + "1" * 64]
    too_late = plan(begun, ready, now=late + PATIENCE_S + 1, pace=Pace(patience_s=PATIENCE_S))
    assert too_late.outcomes[1][0] is RevisionState.FAILED


def test_an_environment_that_cannot_be_built_fails_the_revision_with_the_reason() -> None:
    made = plan(service(), observed(PreparationState.FAILED, reason="no such package"), now=NOW)
    assert made.start == ()
    assert made.status.phase is Phase.FAILED
    assert "no such package" in made.status.reason
