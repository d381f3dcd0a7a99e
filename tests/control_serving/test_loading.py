"""Unload and load through a model server, decided by the control plane, obeyed by all servers; log settings too."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from control_driver import eventually
from serving_driver import Serving, serving_in
from test_deployment_plan import NOW, report, service

from modelyard.control.deployments.loading import standing
from modelyard.control.deployments.plan import choose_candidate, plan
from modelyard.control.deployments.routing import route_of
from modelyard.control.deployments.state import NEXT_TABLE, Status, Warm
from modelyard.control.deployments.steps import Observed
from modelyard.control.deployments.workers import replica_id
from modelyard.domain.contract import Isolation
from modelyard.domain.service import Phase
from modelyard.ports.orchestrator import Replica, ReplicaState


def post(serving: Serving, path: str, server: int = 0, **more: Any) -> httpx.Response:
    return httpx.post(serving.addresses[server] + path, timeout=90, trust_env=False, **more)


def index(serving: Serving, server: int) -> dict[str, tuple[str, str]]:
    rows = post(serving, "/v2/repository/index", server).json()
    return {row["name"]: (row["state"], row["reason"]) for row in rows}


def history(serving: Serving, subject: str) -> list[dict[str, Any]]:
    with serving.client() as client:
        entries = client.get("/history", params={"limit": 500}).json()["items"]
    return [entry for entry in entries if entry["subject"] == subject]


def test_an_unloaded_service_is_kept_and_held_nowhere_until_it_is_loaded(serving: Serving) -> None:
    serving.deploy(name="sleeper", model="m", version="1")
    assert post(serving, "/v2/repository/models/sleeper/unload").status_code == 200
    for server in (0, 1):
        assert index(serving, server)["sleeper"] == ("UNAVAILABLE", "unloaded")
        answer = serving.ask("sleeper", server)
        assert answer.status_code == 503
        assert "load" in answer.json()["hint"]
        ready = httpx.get(serving.addresses[server] + "/v2/health/ready", trust_env=False)
        assert ready.status_code == 200, "a model that is not wanted does not make the server unready"
    with serving.client() as client:
        document = client.get("/services/sleeper").json()
    assert (document["loaded"], document["phase"], document["live"]) == (False, "serving", 1)
    assert post(serving, "/v2/repository/models/sleeper/unload", 1).status_code == 200  # it is so already
    assert post(serving, "/v2/repository/models/sleeper/load", 1).status_code == 200
    for server in (0, 1):
        assert index(serving, server)["sleeper"] == ("READY", "")
        assert serving.ask("sleeper", server).headers["x-revision"] == "1"
    changes = [entry for entry in history(serving, "service/sleeper") if "load" in entry["action"]]
    assert sorted(entry["action"] for entry in changes) == ["service.loaded", "service.unloaded"]
    with serving.client() as client:
        assert len(client.get("/services/sleeper/revisions").json()["items"]) == 1


def test_deploying_another_version_loads_as_well(serving: Serving) -> None:
    serving.deploy(name="woken", model="m", version="1")
    assert post(serving, "/v2/repository/models/woken/unload").status_code == 200
    serving.deploy(name="woken", model="m", version="2")
    eventually(lambda: serving.ask("woken").headers.get("x-model-version") == "2")


def test_only_what_the_library_examined_is_loaded(serving: Serving) -> None:
    serving.deploy(name="strict", model="m", version="1")
    for parameters in ({"config": "{}"}, {"file:1/model.onnx": "AAAA"}):
        answer = post(serving, "/v2/repository/models/strict/load", json={"parameters": parameters})
        assert (answer.status_code, answer.json()["code"]) == (501, "not_supported")
    for body in (b"[]", b"{", b'{"x":1}', b'{"parameters":[]}', b'{"parameters":{"unload_dependents":true}}'):
        assert post(serving, "/v2/repository/models/strict/load", content=body).status_code == 400, body
    unload = post(serving, "/v2/repository/models/strict/unload", json={"parameters": {"unload_dependents": True}})
    assert unload.status_code == 200
    assert post(serving, "/v2/repository/models/nobody/load").status_code == 404


def test_what_is_logged_is_set_for_all_servers_and_kept(serving: Serving) -> None:
    def settings(server: int) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(serving.addresses[server] + "/v2/logging", trust_env=False).json()
        return found

    answer = post(serving, "/v2/logging", json={"log_verbose_level": 1, "log_info": False})
    assert answer.status_code == 200
    assert (answer.json()["log_verbose_level"], answer.json()["log_info"]) == (1, False)
    eventually(lambda: settings(1)["log_verbose_level"] == 1)
    assert post(serving, "/v2/logging", json={"log_verbose_level": 0, "log_info": True}).status_code == 200
    eventually(lambda: not settings(1)["log_verbose_level"] and settings(1)["log_info"])
    assert [entry["action"] for entry in history(serving, "platform/model-servers")] == ["logging.changed"] * 2


def test_without_the_control_plane_nothing_is_loaded_and_predictions_go_on(tmp_path: Path) -> None:
    with serving_in(tmp_path) as serving:
        serving.deploy(name="m1", model="m", version="1")
        serving.control.stop()
        for path in ("/v2/repository/models/m1/unload", "/v2/logging"):
            answer = post(serving, path, json={} if path.endswith("unload") else {"log_info": False})
            assert answer.status_code == 503
            assert "control plane" in answer.json()["error"]
        assert serving.ask("m1").status_code == 200


# -- what is planned for workers of their own


ADDRESS = "/run/iris.sock"
WORKER = replica_id("default", "iris", 1, 0)


def isolated(**more: Any) -> Any:
    status = Status(goal=1, live=1, phase=Phase.SERVING, workers={"1": (ADDRESS,)}, **more)
    return service(status, Isolation.PROCESS)


def seen(*, with_worker: bool, table: int = 9) -> Observed:
    worker = Replica(id=WORKER, node="here", state=ReplicaState.READY, address=ADDRESS)
    return Observed(servers=(report("a", table, {1: "ready"}),), replicas={WORKER: worker} if with_worker else {})


def test_the_workers_of_an_unloaded_service_end_when_no_server_asks_them_any_more() -> None:
    asleep = isolated(unloaded=True, awaiting=12)
    made = plan(asleep, seen(with_worker=True, table=11), now=NOW)
    assert (made.start, made.stop, made.status.workers, made.status.awaiting) == ((), (), {}, NEXT_TABLE)
    told = replace(asleep, status=replace(made.status, awaiting=20))
    assert plan(told, seen(with_worker=True, table=19), now=NOW).stop == ()
    made = plan(told, seen(with_worker=True, table=20), now=NOW)
    assert (made.start, made.stop) == ((), (WORKER,))
    route = route_of(asleep, packages="/p")
    assert route is not None
    assert (route.loaded, [each.revision for each in route.backends]) == (False, [1])


def test_a_loaded_service_has_its_workers_started_and_is_held_when_they_are_there() -> None:
    awake = isolated()
    awake = replace(awake, status=replace(awake.status, workers={}))
    made = plan(awake, seen(with_worker=False), now=NOW)
    assert [each.id for each in made.start] == [WORKER]
    waiting = route_of(replace(awake, status=made.status), packages="/p")
    assert waiting is not None
    assert not waiting.loaded
    made = plan(awake, seen(with_worker=True), now=NOW)
    held = route_of(replace(awake, status=made.status), packages="/p")
    assert held is not None
    assert (held.loaded, held.backends[0].workers) == (True, (ADDRESS,))


def test_another_revision_loads_and_a_warm_one_is_let_go_when_it_is_unloaded() -> None:
    status = Status(goal=2, live=1, phase=Phase.SERVING, unloaded=True, warm=(Warm(revision=1, until=NOW + 60),))
    chosen, _ = choose_candidate(service(status), now=NOW)
    assert (chosen.status.candidate, chosen.status.unloaded) == (2, False)


@pytest.mark.parametrize(
    ("unloaded", "state", "table", "expected"),
    [
        (False, "ready", 5, (True, "")),
        (False, "ready", 4, (False, "")),
        (False, "loading", 5, (False, "")),
        (False, "failed", 5, (False, "no memory")),
        (True, "ready", 5, (False, "")),
        (True, "unloaded", 5, (True, "")),
        (True, None, 5, (True, "")),
    ],
)
def test_a_change_is_done_when_every_server_says_so(unloaded, state, table, expected) -> None:
    status = Status(goal=1, live=1, phase=Phase.SERVING, unloaded=unloaded)
    found = standing(service(status), (report("a", table, {} if state is None else {1: state}),), table=5)
    assert (found.done, found.failed) == expected
    assert not standing(service(status), (), table=5).done
