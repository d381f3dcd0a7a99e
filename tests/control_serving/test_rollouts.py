"""Canaries, shadows and ways back over HTTP, with a real control plane and two real model servers."""

from collections import Counter
from typing import Any

import httpx
import pytest
from control_driver import eventually
from serving_driver import Serving

CANARY = {"strategy": "canary", "steps": [10, 50]}


def begin(serving: Serving, name: str, **rollout: object) -> dict[str, Any]:
    """A service with version 1, and version 2 as a canary with its first share."""
    serving.deploy(name=name, model="m", version="1")
    with serving.client() as client:
        body = {"model": "m", "version": "2", "rollout": {**CANARY, **rollout}}
        client.put(f"/services/{name}", json=body).raise_for_status()
    return settled(serving, name, "canary")


def settled(serving: Serving, name: str, phase: str) -> dict[str, Any]:
    document: dict[str, Any] = {}

    def is_settled() -> bool:
        nonlocal document
        with serving.client() as client:
            document = client.get(f"/services/{name}").raise_for_status().json()
        acknowledged = next(each for each in document["conditions"] if each["type"] == "Acknowledged")
        return document["phase"] == phase and bool(acknowledged["status"])

    eventually(is_settled)
    return document


def revisions_of(serving: Serving, name: str, asked: int) -> Counter[str]:
    answers = [serving.ask(name, index % 2) for index in range(asked)]
    assert {answer.status_code for answer in answers} == {200}
    return Counter(answer.headers["x-revision"] for answer in answers)


def actions(serving: Serving, name: str) -> list[dict[str, Any]]:
    with serving.client() as client:
        entries = client.get("/history", params={"limit": 500}).json()["items"]
    return [entry for entry in reversed(entries) if entry["subject"] == f"service/{name}"]


def shares_at(serving: Serving, name: str, moment: str) -> dict[str, int | None]:
    """Who answered at a moment, and for which share where there were several."""
    with serving.client() as client:
        live = client.get("/history", params={"service": name, "at": moment}).json()["live"]
    return {each["version"]: each.get("weight") for each in live}


def post(serving: Serving, path: str, **body: object) -> httpx.Response:
    with serving.client() as client:
        return client.post(f"/services/{path}", json=body)


def loads(document: dict[str, Any], version: str) -> dict[str, float]:
    """Seconds of the load of a version, by server: another load has other seconds."""
    return {row["server"]: row["load_s"] for row in document["servers"] if row["version"] == version}


def test_a_canary_gets_its_share_and_is_promoted_step_by_step(serving: Serving) -> None:
    document = begin(serving, "good")
    assert (document["live"], document["goal"], document["rollout"]["weight"]) == (1, 2, 10)
    assert 5 <= revisions_of(serving, "good", 200)["2"] <= 50, "a coin of one in ten"
    assert post(serving, "good/rollout/promote", to="next").status_code == 202
    settled(serving, "good", "canary")
    assert 60 <= revisions_of(serving, "good", 200)["2"] <= 140, "a coin of one in two"
    assert post(serving, "good/rollout/promote", why="it is better").status_code == 202
    document = settled(serving, "good", "serving")
    assert (document["live"], document["rollout"], document["problem"]) == (2, None, None)
    assert revisions_of(serving, "good", 10) == {"2": 10}
    done = actions(serving, "good")
    assert [entry["action"].removeprefix("service.") for entry in done][-6:] == [
        "rollout_begun",
        "split",
        "rollout_advanced",
        "split",
        "rollout_promoted",
        "revision_live",
    ]
    assert done[-2]["payload"]["reason"] == "promoted by local: it is better"
    assert [shares_at(serving, "good", entry["at"]) for entry in done[-5:]] == [
        {"1": 90, "2": 10},
        {"1": 90, "2": 10},
        {"1": 50, "2": 50},
        {"1": 50, "2": 50},
        {"2": None},
    ]


def test_an_aborted_canary_leaves_what_was_live_and_stays_rejected_until_somebody_lifts_it(serving: Serving) -> None:
    before = loads(begin(serving, "bad"), "1")
    assert post(serving, "bad/rollout/abort", why="wrong answers").status_code == 202
    document = settled(serving, "bad", "serving")
    assert (document["live"], document["goal"]) == (1, 2)
    assert "wrong answers" in document["problem"]
    assert revisions_of(serving, "bad", 10) == {"1": 10}
    assert loads(document, "1") == before
    done = [entry for entry in actions(serving, "bad") if entry["action"] in ("service.split", "service.revision_live")]
    assert [shares_at(serving, "bad", entry["at"]) for entry in done] == [{"1": None}, {"1": 90, "2": 10}, {"1": 100}]
    with serving.client() as client:
        rejected = client.get("/services/bad/rollout").json()["rejected"]
        body = {"model": "m", "version": "2"}
        again = client.put("/services/bad", json=body)
        lifted = client.put("/services/bad", json={**body, "retry": True, "rollout": CANARY})
    assert rejected == [{"digest": rejected[0]["digest"], "reason": "aborted by local: wrong answers"}]
    assert (again.status_code, lifted.status_code) == (409, 202)
    assert "wrong answers" in again.json()["detail"]
    document = settled(serving, "bad", "canary")
    assert (document["rollout"]["revision"], document["problem"]) == (3, None)


