"""The bound of time on what waits: decided from measured runs, refused by urgency, before a body is read."""

import json
import threading

from modelyard.domain.routing import Batching, Limits
from modelyard.inference.admission import Pressure, Room, read_urgency


def pressed(each_s: float, *, most: int = 1024, deadline_s: float = 10.0, runs: int = 60, calls: int = 1) -> Room:
    rooms: list[Room] = []
    pressure = Pressure()
    pressure.limit(most=most, deadline_s=deadline_s, on_change=rooms.append)
    now = 100.0
    for _ in range(runs):
        pressure.ran(calls, now, now + each_s * calls)
        now += each_s * calls
    return rooms[-1]


def test_a_quick_model_keeps_the_fixed_bound() -> None:
    assert pressed(0.0001).urgent == 1024


def test_a_slow_model_gets_no_longer_queue_than_half_of_its_deadline() -> None:
    assert 40 <= pressed(0.1).urgent <= 55
    assert pressed(10.0).urgent == 4


def test_batches_count_by_their_requests() -> None:
    assert 400 <= pressed(0.1 / 8, calls=8).urgent <= 440


def test_runs_side_by_side_count_for_the_time_between_their_ends() -> None:
    rooms: list[Room] = []
    pressure = Pressure()
    pressure.limit(most=1024, deadline_s=10.0, on_change=rooms.append)
    for turn in range(100):
        for worker in range(4):
            pressure.ran(1, turn * 0.1 + worker * 0.025, turn * 0.1 + worker * 0.025 + 0.1)
    assert 180 <= rooms[-1].urgent <= 220


def test_the_bound_follows_a_model_that_recovers() -> None:
    rooms: list[Room] = []
    pressure = Pressure()
    pressure.limit(most=1024, deadline_s=10.0, on_change=rooms.append)
    now = 0.0
    for each in [0.001] * 50 + [1.0] * 50 + [0.001] * 100:
        pressure.ran(1, now, now + each)
        now += each
    bounds = [room.urgent for room in rooms]
    assert min(bounds) <= 6
    assert bounds[-1] == 1024


def test_a_run_that_stood_still_does_not_shrink_the_room_and_a_third_in_a_row_does() -> None:
    rooms: list[Room] = []
    pressure = Pressure()
    pressure.limit(most=1024, deadline_s=10.0, on_change=rooms.append)
    now = 0.0

    def run(each: float) -> int:
        nonlocal now
        pressure.ran(1, now, now + each)
        now += each
        return rooms[-1].urgent

    for _ in range(50):
        run(0.002)
    assert run(6.0) == 1024
    for _ in range(50):
        assert run(0.002) == 1024
    assert [run(6.0), run(6.0)] == [1024, 1024]
    assert run(6.0) == 4


def test_the_least_urgent_is_refused_first() -> None:
    room = Room.of(100)
    assert [room.for_urgency(urgency) for urgency in (0, 2, 3, 4, 7)] == [100, 100, 90, 70, 70]


def test_urgency_is_read_as_rfc_9218_says() -> None:
    assert read_urgency(None) == 3
    assert read_urgency({}) == 3
    assert read_urgency({b"priority": b"u=0"}) == 0
    assert read_urgency({b"priority": b"i, u=7"}) == 7
    for unreadable in (b"u=9", b"u=", b"u=12", b"urgent", b""):
        assert read_urgency({b"priority": unreadable}) == 3


def test_a_full_service_refuses_at_once_says_when_to_come_back_and_lets_the_urgent_in(packages, servers, kit) -> None:
    package = packages.linear("m1")
    route = kit.service(
        "m1", kit.backend(package), limits=Limits(deadline_ms=20_000), batching=Batching(max_wait_ms=4000.0)
    )
    server = servers.start(kit.table(route), max_in_flight=10)
    kit.until(server.is_ready)
    body = json.dumps(kit.question()).encode()
    statuses: list[tuple[str, int]] = []

    def ask(priority: str) -> None:
        with server.client() as client:
            headers = {"content-type": "application/json", "priority": priority}
            answer = client.post("/v2/models/m1/infer", content=body, headers=headers)
            statuses.append((priority, answer.status_code))

    waiting = [threading.Thread(target=ask, args=("u=3",)) for _ in range(9)]
    for thread in waiting:
        thread.start()
    kit.until(lambda: server.figures()['modelyard_inputs_in_flight{project="default",service="m1"}'] == 9)
    with server.client() as client:
        refused = client.post(
            "/v2/models/m1/infer", content=b"not even read", headers={"content-type": "application/json"}
        )
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    ask("u=6")
    ask("u=1")
    for thread in waiting:
        thread.join()
    assert ("u=6", 503) in statuses
    assert ("u=1", 200) in statuses
    assert statuses.count(("u=3", 200)) == 9
