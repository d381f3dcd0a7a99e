"""Canaries share by share and workers one by one, tried in a small world: an orchestrator, two servers, a clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from modelyard.control.deployments.plan import plan
from modelyard.control.deployments.rollout import abort, advance, hold
from modelyard.control.deployments.routing import is_canary, route_of
from modelyard.control.deployments.state import NEXT_TABLE, Revision, RevisionState, Service, Status, Warm
from modelyard.control.deployments.steps import CRASHES, Event, Observed, Pace
from modelyard.domain.contract import Isolation
from modelyard.domain.rollout import CanaryMatch, Guard, Rollout, Shadow, Strategy
from modelyard.domain.routing import BackendStatus, ServerReport, ServiceRoute
from modelyard.domain.service import Phase, Replicas, ServiceSpec
from modelyard.ports.orchestrator import Replica, ReplicaState

CANARY = Rollout(strategy=Strategy.CANARY, steps=(10, 50))
PACE = Pace(patience_s=60.0)


def spec(number: int, **more: object) -> ServiceSpec:
    given: dict[str, object] = {"version": str(number), "digest": f"sha256:{number:064x}", **more}
    return ServiceSpec(name="iris", model="iris", **given)  # type: ignore[arg-type]


@dataclass
class World:
    """Carries plans out as the platform does, one pass a tick, and looks at what a client would meet after each."""

    specs: Mapping[int, ServiceSpec]
    status: Status
    broken: set[str] = field(default_factory=set)
    replicas: dict[str, Replica] = field(default_factory=dict)
    now: float = 1000.0
    table: int = 1
    held: list[int] = field(default_factory=lambda: [1, 1])
    routes: dict[int, ServiceRoute | None] = field(default_factory=dict)
    states: dict[int, RevisionState] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    most: int = 0
    fewest: int = 1000

    def __post_init__(self) -> None:
        self.routes[1] = self.route()

    @property
    def service(self) -> Service:
        revisions = {
            n: Revision(
                number=n,
                spec=each,
                actor="ann",
                why="",
                created_at=0.0,
                state=self.states.get(n, RevisionState.PENDING),
            )
            for n, each in self.specs.items()
        }
        return Service(project="default", name="iris", status=self.status, revisions=revisions)

    def route(self) -> ServiceRoute | None:
        return route_of(self.service, packages="/p")

    def observed(self) -> Observed:
        reports = tuple(
            ServerReport(
                server=f"server-{i}",
                pid=i,
                started_at=0.0,
                table_revision=held,
                backends=tuple(self.said(self.routes[held])),
            )
            for i, held in enumerate(self.held)
        )
        return Observed(servers=reports, replicas=dict(self.replicas), packages="/p")

    def said(self, route: ServiceRoute | None) -> list[BackendStatus]:
        ready = {each.address for each in self.replicas.values() if each.state is ReplicaState.READY}
        return [
            BackendStatus(
                project="default",
                service="iris",
                version=each.version,
                digest=each.digest,
                revision=each.revision,
                state="failed"
                if f"model {each.version}" in self.broken
                else "ready"
                if each.isolation is Isolation.SHARED or ready & set(each.workers)
                else "loading",
            )
            for each in (route.backends if route else ())
        ]

    def take(self, status: Status) -> None:
        self.status = status
        if self.route() != self.routes[self.table]:
            self.table += 1
            self.routes[self.table] = self.route()
        if status.awaiting == NEXT_TABLE:
            self.status = replace(status, awaiting=self.table)

    def tick(self) -> bool:
        before = (self.status, dict(self.replicas), list(self.held))
        made = plan(self.service, self.observed(), now=self.now, pace=PACE)
        self.events += made.events
        self.states |= {number: state for number, (state, _) in made.outcomes.items()}
        self.take(made.status)
        for name, each in list(self.replicas.items()):
            if each.state is ReplicaState.STOPPING:
                del self.replicas[name]
            elif each.state is ReplicaState.STARTING:
                crashes = name in self.broken
                self.replicas[name] = (
                    replace(each, restarts=min(CRASHES, each.restarts + 1))
                    if crashes
                    else replace(each, state=ReplicaState.READY)
                )
        for wanted in made.start:
            self.replicas[wanted.id] = Replica(
                id=wanted.id, state=ReplicaState.STARTING, address=f"/run/{wanted.id}", node="here", reason="boom"
            )
        for name in made.stop:
            self.replicas[name] = replace(self.replicas[name], state=ReplicaState.STOPPING)
        self.held[self.held.index(min(self.held))] = self.table  # one server a tick takes the newest table
        self.now += 1.0
        self.look()
        return before != (self.status, self.replicas, self.held)

    def look(self) -> None:
        """How many workers there are, and with how many of them the server that has the fewest answers."""
        self.most = max(self.most, len(self.replicas))
        ready = {each.address for each in self.replicas.values() if each.state is ReplicaState.READY}
        for held in self.held:
            route = self.routes[held]
            backends = route.backends if route else ()
            reached = {address for each in backends if each.weight for address in each.workers}
            self.fewest = min(self.fewest, len(reached & ready))

    def settle(self, *, until: str = "") -> None:
        for _ in range(200):
            moved = self.tick()
            if until and any(event.action == until for event in self.events):
                return
            if not moved and self.status.awaiting is None:
                return
        pytest.fail(f"does not settle: {self.status}")

    def weights(self) -> dict[int, int]:
        route = self.route()
        return {each.revision: each.weight for each in (route.backends if route else ())}


def serving(new: ServiceSpec, **old: object) -> World:
    """Revision 1 serves, and revision 2 is wanted."""
    world = World({1: spec(1, **old)}, Status(goal=1))
    world.settle()
    assert (world.status.phase, world.status.live) == (Phase.SERVING, 1)
    world.specs = {**world.specs, 2: new}
    world.status = replace(world.status, goal=2)
    world.events.clear()
    world.most, world.fewest = 0, 1000
    return world


def actions(world: World) -> list[str]:
    return [event.action.removeprefix("service.") for event in world.events]


def test_a_canary_gets_its_first_share_when_it_is_ready_and_waits_there() -> None:
    world = serving(spec(2, rollout=CANARY))
    world.settle()
    assert (world.status.phase, world.weights()) == (Phase.CANARY, {1: 90, 2: 10})
    assert world.status.rollout is not None
    assert (world.status.rollout.step, world.status.live) == (0, 1)
    assert actions(world) == ["rollout_begun", "split"]
    world.now += 1_000_000
    world.settle()
    assert world.weights() == {1: 90, 2: 10}


def test_it_is_moved_share_by_share_and_the_last_move_makes_it_live() -> None:
    world = serving(spec(2, rollout=CANARY))
    world.settle()
    for shares in ({1: 50, 2: 50}, {2: 100, 1: 0}):
        made = advance(world.service, now=world.now, pace=PACE, to_end=False, reason="looks good")
        world.events += made.events
        world.take(made.status)
        world.settle()
        assert world.weights() == shares
    assert (world.status.phase, world.status.live, world.status.candidate) == (Phase.SERVING, 2, None)
    assert [each.revision for each in world.status.warm] == [1]
    begun = ["rollout_begun", "split", "rollout_advanced", "split"]
    assert actions(world) == [*begun, "rollout_promoted", "revision_live"]


def test_all_of_the_traffic_can_be_given_at_once() -> None:
    world = serving(spec(2, rollout=CANARY))
    world.settle()
    world.take(advance(world.service, now=world.now, pace=PACE, to_end=True, reason="sure").status)
    world.settle()
    assert (world.status.live, world.weights()) == (2, {2: 100, 1: 0})


def test_the_clock_moves_a_canary_that_nobody_guards_and_stands_still_while_it_is_held() -> None:
    way = replace(CANARY, guard=Guard.OFF, step_s=30.0)
    world = serving(spec(2, rollout=way))
    world.settle()
    since = world.status.rollout.since if world.status.rollout else 0.0
    world.now = since + 29
    world.tick()
    assert world.weights() == {1: 90, 2: 10}
    world.take(hold(world.service, paused=True, reason="wait").status)
    world.now = since + 300
    world.settle()
    assert world.weights() == {1: 90, 2: 10}
    world.take(hold(world.service, paused=False, reason="go on").status)
    world.settle()
    assert world.weights() == {1: 50, 2: 50}
    assert world.status.rollout is not None
    assert world.status.rollout.since > since
    world.now += 31
    world.settle()
    assert world.status.live == 2


def test_an_aborted_canary_goes_and_its_digest_is_rejected() -> None:
    world = serving(spec(2, rollout=CANARY))
    world.settle()
    made = abort(world.service, 2, "it is wrong")
    world.events += made.events
    world.states |= {number: state for number, (state, _) in made.outcomes.items()}
    world.take(made.status)
    assert world.weights() == {1: 100}
    world.settle()
    status = world.status
    assert (status.phase, status.live, status.candidate, status.goal) == (Phase.SERVING, 1, None, 2)
    assert status.rejections == {spec(2).digest: "it is wrong"}
    assert "revision 1 answers" in status.reason
    assert world.states[2] is RevisionState.FAILED
    assert actions(world) == ["rollout_begun", "split", "rollout_aborted", "split"]
    assert [(each["revision"], each["weight"]) for each in world.events[-1].payload["split"]] == [(1, 100)]


def test_a_canary_that_can_no_longer_answer_goes_by_itself() -> None:
    world = serving(spec(2, rollout=CANARY))
    world.settle()
    world.broken.add("model 2")
    world.settle()
    assert (world.status.phase, world.weights()) == (Phase.SERVING, {1: 100})
    assert world.status.rejected == (spec(2).digest,)


def test_another_wish_ends_a_canary() -> None:
    world = serving(spec(2, rollout=CANARY))
    world.settle()
    world.specs = {**world.specs, 3: spec(3)}
    world.status = replace(world.status, goal=3)
    world.settle()
    assert (world.status.live, world.status.phase) == (3, Phase.SERVING)
    assert world.states[2] is RevisionState.SUPERSEDED


def test_a_change_that_keeps_the_version_and_a_way_back_need_no_canary() -> None:
    world = serving(spec(1, rollout=CANARY, owner="ben"))
    world.settle()
    assert (world.status.live, actions(world)) == (2, ["revision_live"])
    world.specs = {**world.specs, 3: spec(3, rollout=CANARY)}
    world.status = replace(world.status, goal=3, at_once=3)
    world.settle()
    assert world.status.live == 3


def test_the_table_says_who_goes_to_the_canary_whatever_its_share() -> None:
    match = CanaryMatch(headers={"x-canary": "always"}, keys=("key-1",))
    way = replace(CANARY, steps=(0, 20), matches=(match,), sticky="x-session")
    world = serving(spec(2, rollout=way))
    world.settle()
    route = world.route()
    assert route is not None
    assert [(each.revision, each.headers, each.keys) for each in route.matches] == [
        (2, {"x-canary": "always"}, ("key-1",))
    ]
    assert (route.sticky, route.watched, world.weights()) == ("x-session", True, {1: 100, 2: 0})
    world.take(advance(world.service, now=world.now, pace=PACE, to_end=True, reason="").status)
    route = world.route()
    assert route is not None
    assert (route.matches, route.watched) == ((), False)


def test_a_shadow_stands_in_the_table_without_weight_and_never_holds_anything_up() -> None:
    shadow = Shadow(model="iris", version="5", digest="sha256:5", percent=30, isolation=Isolation.PROCESS)
    world = serving(spec(2, shadow=shadow))
    world.broken.add("default.iris.2-shadow.0")
    world.settle()
    assert (world.status.live, world.status.phase) == (2, Phase.SERVING)
    world.broken.clear()
    world.settle()
    route = world.route()
    assert route is not None
    found = [each for each in route.backends if each.shadow_percent]
    assert [(each.version, each.weight, each.shadow_percent, len(each.workers)) for each in found] == [("5", 0, 30, 1)]
    world.specs = {**world.specs, 3: spec(2)}
    world.status = replace(world.status, goal=3)
    world.settle()
    assert not world.replicas


BOUNDS = [(n, m, s, u) for n in (1, 2, 3, 5) for m in (1, 2, 4) for s, u in ((1, 0), (2, 0), (0, 1), (3, 2)) if u < n]


@pytest.mark.parametrize(("wanted", "before", "surge", "unavailable"), BOUNDS)
def test_workers_are_exchanged_within_the_bounds(wanted: int, before: int, surge: int, unavailable: int) -> None:
    way = Rollout(max_surge=surge, max_unavailable=unavailable)
    many = Replicas(min=wanted, max=wanted)
    world = serving(
        spec(2, isolation=Isolation.PROCESS, replicas=many, rollout=way),
        isolation=Isolation.PROCESS,
        replicas=Replicas(min=before, max=before),
    )
    world.settle()
    assert (world.status.live, world.status.phase, world.status.candidate) == (2, Phase.SERVING, None)
    assert world.most <= max(wanted + surge, before)
    assert world.fewest >= min(wanted - unavailable, before)
    assert sum(".2." in name for name in world.replicas) == wanted
    assert sum(".1." in name for name in world.replicas) <= surge
    world.now += PACE.warm_s + 1
    world.settle()
    assert len(world.replicas) == wanted


@pytest.mark.parametrize("index", [0, 1, 2, 3])
@pytest.mark.parametrize("surge", [1, 2])
def test_when_a_new_worker_fails_the_old_ones_come_back_before_the_new_ones_go(index: int, surge: int) -> None:
    way = Rollout(max_surge=surge)
    four = Replicas(min=4, max=4)
    world = serving(
        spec(2, isolation=Isolation.PROCESS, replicas=four, rollout=way), isolation=Isolation.PROCESS, replicas=four
    )
    world.broken.add(f"default.iris.2.{index}")
    world.settle()
    assert (world.status.live, world.status.phase, world.status.candidate) == (1, Phase.SERVING, None)
    assert sorted(world.replicas) == [f"default.iris.1.{n}" for n in range(4)]
    assert world.fewest >= 4
    assert world.most <= 4 + surge
    assert world.weights() == {1: 100}
    assert world.states[2] is RevisionState.FAILED
    assert "boom" in world.status.rejections[spec(2).digest]
    assert actions(world) == ["revision_failed"]


@pytest.mark.parametrize("after", range(1, 14))
def test_another_wish_in_the_middle_of_an_exchange_never_leaves_too_few(after: int) -> None:
    three = Replicas(min=3, max=3)
    isolated = {"isolation": Isolation.PROCESS, "replicas": three}
    world = serving(spec(2, **isolated), **isolated)
    for _ in range(after):
        world.tick()
    world.specs = {**world.specs, 3: spec(3, **isolated)}
    world.status = replace(world.status, goal=3)
    world.settle()
    assert (world.status.live, world.status.phase) == (3, Phase.SERVING)
    assert world.fewest >= 3
    assert world.most <= 4


@pytest.mark.parametrize("after", range(1, 14))
def test_giving_up_in_the_middle_of_an_exchange_never_leaves_too_few(after: int) -> None:
    three = Replicas(min=3, max=3)
    isolated = {"isolation": Isolation.PROCESS, "replicas": three}
    world = serving(spec(2, **isolated), **isolated)
    for _ in range(after):
        world.tick()
    if world.status.candidate == 2:
        world.take(abort(world.service, 2, "no").status)
        world.settle()
        assert (world.status.live, sorted(world.replicas)) == (1, [f"default.iris.1.{n}" for n in range(3)])
    assert world.fewest >= 3
    assert world.most <= 4


def test_a_new_number_of_workers_starts_or_stops_only_the_difference() -> None:
    isolated = {"isolation": Isolation.PROCESS}
    four, two = Replicas(min=4, max=4), Replicas(min=2, max=2)
    world = serving(spec(1, replicas=four, **isolated), replicas=two, **isolated)
    world.settle()
    assert sorted(world.replicas) == [f"default.iris.1.{n}" for n in range(4)]
    assert world.fewest >= 2
    world.specs = {**world.specs, 3: spec(1, replicas=two, **isolated)}
    world.status = replace(world.status, goal=3)
    world.settle()
    assert (world.status.live, sorted(world.replicas)) == (3, ["default.iris.1.0", "default.iris.1.1"])
    route = world.route()
    assert route is not None
    assert route.backends[0].workers == ("/run/default.iris.1.0", "/run/default.iris.1.1")


def test_only_the_given_number_of_revisions_stays_warm() -> None:
    world = serving(spec(2))
    world.settle()
    world.specs = {**world.specs, 3: spec(3)}
    world.status = replace(world.status, goal=3)
    world.settle()
    assert [each.revision for each in world.status.warm] == [2]
    assert world.weights() == {3: 100, 2: 0}
    assert isinstance(world.status.warm[0], Warm)
    assert not is_canary(world.service)
