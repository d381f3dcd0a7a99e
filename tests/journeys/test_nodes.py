"""Several nodes on one machine: workers are spread, a node is drained or lost, and no prediction fails."""

import os
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from guarded import corpus_models

from modelyard.client import Client, calls
from modelyard.testing.platform import Platform, running_platform, wait_until

pytestmark = [pytest.mark.platform, pytest.mark.slow]


class Asking:
    """Threads that ask a service all the time; `outcomes` counts the statuses."""

    def __init__(self, url: str, body: dict[str, Any], *, threads: int = 2) -> None:
        self.outcomes: Counter[object] = Counter()
        self._ended = threading.Event()
        self._url, self._body = url, body
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self) -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not self._ended.is_set():
                try:
                    self.outcomes[client.post(self._url, json=self._body).status_code] += 1
                except httpx.HTTPError as error:
                    self.outcomes[type(error).__name__] += 1


def nodes(client: Client) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in client.send(calls.listing("nodes"))}


def ready_on(client: Client, node: str) -> int:
    return sum(worker["state"] == "ready" and not worker["moving_to"] for worker in nodes(client)[node]["workers"])


@pytest.fixture
def platform(tmp_path: Path):
    with running_platform(tmp_path, "--nodes", "2", "--servers", "1") as running:
        yield running


@pytest.fixture
def client(platform: Platform, tmp_path: Path):
    model = next(model for model in corpus_models(tmp_path / "models") if model.stem == "m1")
    with platform.client() as client:
        client.upload(model, name="m1")
        client.deploy("m1", isolation="process", replicas={"min": 2, "max": 2})
        wait_until(
            lambda: ready_on(client, "node-1") == 1 and ready_on(client, "node-2") == 1, what="one worker a node"
        )
        yield client


def asking(platform: Platform, client: Client) -> Asking:
    return Asking(f"{platform.inference_url}/v2/models/m1/infer", client.service("m1").info.document["example"])


def test_workers_of_a_service_are_spread_and_each_says_why(client: Client) -> None:
    for node in nodes(client).values():
        (worker,) = node["workers"]
        assert (node["state"], worker["service"]) == ("ready", "m1")
        assert "the fewest of 2 nodes" in worker["why"]
        assert node["reported_s_ago"] < 30


def test_a_drained_node_gives_up_its_workers_without_a_failed_prediction(platform: Platform, client: Client) -> None:
    with asking(platform, client) as load:
        document = client.send(calls.act("nodes", "node-1", "drain", body={"why": "memory is replaced"}))
        assert (document["state"], document["why"]) == ("draining", "memory is replaced")
        wait_until(lambda: ready_on(client, "node-2") == 2 and not nodes(client)["node-1"]["workers"], limit_s=90)
        client.send(calls.act("nodes", "node-1", "uncordon"))
    assert set(load.outcomes) == {200}
    assert nodes(client)["node-1"]["state"] == "ready"
    actions = [entry["action"] for entry in client.send(calls.listing("history", limit=50))]
    assert {"node.draining", "node.opened"} <= set(actions)


def test_a_lost_node_is_replaced_and_does_no_double_work_when_it_is_back(platform: Platform, client: Client) -> None:
    agent = platform.pid_of("node node-1")
    with asking(platform, client) as load:
        os.killpg(agent, signal.SIGSTOP)
        try:
            wait_until(lambda: nodes(client)["node-1"]["state"] == "silent", limit_s=60, what="node-1 silent")
            wait_until(lambda: ready_on(client, "node-2") == 2, limit_s=90, what="its worker elsewhere")
        finally:
            os.killpg(agent, signal.SIGCONT)
        wait_until(lambda: nodes(client)["node-1"]["state"] == "ready", limit_s=60)
        wait_until(lambda: not nodes(client)["node-1"]["workers"], limit_s=90, what="no double work")
    assert set(load.outcomes) == {200}


def test_the_last_open_node_cannot_be_drained(client: Client) -> None:
    from modelyard.client import RemoteError

    client.send(calls.act("nodes", "node-2", "cordon"))
    with pytest.raises(RemoteError, match="nowhere to go"):
        client.send(calls.act("nodes", "node-1", "drain"))
