"""Manifests over HTTP, with a real control plane and two real model servers: planned, applied, applied again."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from bundles import bundle
from control_driver import eventually
from serving_driver import Serving, serving_in

Document = dict[str, Any]
CANARY = {"strategy": "canary", "steps": [20]}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    place = tmp_path_factory.mktemp("manifests")
    settings = place / "settings.yaml"
    settings.write_text("targets: {staging: {kind: local}}\n")
    with serving_in(place, settings=str(settings)) as running:
        yield running


def manifest(name: str, model: str = "m:1", **spec: Any) -> Document:
    return {
        "apiVersion": "modelyard.io/v1",
        "kind": "ModelService",
        "metadata": {"name": name},
        "spec": {"model": model, **spec},
    }


ELSEWHERE = {
    **manifest("x"),
    "spec": {
        "upstream": {"protocol": "v2", "url": "http://127.0.0.1:9", "model": "m"},
        "rollout": {"strategy": "canary", "guard": "auto"},
    },
}
"""What a server elsewhere answers, the guard cannot compare."""


def send(serving: Serving, action: str, *documents: Document, **more: Any) -> httpx.Response:
    with serving.client() as client:
        return client.post(f"/manifests/{action}", json={"documents": list(documents), **more})


def actions(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [service["action"] for service in answer.json()["services"]]


def stands(serving: Serving, name: str, phase: str = "serving") -> Document:
    document: Document = {}

    def it_does() -> bool:
        nonlocal document
        with serving.client() as client:
            document = client.get(f"/services/{name}").raise_for_status().json()
        return document["phase"] == phase and all(
            each["status"] for each in document["conditions"] if each["type"] == "Acknowledged"
        )

    eventually(it_does)
    return document


def post(serving: Serving, path: str, **body: Any) -> None:
    with serving.client() as client:
        client.post(path, json=body).raise_for_status()


def revisions(serving: Serving, name: str) -> list[int]:
    with serving.client() as client:
        return [row["revision"] for row in client.get(f"/services/{name}/revisions").json()["items"]]


def test_the_plan_that_is_shown_is_the_plan_that_is_carried_out(serving: Serving) -> None:
    documents = [manifest("one"), manifest("two", "m:2", target="staging")]
    planned = send(serving, "plan", *documents)
    assert actions(planned) == ["create", "create"]
    assert planned.json()["has_changes"] is True
    with serving.client() as client:
        assert client.get("/services/one").status_code == 404
    applied = send(serving, "apply", *documents, fingerprint=planned.json()["fingerprint"])
    assert applied.json() == planned.json()
    assert (stands(serving, "one")["version"], stands(serving, "two")["version"]) == ("1", "2")
    again = send(serving, "apply", *documents)
    assert (actions(again), again.json()["has_changes"]) == (["unchanged", "unchanged"], False)
    assert revisions(serving, "one") == [1]


def test_a_difference_is_told_by_field_without_what_the_platform_decides(serving: Serving) -> None:
    send(serving, "apply", manifest("differs")).raise_for_status()
    stands(serving, "differs")
    changed = manifest("differs", "m:2", limits={"deadline_ms": 50}, rollout=CANARY)
    planned = send(serving, "plan", changed).json()["services"][0]
    assert planned["action"] == "change"
    assert planned["way"] == "a canary with 20 % of the traffic, guard watch"
    assert {each["path"]: (each["before"], each["after"]) for each in planned["changes"]} == {
        "spec.model": ("m:1", "m:2"),
        "spec.limits.deadline_ms": (None, 50),
        "spec.rollout.strategy": (None, "canary"),
        "spec.rollout.steps": (None, [20]),
    }


def test_applying_again_after_a_promotion_changes_nothing(serving: Serving) -> None:
    send(serving, "apply", manifest("promoted")).raise_for_status()
    stands(serving, "promoted")
    wanted = manifest("promoted", "m:2", rollout=CANARY)
    assert actions(send(serving, "apply", wanted)) == ["change"]
    stands(serving, "promoted", "canary")
    assert actions(send(serving, "apply", wanted)) == ["unchanged"]
    assert stands(serving, "promoted", "canary")["rollout"]["weight"] == 20
    post(serving, "/services/promoted/rollout/promote")
    stands(serving, "promoted")
    assert actions(send(serving, "apply", wanted)) == ["unchanged"]
    assert revisions(serving, "promoted") == [2, 1]


def test_applying_again_after_a_rollback_changes_nothing_until_the_spec_does(serving: Serving) -> None:
    first, wanted = manifest("back"), manifest("back", "m:2")
    send(serving, "apply", first).raise_for_status()
    stands(serving, "back")
    send(serving, "apply", wanted).raise_for_status()
    stands(serving, "back")
    post(serving, "/services/back/rollback", why="wrong")
    stands(serving, "back")
    for action in ("plan", "apply"):
        held = send(serving, action, wanted).json()
        assert (held["services"][0]["action"], held["has_changes"]) == ("held", False)
        assert "wrong" in held["services"][0]["reason"]
    assert revisions(serving, "back") == [3, 2, 1]
    assert actions(send(serving, "apply", manifest("back", "m:2", limits={"deadline_ms": 9}))) == ["held"]
    assert actions(send(serving, "apply", first)) == ["unchanged"]
    assert actions(send(serving, "apply", manifest("back", "m:3"))) == ["change"]
    stands(serving, "back")
    assert actions(send(serving, "apply", wanted, retry=True)) == ["change"]
    assert stands(serving, "back")["version"] == "2"


def test_applying_again_after_limits_were_rolled_back_changes_nothing(serving: Serving) -> None:
    send(serving, "apply", manifest("limits")).raise_for_status()
    stands(serving, "limits")
    wanted = manifest("limits", limits={"max_in_flight": 3})
    send(serving, "apply", wanted).raise_for_status()
    stands(serving, "limits")
    post(serving, "/services/limits/rollback")
    stands(serving, "limits")
    assert actions(send(serving, "apply", wanted)) == ["held"]
    assert actions(send(serving, "apply", wanted, retry=True)) == ["change"]


def test_a_canary_that_was_given_up_stays_so(serving: Serving) -> None:
    send(serving, "apply", manifest("given-up")).raise_for_status()
    stands(serving, "given-up")
    wanted = manifest("given-up", "m:2", rollout=CANARY)
    send(serving, "apply", wanted).raise_for_status()
    stands(serving, "given-up", "canary")
    post(serving, "/services/given-up/rollout/abort", why="slow")
    stands(serving, "given-up")
    assert actions(send(serving, "apply", wanted)) == ["held"]
    assert revisions(serving, "given-up") == [2, 1]


def test_an_alias_is_resolved_once_and_followed_when_asked(serving: Serving) -> None:
    with serving.client() as client:
        for number in (1, 2):
            client.post("/models/aliased/versions", files=bundle(bias=20.0 + number)).raise_for_status()
        client.put("/models/aliased/aliases/best", json={"version": "1"}).raise_for_status()
    fixed, following = manifest("fixed", "aliased@best"), manifest("following", "aliased@best", follow=True)
    send(serving, "apply", fixed, following).raise_for_status()
    assert stands(serving, "following")["version"] == "1"
    with serving.client() as client:
        client.put("/models/aliased/aliases/best", json={"version": "2"}).raise_for_status()
    eventually(lambda: stands(serving, "following")["version"] == "2")
    assert stands(serving, "fixed")["version"] == "1"
    planned = send(serving, "plan", fixed, following)
    assert actions(planned) == ["change", "unchanged"]
    assert planned.json()["services"][0]["changes"] == [
        {"path": "spec.model", "before": "aliased@best (version 1)", "after": "aliased@best (version 2)"}
    ]
    with serving.client() as client:
        rows = client.get("/services/following/revisions").json()["items"]
    assert (rows[0]["by"], rows[0]["why"]) == ("alias-follower", "the alias best points at 2 now")
    post(serving, "/services/following/rollback")
    stands(serving, "following")
    assert actions(send(serving, "apply", following)) == ["held"]
    assert stands(serving, "following")["version"] == "1"


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (manifest("x", "m:99"), "spec.model"),
        (manifest("x", "nobody"), "spec.model"),
        (manifest("x", "m@nowhere"), "spec.model"),
        (manifest("x", target="moon"), "spec.target"),
        (manifest("x", replicas={"min": 3, "max": 2}), "spec.replicas"),
        (manifest("x", resources={"memory": "32Mi"}, isolation="process"), "spec.resources.memory"),
        (manifest("x", resources={"memory": "900000Gi"}), "spec.resources.memory"),
        (manifest("x", resources={"cpu": 0.5}), "spec.resources.cpu"),
        (manifest("x", resources={"cpu": 100_000}, isolation="process"), "spec.resources.cpu"),
        (manifest("x", resources={"device": "cuda"}), "spec.resources.device"),
        (manifest("x", env={"TOKEN": {"secret": "t"}}), "spec.env"),
        (manifest("x", env={"TOKEN": {"secret": "t"}}, isolation="process"), "spec.env"),
        (manifest("x", shadow={"model": "m:98"}), "spec.shadow.model"),
        (manifest("x", shadow={"model": "m:1"}), "spec.shadow.model"),
        (manifest("x", rollout={"strategy": "canary", "steps": [50, 10]}), "spec.rollout.steps[1]"),
        (manifest("x", rollout={"max_surge": 0}, isolation="process"), "spec.rollout.max_surge"),
        (ELSEWHERE, "spec.rollout.guard"),
        (manifest("x", rollout={"strategy": "canary", "margins": {"errors": 2}}), "spec.rollout.margins.errors"),
        (
            manifest("x", rollout={"strategy": "canary", "watch": ["errors"], "margins": {"latency": 1}}),
            "spec.rollout.margins.latency",
        ),
        ({**manifest("x"), "metadata": {"name": "x", "project": "nowhere"}}, "metadata.project"),
    ],
)
def test_what_cannot_be_is_refused_at_plan_and_nothing_of_the_call_is_applied(
    serving: Serving, document: Document, path: str
) -> None:
    for action in ("plan", "apply"):
        answer = send(serving, action, manifest("beside"), document)
        assert answer.status_code == 422, answer.text
        problem = answer.json()
        assert [(row["document"], row["field"]) for row in problem["details"]] == [(1, path)]
        assert problem["details"][0]["expected"]
        assert problem["hint"]
    with serving.client() as client:
        assert client.get("/services/beside").status_code == 404


def test_a_shared_service_takes_the_whole_manifest_and_the_plan_says_what_its_fields_mean(serving: Serving) -> None:
    whole = manifest(
        "whole",
        replicas={"min": 1, "max": 4, "target_in_flight": 8},
        resources={"cpu": 1, "memory": "512Mi", "device": "auto"},
        isolation="shared",
        batching={"max_size": 64, "max_wait_ms": 2},
        limits={"requests_per_s": 500, "deadline_ms": 1000, "max_in_flight": 256},
        rollout={
            "strategy": "canary",
            "steps": [10, 50],
            "guard": "auto",
            "watch": ["errors", "latency", "predictions"],
        },
        slo={"latency_p99_ms": 50, "availability": 99.9, "window": "30d"},
    )
    planned = send(serving, "plan", whole).json()["services"][0]
    assert [note.split(":")[0] for note in planned["notes"]] == ["replicas", "resources.memory", "resources.cpu"]
    assert actions(send(serving, "apply", whole)) == ["create"]
    assert stands(serving, "whole")["version"] == "1"
    assert actions(send(serving, "plan", whole)) == ["unchanged"]
    isolated = manifest("apart", isolation="process", replicas=2, resources={"cpu": 1, "memory": "512Mi"})
    assert send(serving, "plan", isolated).json()["services"][0]["notes"] == []


def test_a_plan_that_has_changed_is_not_applied(serving: Serving) -> None:
    shown = send(serving, "plan", manifest("late")).json()["fingerprint"]
    send(serving, "apply", manifest("late", "m:2")).raise_for_status()
    answer = send(serving, "apply", manifest("late"), fingerprint=shown)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_what_is_exported_is_what_apply_reads(serving: Serving) -> None:
    wanted = manifest(
        "exported", "m:2", limits={"deadline_ms": 70}, shadow={"model": "m:3", "percent": 5}, follow=False
    )
    send(serving, "apply", wanted).raise_for_status()
    stands(serving, "exported")
    with serving.client() as client:
        found = client.get("/manifests").json()["items"]
    mine = next(each for each in found if each["metadata"]["name"] == "exported")
    assert mine["spec"] == {
        "model": "m:2",
        "target": "local",
        "isolation": "shared",
        "limits": {"deadline_ms": 70},
        "shadow": {"model": "m:3", "percent": 5},
    }
    assert actions(send(serving, "plan", mine)) == ["unchanged"]
