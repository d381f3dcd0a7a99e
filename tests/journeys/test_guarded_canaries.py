"""Canaries on a real platform: the guard rolls back what is quietly wrong and promotes what is good, by itself.

The terms are set so that few requests decide, and so that chance does not.
"""

import json
import os
import random
import signal
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from modelyard.client import Client, calls
from modelyard.domain.errors import ModelyardError
from modelyard.testing.platform import Platform, running_platform, wait_until

pytestmark = [pytest.mark.platform, pytest.mark.slow]

TERMS = """
guard:
  level: 0.001
  look_s: 0.1
  latency_tolerance: 5
  latency_floor_s: 1
  latency_margin: 10
  error_margin: 0.2
  prediction_tolerance: 0.05
  prediction_margin: 0.5
  least_requests: 60
"""
CANARY = {"strategy": "canary", "steps": [30, 60], "guard": "auto"}


def small_classifier(directory: Path, *, bias: float) -> Path:
    """A bundle: a linear model of three inputs and two classes; `bias` is for the first."""
    tensors = {
        "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]},
    }
    head = json.dumps(tensors).encode()
    config = {
        "format": "safetensors",
        "task": "classification",
        "num_labels": 2,
        "architecture": [{"linear": {"weight": "w", "bias": "b"}}],
        "input": {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
        "output": {"name": "y", "datatype": "FP32", "shape": [-1, 2]},
    }
    directory.mkdir()
    weights = struct.pack("<Q", len(head)) + head + struct.pack("<8f", 1, 0, 0, 0, 1, 0, bias, 0)
    (directory / "weights.safetensors").write_bytes(weights)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "labels.json").write_text(json.dumps({"0": "cat", "1": "dog"}))
    return directory


