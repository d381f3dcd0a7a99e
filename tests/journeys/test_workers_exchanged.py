"""Isolated workers of a real platform, exchanged one by one under predictions, and taken back while they are warm."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from modelyard.client import Client, calls
from modelyard.foundation.supervision.adoption import read_left
from modelyard.testing.platform import Platform, running_platform, wait_until

sys.path.insert(0, str(Path(__file__).parents[1] / "control_serving"))

from bundles import bundle

pytestmark = [pytest.mark.platform, pytest.mark.slow]
ROW = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0.0, 0.5, 0.0]}]}


def workers(platform: Platform) -> dict[str, int]:
    """Process ids of isolated workers, by `revision.index`."""
    left = read_left(platform.places.run / "children.json")
    return {
        ".".join(entry.name.rsplit(".", 2)[-2:]): entry.pid
        for entry in left
        if entry.name.startswith("model-worker default.crew.")
    }


@contextmanager
def asked(url: str) -> Iterator[list[tuple[int, str | None]]]:
    """Predictions one after the other for as long as this lasts: status and version of each."""
    over, answers = threading.Event(), []

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            while not over.is_set():
                answer = client.post(f"{url}/infer", json=ROW)
                answers.append((answer.status_code, answer.headers.get("x-model-version")))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def upload(client: Client, bias: float) -> None:
    url = f"{client.connection.url}/api/v1/models/crew/versions"
    client.request("POST", url, files=bundle(bias=bias))


def test_workers_are_exchanged_without_a_failed_prediction_and_come_back_without_a_load(tmp_path: Path) -> None:
    with running_platform(tmp_path) as platform, platform.client() as client:
        upload(client, 1.0)
        upload(client, 2.0)
        surge = {"max_surge": 1}
        info = client.deploy("crew:1", isolation="process", replicas=2, rollout=surge).info
        before = workers(platform)
        assert sorted(before) == ["1.0", "1.1"]
        with asked(info.url) as answers:
            client.deploy("crew:2", rollout=surge)
            wait_until(lambda: ("200", "2") in {(str(status), version) for status, version in answers}, limit_s=60)
            wait_until(lambda: set(workers(platform)) == {"1.0", "2.0", "2.1"}, limit_s=120, what="one warm worker")
            assert workers(platform)["1.0"] == before["1.0"]
            back = client.wait(client.rollback("crew", why="slower"), timeout_s=240)
            assert (back.version, back.phase) == ("1", "serving")
            wait_until(lambda: workers(platform).get("1.0") == before["1.0"] and "1.1" in workers(platform))
        assert {status for status, _ in answers} == {200}
        kept = workers(platform)
        scaled = client.wait(client.send(calls.deploy({"name": "crew", "replicas": 1})), timeout_s=240)
        assert scaled.phase == "serving"
        wait_until(lambda: [each for each in workers(platform) if each.startswith("1.")] == ["1.0"], limit_s=120)
        assert workers(platform)["1.0"] == kept["1.0"]


def test_a_canary_of_workers_comes_back_to_the_very_same_processes(tmp_path: Path) -> None:
    with running_platform(tmp_path) as platform, platform.client() as client:
        upload(client, 1.0)
        upload(client, 2.0)
        canary = {"strategy": "canary", "steps": [30], "guard": "off"}
        info = client.deploy("crew:1", isolation="process", replicas=2).info
        before = workers(platform)
        with asked(info.url) as answers:
            client.deploy("crew:2", rollout=canary)
            wait_until(lambda: len({version for _, version in answers}) > 1, limit_s=60, what="both versions")
            client.wait(client.promote("crew"), timeout_s=240)
            assert set(workers(platform)) == {"1.0", "1.1", "2.0", "2.1"}
            client.wait(client.rollback("crew"), timeout_s=240)
            wait_until(lambda: answers[-1][1] == "1", limit_s=60, what="the old version again")
        assert {status for status, _ in answers} == {200}
        now = workers(platform)
        assert {name: now[name] for name in before} == before
