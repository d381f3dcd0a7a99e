"""A service goes to zero, is brought back by its first request, and follows the load; every change says why."""

import os
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from guarded import corpus_models

from modelyard.client import Client, calls
from modelyard.testing.platform import Platform, running_platform, wait_until

pytestmark = [pytest.mark.platform, pytest.mark.slow]
ELASTIC = {"min": 0, "max": 2, "target_rate": 3, "idle_s": 2, "stabilise_s": 2, "cooldown_s": 0.5}


@pytest.fixture
def platform(tmp_path: Path):
    with running_platform(tmp_path, "--servers", "2") as running:
        yield running


@pytest.fixture
def client(platform: Platform, tmp_path: Path):
    model = next(model for model in corpus_models(tmp_path / "models") if model.stem == "m1")
    with platform.client() as client:
        client.upload(model, name="m1")
        yield client


def workers(client: Client, service: str) -> int:
    document = client.service(service).info.document
    return len(document["workers"])


def ask(platform: Platform, service: str, body: dict[str, Any]) -> httpx.Response:
    url = f"{platform.inference_url}/v2/models/{service}/infer"
    return httpx.post(url, json=body, trust_env=False, timeout=60)


def test_isolated_workers_go_to_zero_and_come_back_and_follow_the_load(platform: Platform, client: Client) -> None:
    client.deploy("m1", service="elastic", isolation="process", replicas=ELASTIC)
    body = client.service("elastic").info.document["example"]
    assert ask(platform, "elastic", body).status_code == 200
    wait_until(lambda: workers(client, "elastic") == 0, limit_s=60, what="zero workers")
    scaling = client.send(calls.read("services", "elastic", "scaling"))
    assert (scaling["wanted"], scaling["last_change"]["wanted"]) == (0, 0)
    assert "no request for" in scaling["last_change"]["reason"]

    first = ask(platform, "elastic", body)
    assert first.status_code == 200, first.text
    outcomes: Counter[int] = Counter()
    stop = threading.Event()

    def load() -> None:
        with httpx.Client(trust_env=False, timeout=60) as line:
            while not stop.is_set():
                url = f"{platform.inference_url}/v2/models/elastic/infer"
                outcomes[line.post(url, json=body).status_code] += 1

    threads = [threading.Thread(target=load, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: workers(client, "elastic") == 2, limit_s=60, what="two workers")
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    wait_until(lambda: workers(client, "elastic") == 0, limit_s=60, what="zero workers again")
    assert set(outcomes) == {200}
    changes = [
        e["payload"] for e in client.send(calls.listing("history", limit=500)) if e["action"] == "service.scaled"
    ]
    assert {(change["from"], change["to"]) for change in changes} >= {(1, 0), (0, 1), (1, 2)}
    grown = next(change for change in changes if change["to"] == 2)
    assert "requests/s ÷ 3 a worker" in grown["reason"]
    assert grown["inputs"]["rate"] > 3


def test_a_model_in_the_listening_process_sleeps_and_is_loaded_without_the_control_plane(
    platform: Platform, client: Client
) -> None:
    client.deploy("m1", service="dozy", replicas={"min": 0, "idle_s": 1})
    body = client.service("dozy").info.document["example"]
    before = ask(platform, "dozy", body)
    assert before.status_code == 200
    wait_until(lambda: asleep(platform), limit_s=60, what="the model is let go")
    os.kill(platform.pid_of("control-plane"), signal.SIGSTOP)
    try:
        after = ask(platform, "dozy", body)
    finally:
        os.kill(platform.pid_of("control-plane"), signal.SIGCONT)
    assert (after.status_code, after.json()["outputs"]) == (200, before.json()["outputs"])


def asleep(platform: Platform) -> bool:
    text = httpx.get(f"{platform.inference_url}/metrics", trust_env=False).text
    return any(
        line.startswith("modelyard_model_memory_bytes{") and 'service="dozy"' in line and line.endswith(" 0")
        for line in text.splitlines()
    )