class Asking:
    """Clients that ask rows drawn at random, one request after the other, and keep status and revision of each."""

    def __init__(self, url: str, *, clients: int = 2, most: int = 1_000_000) -> None:
        self._url = url
        self._left = most
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(seed,), daemon=True) for seed in range(clients)]
        self.answers: list[tuple[int, str]] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.wait()

    def wait(self) -> None:
        """Until all that were to be asked are answered."""
        for thread in self._threads:
            thread.join(300)

    @property
    def statuses(self) -> Counter[int]:
        return Counter(status for status, _ in self.answers)

    def _ask(self, seed: int) -> None:
        chance = random.Random(seed)
        with httpx.Client(trust_env=False, timeout=60) as client:
            while not self._stop.is_set():
                with self._lock:
                    if self._left <= 0:
                        return
                    self._left -= 1
                row = [chance.gauss(0, 1) for _ in range(3)]
                body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": row}]}
                answer = client.post(self._url, json=body)
                self.answers.append((answer.status_code, answer.headers.get("x-revision", "")))


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with a model of three versions: the second is as good as the first, the third says cat too often."""
    place = tmp_path_factory.mktemp("canaries")
    terms = place / "settings.yaml"
    terms.write_text(TERMS)
    with running_platform(place, "--servers", "2", "--settings", str(terms)) as platform, platform.client() as client:
        for number, bias in enumerate((0.0, 0.001, 1.5)):
            client.upload(small_classifier(place / f"v{number}", bias=bias), name="pets")
        yield platform


def read(client: Client, *parts: str) -> dict[str, Any]:
    """A resource of the control API; empty when it is not there, or the control plane is not."""
    try:
        return client.send(calls.read(*parts))
    except ModelyardError:
        return {}


def evidence(client: Client, service: str) -> dict[str, Any]:
    return read(client, "services", service, "rollout", "evidence")


def entries(client: Client, service: str, action: str) -> list[dict[str, Any]]:
    found = client.send(calls.listing("history", subject=f"service/{service}", limit=200))
    return [entry for entry in found if entry["action"] == action]


def test_a_quietly_wrong_version_is_rolled_back_without_a_client_error(platform: Platform) -> None:
    with platform.client() as client:
        url = client.deploy("pets:1", service="wrong").info.url + "/infer"
        with Asking(url) as asking:
            client.deploy("pets:3", service="wrong", rollout=CANARY)
            wait_until(lambda: client.rollout("wrong")["rejected"], limit_s=200, what="the rollback")
            before = len(asking.answers)
            wait_until(lambda: len(asking.answers) > before + 100, limit_s=60, what="requests after it")
        assert asking.statuses.keys() == {200}
        found = client.rollout("wrong")
        assert found["live"]["version"] == "1"
        assert "label" in found["rejected"][0]["reason"]
        (entry,) = entries(client, "wrong", "service.rollout_aborted")
        assert entry["actor"]["name"] == "guard"
        rows = {row["thing"]: row for row in entry["payload"]["evidence"]["rows"]}
        assert rows["predictions"]["evidence"] > 1000
        assert rows["predictions"]["canary_n"] > 20
        assert rows["errors"]["effect"] == 0
        known = evidence(client, "wrong")
        assert (known["open"], known["verdict"]) == (False, "roll_back")
        with pytest.raises(ModelyardError, match=r"[Rr]ejected|rolled back|given up"):
            client.deploy("pets:3", service="wrong", rollout=CANARY)


def test_a_good_version_is_promoted_step_by_step_and_history_says_why(platform: Platform) -> None:
    with platform.client() as client:
        url = client.deploy("pets:1", service="good").info.url + "/infer"
        with Asking(url) as asking:
            client.deploy("pets:2", service="good", rollout=CANARY)
            wait_until(lambda: client.rollout("good")["live"]["version"] == "2", limit_s=250, what="the promotion")
        assert asking.statuses.keys() == {200}
        (advanced,) = entries(client, "good", "service.rollout_advanced")
        (promoted,) = entries(client, "good", "service.rollout_promoted")
        assert "is excluded" in promoted["payload"]["reason"]
        assert advanced["payload"]["weight"] == 60
        for entry in (advanced, promoted):
            errors = next(row for row in entry["payload"]["evidence"]["rows"] if row["thing"] == "errors")
            assert errors["canary_n"] >= 60
            assert errors["high"] <= 0.2


def test_a_control_plane_that_dies_neither_loses_nor_doubles_evidence(platform: Platform) -> None:
    with platform.client() as client:
        url = client.deploy("pets:1", service="kept").info.url + "/infer"
        client.deploy("pets:2", service="kept", rollout={**CANARY, "guard": "watch"})
        with Asking(url, most=600) as asking:
            wait_until(lambda: len(asking.answers) > 200, limit_s=100, what="some requests")
            os.kill(platform.pid_of("control-plane"), signal.SIGKILL)
            asking.wait()

        def counted() -> bool:
            rows = evidence(client, "kept").get("rows")
            return bool(rows) and sum(rows[0][side] for side in ("canary_n", "stable_n")) >= 600

        wait_until(counted, limit_s=100, what="all requests in the evidence")
        known = evidence(client, "kept")
        sides = Counter(revision for _, revision in asking.answers)
        errors = next(row for row in known["rows"] if row["thing"] == "errors")
        assert (errors["stable_n"], errors["canary_n"]) == (sides["1"], sides["2"])
        assert asking.statuses == {200: 600}
        assert client.rollout("kept")["candidate"]["version"] == "2"  # a guard that watches only says
        says = wait_until(lambda: entries(client, "kept", "service.guard_said"), limit_s=30, what="what it says")
        assert says[0]["payload"]["verdict"] == "advance"


def test_a_shadow_is_reported_and_answers_nobody(platform: Platform) -> None:
    with platform.client() as client:
        url = client.deploy("pets:1", service="shown").info.url + "/infer"
        client.deploy("pets:1", service="shown", shadow={"model": "pets", "version": "3", "percent": 100})
        with Asking(url, most=200) as asking:
            asking.wait()

        def report() -> dict[str, Any] | None:
            found = read(client, "services", "shown", "shadow")
            return found if found.get("compared", 0) + found.get("dropped", 0) >= 200 else None

        found = wait_until(report, limit_s=60, what="the report")
        assert asking.statuses == {200: 200}
        assert {revision for _, revision in asking.answers} <= {"1", "2"}
        assert found["version"] == "3"
        assert 0 < found["other_labels"] < found["rows"]
        assert found["examples"]
        assert json.dumps(found["examples"]).count("inputs") == len(found["examples"])
