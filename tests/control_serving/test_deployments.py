"""Services over HTTP with a real control plane and real model servers: deploy, update, fall back, take away."""

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from bundles import bundle
from control_driver import Control, eventually
from serving_driver import ROW, Serving


def test_a_deployed_model_answers_on_every_server_when_it_is_said_to_serve(serving: Serving) -> None:
    document = serving.deploy(name="first", model="m", version="1")
    assert (document["phase"], document["revision"], document["version"]) == ("serving", 1, "1")
    assert [row["state"] for row in document["servers"]] == ["ready", "ready"]
    for server in (0, 1):
        answer = serving.ask("first", server)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-model-version"] == "1"
        assert answer.headers["x-model-digest"] == document["digest"]
        assert answer.headers["x-revision"] == "1"
    with serving.client() as client:
        entries = client.get("/history", params={"limit": 500}).json()["items"]
        models = client.get("/nodes").json()["items"][0]["models"]
    live = [e for e in entries if e["action"] == "service.revision_live" and e["subject"] == "service/first"]
    assert [entry["payload"]["revision"] for entry in live] == [1]
    assert live[0]["payload"]["servers"] == ["server-0", "server-1"]
    assert "default/first:1" in models


def test_without_a_version_the_newest_approved_is_taken_and_said(serving: Serving) -> None:
    with serving.client() as client:
        document = client.post("/services", json={"name": "newest", "model": "m"}).json()
    assert (document["version"], document["chosen"]) == ("3", "newest approved")


def test_asking_twice_for_the_same_is_asking_once(serving: Serving) -> None:
    serving.deploy(name="same", model="m", version="1")
    document = serving.deploy(name="same", model="m", version="1")
    with serving.client() as client:
        put = client.put("/services/same", json={"model": "m", "version": "1"})
        listed = client.get("/services/same/revisions").json()["items"]
    assert put.status_code == 202
    assert document["revision"] == 1
    assert [row["revision"] for row in listed] == [1]


def test_an_update_loses_no_request_and_a_rollback_is_a_new_revision(serving: Serving) -> None:
    serving.deploy(name="updated", model="m", version="1")
    stop, answers = threading.Event(), []

    def keep_asking() -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not stop.is_set():
                answer = client.post(f"{serving.addresses[0]}/v2/models/updated/infer", json=ROW)
                answers.append((answer.status_code, answer.headers.get("x-revision")))

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        with serving.client() as client:
            changed = client.put("/services/updated", json={"model": "m", "version": "2", "why": "better"}).json()
            assert changed["phase"] == "updating"
        document = serving.settled("updated")
        assert (document["revision"], document["version"]) == (2, "2")
        with serving.client() as client:
            client.post("/services/updated/rollback", json={}).raise_for_status()
        document = serving.settled("updated")
        assert (document["revision"], document["version"]) == (3, "1")
        eventually(lambda: (200, "3") in answers)
    finally:
        stop.set()
        thread.join(30)
    assert {status for status, _ in answers} == {200}
    order = [revision for _, revision in answers]
    assert order == sorted(order)
    with serving.client() as client:
        rows = client.get("/services/updated/revisions").json()["items"]
    assert [(row["revision"], row["state"], row["by"]) for row in rows] == [
        (3, "live", "local"),
        (2, "superseded", "local"),
        (1, "superseded", "local"),
    ]
    assert rows[1]["why"] == "better"
    assert "back to revision 1" in rows[0]["why"]


def test_a_revision_that_cannot_be_loaded_gives_way_to_the_last_good_one(serving: Serving) -> None:
    with serving.client() as client:
        good = client.post("/models/half/versions", files=bundle(bias=11.0)).json()
        bad = client.post("/models/half/versions", files=bundle(bias=12.0)).json()
    package = serving.control.data / "packages" / bad["digest"].removeprefix("sha256:")
    (package / "model.onnx").write_bytes(b"no longer a model")
    serving.deploy(name="half", model="half", version="1")
    with serving.client() as client:
        client.put("/services/half", json={"model": "half", "version": "2"}).raise_for_status()
    document = serving.settled("half")
    assert (document["phase"], document["revision"], document["goal"]) == ("serving", 1, 2)
    assert document["digest"] == good["digest"]
    assert "revision 2 did not become ready" in document["problem"]
    assert serving.ask("half").headers["x-revision"] == "1"
    with serving.client() as client:
        client.put("/services/half", json={"model": "half", "version": "1"}).raise_for_status()
    assert serving.settled("half")["problem"] is None
    with serving.client() as client:
        again = client.put("/services/half", json={"model": "half", "version": "2"})
        assert (again.status_code, again.json()["code"]) == (409, "conflict")
        states = [row["state"] for row in client.get("/services/half/revisions").json()["items"]]
    assert states == ["live", "failed", "superseded"]


