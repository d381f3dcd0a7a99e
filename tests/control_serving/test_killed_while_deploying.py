"""The control plane killed at every step of a change and of a pass: it goes on or goes back, never a third state.

Predictions are asked all the while, of servers that outlive it; none fails.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from control_driver import Control, eventually
from serving_driver import ROW, Serving, serving_in

from modelyard.control.deployments import STEPS

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving_in(tmp_path_factory.mktemp("killed")) as running:
        yield running


@contextmanager
def dying(control: Control, step: str, armed: Path) -> Iterator[None]:
    """A control plane that dies at `step` from now on, and lives again afterwards."""
    control.stop()
    control.module = "dying_control"
    control.environment = {"DIE_AT": step, "ARMED": str(armed), "PYTHONPATH": str(HERE)}
    control.start()
    armed.touch()
    try:
        yield
        assert control.process is not None
        assert control.process.wait(180) == -9
    finally:
        armed.unlink()
        control.stop()
        control.module, control.environment = "modelyard.processes.control_plane", {}
        control.start()


@contextmanager
def asking(serving: Serving, name: str) -> Iterator[list[tuple[int, str | None]]]:
    """Predictions one after the other, on both servers, for as long as this lasts."""
    over, answers = threading.Event(), []

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            while not over.is_set():
                url = f"{serving.addresses[len(answers) % 2]}/v2/models/{name}/infer"
                answer = client.post(url, json=ROW)
                answers.append((answer.status_code, answer.headers.get("x-model-version")))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join(60)


def change(control: Control, method: str, path: str, body: dict[str, Any] | None = None) -> None:
    """Ask for something; the answer may be lost with the process."""
    try:
        with control.client() as client:
            client.request(method, path, json=body).raise_for_status()
    except httpx.TransportError:
        pass


def settled(serving: Serving, name: str) -> dict[str, Any]:
    document: dict[str, Any] = {}

    def it_is() -> bool:
        nonlocal document
        with serving.client() as client:
            document = client.get(f"/services/{name}").raise_for_status().json()
        acknowledged = next(each for each in document["conditions"] if each["type"] == "Acknowledged")
        return document["phase"] in ("serving", "canary") and bool(acknowledged["status"])

    eventually(it_is, within_s=180)
    return document


def whole(serving: Serving, name: str) -> dict[str, Any]:
    """The service, when records, servers and history agree about what is live."""
    document = settled(serving, name)
    live = str(document["live"])
    if document["phase"] == "serving":
        for server in (0, 1):
            assert serving.ask(name, server).headers["x-revision"] == live
    with serving.client() as client:
        rows = client.get(f"/services/{name}/revisions").json()["items"]
        entries = client.get("/history", params={"limit": 500}).json()["items"]
    assert [row["revision"] for row in rows if row["state"] == "live"] == [document["live"]]
    switched = [
        entry["payload"]["revision"]
        for entry in entries
        if (entry["action"], entry["subject"]) == ("service.revision_live", f"service/{name}")
    ]
    assert switched[0] == document["live"]
    assert len(switched) == len(set(switched))
    return document


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_of_an_update_it_is_the_old_or_the_new_and_no_prediction_fails(
    serving: Serving, tmp_path: Path, step: str
) -> None:
    name = step.replace(".", "-")
    serving.deploy(name=name, model="m", version="1")
    settled(serving, name)
    with asking(serving, name) as answers:
        with dying(serving.control, step, tmp_path / "armed"):
            change(serving.control, "PUT", f"/services/{name}", {"model": "m", "version": "2"})
        document = whole(serving, name)
        asked = step != "change.written"
        assert (document["live"], document["version"], document["goal"]) == ((2, "2", 2) if asked else (1, "1", 1))
    assert {status for status, _ in answers} == {200}
    for server in (0, 1):  # each goes over once; one may be before the other
        versions = [str(version) for _, version in answers[server::2]]
        assert versions == sorted(versions)


@pytest.mark.parametrize("step", ["change.written", "change.committed", "reconcile.written", "reconcile.committed"])
def test_killed_while_a_canary_is_given_up_it_is_given_up_or_still_there(
    serving: Serving, tmp_path: Path, step: str
) -> None:
    name = "canary-" + step.replace(".", "-")
    serving.deploy(name=name, model="m", version="1")
    with serving.client() as client:
        body = {"model": "m", "version": "2", "rollout": {"strategy": "canary", "steps": [30]}}
        client.put(f"/services/{name}", json=body).raise_for_status()
    eventually(lambda: settled(serving, name)["phase"] == "canary")
    with asking(serving, name) as answers:
        with dying(serving.control, step, tmp_path / "armed"):
            change(serving.control, "POST", f"/services/{name}/rollout/abort", {"why": "wrong"})
        document = whole(serving, name)
        given_up = step != "change.written"
        assert (document["phase"], document["live"]) == (("serving" if given_up else "canary"), 1)
        assert ("wrong" in str(document["problem"])) is given_up
    assert {status for status, _ in answers} == {200}


@pytest.mark.parametrize("step", ["change.written", "change.committed", "reconcile.committed"])
def test_killed_while_manifests_are_applied_all_or_none_are(serving: Serving, tmp_path: Path, step: str) -> None:
    names = [f"{each}-{step.replace('.', '-')}" for each in ("first", "second")]
    documents = [
        {
            "apiVersion": "modelyard.io/v1",
            "kind": "ModelService",
            "metadata": {"name": name},
            "spec": {"model": "m:3"},
        }
        for name in names
    ]
    with dying(serving.control, step, tmp_path / "armed"):
        change(serving.control, "POST", "/manifests/apply", {"documents": documents})
    with serving.client() as client:
        found = [client.get(f"/services/{name}").status_code for name in names]
    assert found == ([404, 404] if step == "change.written" else [200, 200])
    if found == [200, 200]:
        assert [whole(serving, name)["version"] for name in names] == ["3", "3"]
