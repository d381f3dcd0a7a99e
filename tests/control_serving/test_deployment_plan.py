"""The plan is pure, so every situation is tried: each phase, with servers and workers in each state."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from modelyard.control.deployments.plan import plan
from modelyard.control.deployments.routing import route_of
from modelyard.control.deployments.state import (
    NEXT_TABLE,
    Revision,
    RevisionState,
    RolloutProgress,
    Service,
    Status,
    Warm,
)
from modelyard.control.deployments.steps import CRASHES, Observed, Plan
from modelyard.control.deployments.workers import replica_id
from modelyard.domain.contract import Isolation
from modelyard.domain.routing import BackendStatus, ServerReport
from modelyard.domain.service import MOVES, Phase, Replicas, ServiceSpec, Trigger
from modelyard.ports.orchestrator import Replica, ReplicaState

NOW = 1000.0


def spec(number: int, isolation: Isolation = Isolation.SHARED, workers: int = 1) -> ServiceSpec:
    return ServiceSpec(
        name="iris",
        model="iris",
        version=str(number),
        digest=f"sha256:{number:064x}",
        isolation=isolation,
        replicas=Replicas(min=workers, max=workers),
    )


def service(status: Status, isolation: Isolation = Isolation.SHARED, workers: int = 1) -> Service:
    numbers = {status.goal, status.replaced, *status.kept} - {None}
    revisions = {
        n: Revision(number=n, spec=spec(n, isolation, workers), actor="ann", why="", created_at=0.0) for n in numbers
    }
    return Service(project="default", name="iris", status=status, revisions=revisions)


def report(name: str, table: int, states: dict[int, str] | None = None) -> ServerReport:
    backends = tuple(
        BackendStatus(
            project="default",
            service="iris",
            version=str(number),
            digest=f"sha256:{number:064x}",
            revision=number,
            state=state,
            reason="no memory" if state == "failed" else "",
        )
        for number, state in (states or {}).items()
    )
    return ServerReport(server=name, pid=1, started_at=0.0, table_revision=table, backends=backends)


def seen(*servers: ServerReport, replicas: tuple[Replica, ...] = (), alive_since: float = 0.0) -> Observed:
    return Observed(
        servers=servers, replicas={r.id: r for r in replicas}, packages="/packages", alive_since=alive_since
    )


def worker(revision: int, index: int, state: ReplicaState = ReplicaState.READY, restarts: int = 0) -> Replica:
    name = replica_id("default", "iris", revision, index)
    return Replica(id=name, state=state, address=f"/run/{name}.sock", node="here", restarts=restarts, reason="boom")


def published(made: Plan, table: int) -> Status:
    """What saving a status does: the table it waits for gets its number."""
    status = made.status
    return replace(status, awaiting=table) if status.awaiting == NEXT_TABLE else status


LOADING = Status(goal=1, phase=Phase.LOADING, candidate=1, since=NOW)
SERVING = Status(goal=1, phase=Phase.SERVING, live=1)
UPDATING = Status(goal=2, phase=Phase.UPDATING, live=1, candidate=2, since=NOW)


def test_a_new_service_becomes_a_candidate_with_no_traffic() -> None:
    made = plan(service(Status(goal=1)), seen(), now=NOW)
    assert (made.status.phase, made.status.candidate, made.status.live) == (Phase.LOADING, 1, None)
    route = route_of(replace(service(Status(goal=1)), status=made.status), packages="/packages")
    assert route is not None
    assert [(b.revision, b.weight, b.package) for b in route.backends] == [(1, 0, "/packages/" + f"{1:064x}")]


def test_it_waits_until_every_server_is_ready() -> None:
    made = plan(service(LOADING), seen(report("a", 5, {1: "ready"}), report("b", 5, {1: "loading"})), now=NOW)
    assert made.status.candidate == 1
    assert made.status.reason == "1 of 2 model servers have revision 1 ready"


def test_no_server_is_not_the_models_fault() -> None:
    made = plan(service(LOADING), seen(), now=NOW + 10_000)
    assert made.status.phase is Phase.LOADING
    assert made.status.reason == "no model server has reported yet"


def test_the_patience_begins_when_servers_are_there() -> None:
    slow = report("a", 5, {1: "loading"})
    assert plan(service(LOADING), seen(slow, alive_since=NOW + 9_999), now=NOW + 10_000).status.phase is Phase.LOADING
    assert plan(service(LOADING), seen(slow), now=NOW + 10_000).status.phase is Phase.FAILED


def test_when_all_are_ready_the_traffic_moves_and_the_last_acknowledgement_makes_it_live() -> None:
    ready = {1: "ready", 2: "ready"}
    made = plan(service(UPDATING), seen(report("a", 5, ready), report("b", 5, ready)), now=NOW)
    assert (made.status.live, made.status.candidate, made.status.draining) == (2, None, ())
    assert made.status.warm == (Warm(revision=1, until=NOW + 600),)
    assert made.events == ()
    status = published(made, 6)
    half = plan(service(status), seen(report("a", 6, ready), report("b", 5, ready)), now=NOW)
    assert half.status.phase is Phase.UPDATING
    assert half.events == ()
    done = plan(service(status), seen(report("a", 6, ready), report("b", 7, ready)), now=NOW)
    assert (done.status.phase, done.status.draining, done.status.awaiting) == (Phase.SERVING, (), None)
    assert [(e.action, e.revision) for e in done.events] == [("service.revision_live", 2)]
    assert done.outcomes[2][0] is RevisionState.LIVE
    assert done.outcomes[1][0] is RevisionState.SUPERSEDED


def test_a_revision_that_fails_gives_way_to_the_one_that_serves() -> None:
    servers = seen(report("a", 5, {1: "ready", 2: "failed"}), report("b", 5, {1: "ready", 2: "ready"}))
    made = plan(service(UPDATING), servers, now=NOW)
    assert (made.status.phase, made.status.live, made.status.candidate) == (Phase.SERVING, 1, None)
    assert made.status.rejected == (spec(2).digest,)
    assert "a cannot serve it: no memory" in made.status.reason
    assert "revision 1 goes on answering" in made.status.reason
    again = plan(service(published(made, 6)), servers, now=NOW)
    assert again.status.candidate is None
    assert again.events == ()


def test_one_failure_waits_for_the_other_servers_word() -> None:
    made = plan(service(UPDATING), seen(report("a", 5, {2: "failed"}), report("b", 5, {2: "loading"})), now=NOW)
    assert made.status.candidate == 2


def test_a_first_revision_that_fails_leaves_a_failed_service() -> None:
    made = plan(service(LOADING), seen(report("a", 5, {1: "failed"})), now=NOW)
    assert made.status.phase is Phase.FAILED
    assert route_of(replace(service(LOADING), status=made.status), packages="/p") is None


def test_a_newer_wish_replaces_a_candidate_and_the_live_one_stays() -> None:
    made = plan(service(replace(UPDATING, goal=3)), seen(), now=NOW)
    assert (made.status.live, made.status.candidate, made.status.draining) == (1, 3, (2,))
    assert made.outcomes[2][0] is RevisionState.SUPERSEDED


def test_a_wish_during_a_switch_still_records_who_was_live() -> None:
    status = Status(
        goal=3, phase=Phase.UPDATING, live=2, candidate=3, since=NOW, awaiting=6, taking_over=2, draining=(1,)
    )
    made = plan(service(status), seen(report("a", 6, {2: "ready"})), now=NOW)
    assert [(e.action, e.revision) for e in made.events] == [("service.revision_live", 2)]
    assert (made.status.phase, made.status.candidate) == (Phase.UPDATING, 3)


def test_an_answer_about_other_bytes_does_not_count() -> None:
    wrong = replace(report("a", 5, {1: "ready"}).backends[0], digest="sha256:other")
    made = plan(service(LOADING), seen(replace(report("a", 5), backends=(wrong,))), now=NOW)
    assert made.status.candidate == 1


def test_isolated_workers_are_started_first_and_routed_when_ready() -> None:
    fresh = service(LOADING, Isolation.PROCESS, 2)
    made = plan(fresh, seen(report("a", 5)), now=NOW)
    assert [r.id for r in made.start] == ["default.iris.1.0", "default.iris.1.1"]
    assert route_of(replace(fresh, status=made.status), packages="/p") is None
    made = plan(fresh, seen(report("a", 5), replicas=(worker(1, 0), worker(1, 1))), now=NOW)
    assert made.start == ()
    route = route_of(replace(fresh, status=made.status), packages="/p")
    assert route is not None
    assert route.backends[0].workers == ("/run/default.iris.1.0.sock", "/run/default.iris.1.1.sock")
    assert route.backends[0].weight == 0


def test_a_worker_that_keeps_crashing_ends_the_candidate_early() -> None:
    crashed = worker(1, 0, ReplicaState.STARTING, restarts=CRASHES)
    made = plan(service(LOADING, Isolation.PROCESS), seen(report("a", 5), replicas=(crashed,)), now=NOW)
    assert made.status.phase is Phase.FAILED
    assert "boom" in made.status.reason


def test_what_was_live_stays_loaded_for_a_while_and_then_goes() -> None:
    status = replace(SERVING, goal=2, live=2, warm=(Warm(revision=1, until=NOW + 600),))
    ready = seen(report("a", 5, {1: "ready", 2: "ready"}))
    assert plan(service(status), ready, now=NOW + 599).status == status
    route = route_of(service(status), packages="/p")
    assert route is not None
    assert [(b.revision, b.weight) for b in route.backends] == [(2, 100), (1, 0)]
    cold = plan(service(status), ready, now=NOW + 600).status
    assert (cold.warm, cold.draining, cold.awaiting) == ((), (1,), NEXT_TABLE)
    route = route_of(service(cold), packages="/p")
    assert route is not None
    assert [b.revision for b in route.backends] == [2]


def test_going_back_while_the_old_workers_are_warm_starts_none() -> None:
    there = service(
        Status(goal=2, phase=Phase.SERVING, live=2, warm=(Warm(revision=1, until=NOW + 600),)), Isolation.PROCESS, 2
    )
    again = replace(there.revisions[1], number=3)
    wanted = replace(there, status=replace(there.status, goal=3, at_once=3), revisions={**there.revisions, 3: again})
    workers = tuple(worker(revision, index) for revision in (1, 2) for index in (0, 1))
    made = plan(wanted, seen(report("a", 5, {1: "ready", 2: "ready"}), replicas=workers), now=NOW)
    assert (made.start, made.stop) == ((), ())
    assert made.status.home(3) == 1
    route = route_of(replace(wanted, status=made.status), packages="/p")
    assert route is not None
    assert {b.revision: b.workers for b in route.backends}[3] == {b.revision: b.workers for b in route.backends}[1]
    states = {1: "ready", 2: "ready"}
    three = replace(report("a", 6, {3: "ready"}).backends[0], digest=spec(1).digest, version="1")
    said = replace(report("a", 6, states), backends=(*report("a", 6, states).backends, three))
    done = plan(replace(wanted, status=published(made, 6)), seen(said, replicas=workers), now=NOW)
    assert (done.status.live, done.start, done.stop) == (3, (), ())


def test_old_workers_stop_only_after_the_last_acknowledgement() -> None:
    status = Status(goal=2, phase=Phase.UPDATING, live=2, awaiting=6, taking_over=2, draining=(1,))
    both = (worker(1, 0), worker(2, 0))
    waiting = plan(service(status, Isolation.PROCESS), seen(report("a", 5), replicas=both), now=NOW)
    assert waiting.stop == ()
    over = plan(service(status, Isolation.PROCESS), seen(report("a", 6), replicas=both), now=NOW)
    assert over.stop == ("default.iris.1.0",)


def test_a_lost_worker_of_the_live_revision_is_started_again() -> None:
    both = replace(SERVING, workers={"1": (worker(1, 0).address, worker(1, 1).address)})
    made = plan(service(both, Isolation.PROCESS, 2), seen(report("a", 5), replicas=(worker(1, 1),)), now=NOW)
    assert [r.id for r in made.start] == ["default.iris.1.0"]
    assert made.status == both


def test_workers_that_moved_are_followed() -> None:
    status = replace(SERVING, workers={"1": ("/elsewhere/w.sock",)})
    moved = plan(service(status, Isolation.PROCESS), seen(report("a", 7), replicas=(worker(1, 0),)), now=NOW)
    assert moved.status.workers_of(1) == (worker(1, 0).address,)
    starting = seen(report("a", 7), replicas=(worker(1, 0, ReplicaState.STARTING),))
    assert plan(service(status, Isolation.PROCESS), starting, now=NOW).status == status


def test_deleting_takes_the_route_away_first_then_the_workers_then_the_service() -> None:
    status = Status(goal=1, phase=Phase.DELETING, live=1, awaiting=9, since=NOW)
    gone = service(status, Isolation.PROCESS)
    assert route_of(gone, packages="/p") is None
    assert plan(gone, seen(report("a", 8), replicas=(worker(1, 0),)), now=NOW).stop == ()
    assert plan(gone, seen(report("a", 9), replicas=(worker(1, 0),)), now=NOW).stop == ("default.iris.1.0",)
    stopping = seen(report("a", 9), replicas=(worker(1, 0, ReplicaState.STOPPING),))
    assert plan(gone, stopping, now=NOW).status.phase is Phase.DELETING
    done = plan(gone, seen(report("a", 9)), now=NOW)
    assert done.status.phase is Phase.DELETED
    assert [e.action for e in done.events] == ["service.gone"]


def test_names_with_dots_never_share_workers() -> None:
    assert replica_id("a.b", "c", 1, 0) != replica_id("a", "b.c", 1, 0)


def test_the_reference_draws_the_table_of_phases_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "deployments.md").read_text()
    drawn = {
        (Phase(before), Trigger(trigger)): Phase(after)
        for before, after, triggers in re.findall(r"^    (\w+) --> (\w+): (.+)$", page, re.MULTILINE)
        for trigger in triggers.split(", ")
    }
    assert drawn == MOVES
    table = page.split("## Phases")[1].split("```")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| [^|]* \|(.*)\|$", table, re.MULTILINE))
    assert {phase: set(re.findall(r"`(\w+)`", after)) for phase, after in listed.items()} == {
        phase.value: {after.value for (before, _), after in MOVES.items() if before is phase and after is not phase}
        for phase in Phase
    }


STATUSES = [
    Status(goal=1),
    LOADING,
    SERVING,
    UPDATING,
    replace(SERVING, goal=2),
    replace(SERVING, goal=2, failed=(2,)),
    replace(UPDATING, goal=3),
    Status(goal=2, phase=Phase.UPDATING, live=2, awaiting=6, taking_over=2, draining=(1,)),
    Status(
        goal=2,
        phase=Phase.CANARY,
        live=1,
        candidate=2,
        rollout=RolloutProgress(revision=2, step=0, weight=10, since=NOW),
        awaiting=6,
    ),
    Status(goal=2, phase=Phase.SERVING, live=2, warm=(Warm(revision=1, until=NOW),)),
    Status(goal=3, phase=Phase.SERVING, live=2, warm=(Warm(revision=1, until=NOW + 1),), at_once=3),
    Status(goal=1, phase=Phase.FAILED, failed=(1,)),
    Status(goal=2, phase=Phase.FAILED, failed=(1,)),
    Status(goal=1, phase=Phase.DELETING, live=1, awaiting=6),
    Status(goal=1, phase=Phase.DELETED),
]
SERVER_STATES = [None, "loading", "ready", "failed", "unloaded"]
WORKER_STATES = [None, *ReplicaState]


@pytest.mark.parametrize("isolation", list(Isolation))
@pytest.mark.parametrize("status", STATUSES, ids=lambda s: f"{s.phase}-{s.goal}")
def test_in_every_situation_the_plan_is_lawful_and_settles(status: Status, isolation: Isolation) -> None:
    """Phases move only by the table, live traffic never goes to an unready revision, and planning comes to rest."""
    moves = {before: {after for (b, _), after in MOVES.items() if b is before} | {before} for before in Phase}
    for one, two, state, table in itertools.product(SERVER_STATES, SERVER_STATES, WORKER_STATES, (5, 6)):
        states = {n: s for n, s in ((1, one), (2, two), (3, two)) if s is not None}
        workers = tuple(worker(n, 0, state) for n in (1, 2, 3)) if state is not None else ()
        observed = seen(report("a", table, states), replicas=workers)
        now, trail = status, [status]
        for _step in range(12):
            made = plan(service(now, isolation), observed, now=NOW)
            assert made == plan(service(now, isolation), observed, now=NOW)
            reachable = moves[now.phase] | {p for q in moves[now.phase] for p in moves[q]}
            assert made.status.phase in reachable
            if made.status.live != now.live and made.status.phase is not Phase.DELETED:
                assert states.get(made.status.live or 0) == "ready"
            going = made.status.phase in (Phase.DELETING, Phase.DELETED) or isolation is Isolation.SHARED
            running = set() if going else {now.live, made.status.live, made.status.candidate}
            assert not {f"default.iris.{n}.0" for n in running if n} & set(made.stop)
            after = published(made, 5)
            if after == now:
                break
            now = after
            trail.append(now)
        else:
            pytest.fail(f"does not settle: {trail}")