def test_a_device_is_taken_literally_and_shown(serving: Serving) -> None:
    document = serving.deploy(name="placed", model="m", version="1", device="cpu")
    assert [row["device"] for row in document["servers"]] == ["cpu", "cpu"]
    with serving.client() as client:
        absent = client.put("/services/placed", json={"model": "m", "version": "1", "device": "cuda:9"})
        refused = client.put("/services/placed", json={"model": "m", "version": "1", "device": "quantum"})
    assert absent.status_code in {409, 422, 501}, absent.text
    assert "cuda:9" in absent.json()["detail"]
    assert refused.status_code == 422
    assert serving.ask("placed").headers["x-revision"] == "1"


def test_a_service_that_is_taken_away_answers_no_more_and_its_name_is_free(serving: Serving) -> None:
    serving.deploy(name="gone", model="m", version="1")
    with serving.client() as client:
        assert client.delete("/services/gone").status_code == 202
        eventually(lambda: client.get("/services/gone").status_code == 404)
    assert serving.ask("gone").status_code == 404
    document = serving.deploy(name="gone", model="m", version="2")
    assert document["revision"] == 2


def test_a_version_in_use_is_not_deleted(serving: Serving) -> None:
    serving.deploy(name="user", model="m", version="1")
    with serving.client() as client:
        client.post("/models/m/versions/1/archive", json={})
        answer = client.delete("/models/m/versions/1")
        client.post("/models/m/versions/1/restore", json={})
    assert answer.status_code == 409
    assert "service" in answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "x", "model": "nobody"}, 404),
        ({"name": "x", "model": "m", "version": "99"}, 404),
        ({"name": "x", "model": "m", "version": "1", "alias": "a"}, 422),
        ({"name": "x", "model": "m", "replicas": {"min": 3, "max": 2}}, 422),
        ({"name": "x", "model": "m", "target": "moon"}, 501),
        ({"name": "No", "model": "m"}, 422),
        ({"name": "x", "model": "m", "project": "nowhere"}, 404),
        ({"name": "x", "model": "m", "wrong": 1}, 422),
    ],
)
def test_a_wish_that_cannot_be_fulfilled_is_refused_with_a_hint(
    serving: Serving, body: dict[str, Any], status: int
) -> None:
    with serving.client() as client:
        answer = client.post("/services", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["hint"]


def test_a_change_on_an_older_reading_is_refused(serving: Serving) -> None:
    serving.deploy(name="read", model="m", version="1")
    with serving.client() as client:
        read = client.get("/services/read").headers["etag"]
        first = client.put("/services/read", json={"model": "m", "version": "2"}, headers={"if-match": read})
        second = client.put("/services/read", json={"model": "m", "version": "3"}, headers={"if-match": read})
    assert (first.status_code, second.status_code) == (202, 412)


def test_models_of_another_project_get_a_process_of_their_own(serving: Serving) -> None:
    with serving.client() as client:
        client.post("/projects", json={"name": "team"}).raise_for_status()
        client.post("/models/m/versions", params={"project": "team"}, files=bundle()).raise_for_status()
        refused = client.post("/services", json={"name": "m", "model": "m", "project": "team", "isolation": "shared"})
        made = client.post("/services", json={"name": "m", "model": "m", "project": "team"})
        assert refused.status_code == 422
        assert made.json()["spec"]["isolation"] == "process"
        assert made.json()["url"].endswith("/p/team/v2/models/m")
        client.delete("/services/m", params={"project": "team"})


def test_the_control_plane_may_be_killed_while_predictions_go_on_and_finds_its_services_again(
    serving: Serving,
) -> None:
    serving.deploy(name="kept", model="m", version="1")
    with serving.client() as client:
        client.put("/services/kept", json={"model": "m", "version": "2"}).raise_for_status()
    serving.control.kill()
    assert serving.ask("kept").status_code == 200
    serving.control.start()
    document = serving.settled("kept")
    assert (document["revision"], document["version"]) == (2, "2")
    assert serving.ask("kept", 1).headers["x-revision"] == "2"


@pytest.mark.slow
def test_a_revoked_key_leaves_the_table_within_five_seconds(tmp_path: Path) -> None:
    control = Control(tmp_path / "data", options={"auth": "required"}).start()
    try:
        token = (control.data / "bootstrap.token").read_text().strip()
        with control.client() as client:
            admin = client.post("/keys/bootstrap", json={"token": token}).raise_for_status().json()["key"]
        transport = httpx.HTTPTransport(uds=str(control.internal_socket))
        internal = httpx.Client(transport=transport, base_url="http://localhost", timeout=30)
        with control.client(headers={"authorization": f"Bearer {admin}"}) as client, internal:
            made = client.post("/keys", json={"name": "k", "scopes": ["infer"]}).json()
            eventually(lambda: made["id"] in internal.get("/internal/v1/table").text, within_s=5)
            table = internal.get("/internal/v1/table").json()
            client.delete(f"/keys/{made['id']}").raise_for_status()
            began = time.monotonic()
            after = internal.get("/internal/v1/table", params={"after": table["revision"], "wait_s": 10})
            assert after.status_code == 200
            assert made["id"] not in [key["id"] for key in after.json()["keys"]]
            assert time.monotonic() - began < 5
            same = internal.get("/internal/v1/table", params={"after": after.json()["revision"]})
            assert same.status_code == 304
    finally:
        control.stop()