def test_a_rollback_while_the_old_revision_is_warm_loads_nothing(serving: Serving) -> None:
    first = serving.deploy(name="warm", model="m", version="1")
    serving.deploy(name="warm", model="m", version="2")
    document = settled(serving, "warm", "serving")
    assert [each["revision"] for each in document["warm"]] == [1]
    assert loads(document, "1") == loads(first, "1")
    assert post(serving, "warm/rollback", why="slower").status_code == 202
    document = settled(serving, "warm", "serving")
    assert (document["live"], document["version"]) == (3, "1")
    assert revisions_of(serving, "warm", 6) == {"3": 6}
    assert loads(document, "1") == loads(first, "1")
    with serving.client() as client:
        assert client.put("/services/warm", json={"model": "m", "version": "2"}).status_code == 409
        assert client.get("/services/warm").json()["goal"] == 3


def test_a_second_rollback_goes_further_back_and_not_to_what_was_left(serving: Serving) -> None:
    for version in ("1", "2", "3"):
        serving.deploy(name="thrice", model="m", version=version)
        settled(serving, "thrice", "serving")
    found = []
    for _ in range(2):
        assert post(serving, "thrice/rollback").status_code == 202
        found.append(settled(serving, "thrice", "serving")["version"])
    assert found == ["2", "1"]
    refused = post(serving, "thrice/rollback")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert post(serving, "thrice/rollback", revision=3).status_code == 202
    assert settled(serving, "thrice", "serving")["version"] == "3"


def test_a_rollback_of_a_canary_gives_it_up(serving: Serving) -> None:
    begin(serving, "halfway")
    assert post(serving, "halfway/rollback").status_code == 202
    document = settled(serving, "halfway", "serving")
    assert (document["live"], document["version"]) == (1, "1")
    with serving.client() as client:
        states = [row["state"] for row in client.get("/services/halfway/revisions").json()["items"]]
    assert states == ["failed", "live"]


def test_the_clock_promotes_a_canary_without_a_guard(serving: Serving) -> None:
    begin(serving, "clocked", guard="off", step_s=1.0)
    assert settled(serving, "clocked", "serving")["live"] == 2


def test_a_shadow_is_loaded_and_gets_no_answer_to_give(serving: Serving) -> None:
    serving.deploy(name="shady", model="m", version="1")
    with serving.client() as client:
        changed = client.post("/services", json={"name": "shady", "shadow": {"version": "3", "percent": 50}})
        assert changed.status_code == 202, changed.text
    document = settled(serving, "shady", "serving")
    assert (document["version"], document["spec"]["shadow"]["version"]) == ("1", "3")
    assert revisions_of(serving, "shady", 10) == {"2": 10}
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(serving.control.internal_socket))) as internal:
        table = internal.get("http://localhost/internal/v1/table").json()
    route = next(each for each in table["services"] if each["name"] == "shady")
    shadows = [(each["version"], each["weight"], each["shadow_percent"]) for each in route["backends"]]
    assert ("3", 0, 50) in shadows
    with serving.client() as client:
        needed = client.post("/models/m/versions/3/archive", json={})
        assert (needed.status_code, "service shady" in needed.text) == (409, True)
        client.post("/services", json={"name": "shady", "shadow": {"percent": 0}}).raise_for_status()
    assert settled(serving, "shady", "serving")["spec"]["shadow"] is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"rollout": {"strategy": "canary", "steps": [50, 10]}}, "rollout.steps[1]"),
        ({"rollout": {"strategy": "canary", "steps": [0, 10]}}, "rollout.steps[0]"),
        ({"rollout": {"steps": [10]}}, "rollout.strategy"),
        ({"rollout": {"strategy": "canary", "guard": "auto", "step_s": 5}}, "rollout.step_s"),
        ({"rollout": {"strategy": "canary", "matches": [{}]}}, "rollout.matches[0]"),
        ({"rollout": {"max_surge": 0}, "isolation": "process"}, "rollout.max_surge"),
        ({"rollout": {"max_unavailable": 1}, "isolation": "process"}, "rollout.max_unavailable"),
        ({"shadow": {"version": "1"}}, "shadow"),
        ({"rollout": {"strategy": "sideways"}}, "strategy"),
    ],
)
def test_a_way_that_leads_nowhere_is_refused(serving: Serving, body: dict[str, Any], says: str) -> None:
    with serving.client() as client:
        answer = client.post("/services", json={"name": "refused", "model": "m", "version": "1", **body})
    assert answer.status_code == 422, answer.text
    assert says in answer.text
    assert answer.json()["hint"]


@pytest.mark.parametrize("move", ["promote", "abort"])
def test_what_is_not_on_its_way_is_not_moved(serving: Serving, move: str) -> None:
    serving.deploy(name="still", model="m", version="1")
    settled(serving, "still", "serving")
    answer = post(serving, f"still/rollout/{move}")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    with serving.client() as client:
        stale = client.post("/services/still/rollout/abort", json={"revision": 7})
    assert stale.status_code == 409
