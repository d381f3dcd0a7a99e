"""Processes that are killed while they work: nothing is half there afterwards, and nobody else notices."""

import json
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from guarded import corpus_models
from stranger_models import joblib_classifier, make

from modelyard.testing.platform import Platform, running_platform, wait_until

pytestmark = [pytest.mark.platform, pytest.mark.slow]
GOOD = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
KILLS_AT_S = (0.05, 0.6)


def alive(platform: Platform) -> bool:
    try:
        return httpx.get(platform.control_url + "/readyz", trust_env=False, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def kill_control(platform: Platform) -> None:
    """Kill it and wait for the next one."""
    before = platform.pid_of("control-plane")
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: platform.pid_of("control-plane") != before and alive(platform), limit_s=60, what="the next one")


def left_of_uploads(platform: Platform) -> list[Path]:
    return [path for path in platform.places.incoming.rglob("*") if path.is_file()]


@pytest.fixture
def platform(tmp_path: Path) -> Any:
    with running_platform(tmp_path, "--servers", "2") as running:
        yield running


class Clients:
    """Threads that ask all the time over connections that they keep; `outcomes` counts what came of it."""

    def __init__(self, url: str, count: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._ended = threading.Event()
        self._url = url
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        body = json.dumps(GOOD).encode()
        while not self._ended.is_set():
            with httpx.Client(trust_env=False, timeout=10) as client:
                try:
                    while not self._ended.is_set():
                        answer = client.post(self._url, content=body, headers={"content-type": "application/json"})
                        self.outcomes[str(answer.status_code)] += 1
                except httpx.HTTPError as error:
                    self.outcomes[type(error).__name__] += 1

    def stop(self) -> Counter[str]:
        self._ended.set()
        for thread in self._threads:
            thread.join(20)
        return self.outcomes


def test_an_upload_whose_control_plane_dies_leaves_nothing_half_there(platform: Platform, tmp_path: Path) -> None:
    model = make(joblib_classifier, tmp_path / "models").path.read_bytes()
    url = platform.control_url + "/api/v1/models/flowers/versions"

    def upload() -> None:
        try:
            httpx.post(url, files={"files": ("flowers.joblib", model)}, trust_env=False, timeout=60)
        except httpx.HTTPError:
            return

    for delay in KILLS_AT_S:
        sender = threading.Thread(target=upload)
        sender.start()
        time.sleep(delay)  # the moment of the kill, not a wait for anything
        kill_control(platform)
        sender.join(70)
        assert not left_of_uploads(platform)
        with platform.client() as client:
            for row in client.models():
                assert row["name"] == "flowers"
                for version in client.versions("flowers"):
                    assert version["state"] == "approved"
                    file = client.request("GET", f"{url}/{version['version']}/files/flowers.joblib")
                    assert file.content == model
    with platform.client() as client:
        client.upload(tmp_path / "models" / "flowers.joblib", name="flowers")
        service = client.deploy("flowers")
        assert service.info.phase == "serving"
    _records_are_whole(platform)


def test_a_stream_that_is_cut_by_the_kill_leaves_nothing(platform: Platform) -> None:
    def parts() -> Any:
        yield b'--B\r\nContent-Disposition: form-data; name="files"; filename="m.onnx"\r\n\r\n'
        for _ in range(4000):
            yield b"x" * 8192
            time.sleep(0.001)  # a slow sender

    def upload() -> None:
        try:
            httpx.post(
                platform.control_url + "/api/v1/models/cut/versions",
                content=parts(),
                headers={"content-type": "multipart/form-data; boundary=B"},
                trust_env=False,
                timeout=60,
            )
        except httpx.HTTPError:
            return

    sender = threading.Thread(target=upload)
    sender.start()
    wait_until(lambda: left_of_uploads(platform), what="bytes of the upload on disk")
    kill_control(platform)
    sender.join(70)
    wait_until(lambda: not left_of_uploads(platform), limit_s=10, what="an empty incoming folder")
    with platform.client() as client:
        assert client.models() == []
    _records_are_whole(platform)


def test_a_deployment_whose_control_plane_dies_is_finished_by_the_next(platform: Platform, tmp_path: Path) -> None:
    models = {path.stem: path for path in corpus_models(tmp_path / "models")}
    with platform.client() as client:
        for name in ("m1", "m_two"):
            client.upload(models[name], name=name)
        for name, delay in zip(("m1", "m_two"), (0.0, 0.2), strict=True):
            client.deploy(name, wait=False)
            time.sleep(delay)  # the moment of the kill
            kill_control(platform)
            info = client.wait(client.service(name).info, timeout_s=60)
            assert (info.phase, info.revision) == ("serving", 1)
        for name in ("m1", "m_two"):
            url = f"{platform.inference_url}/v2/models/{name}/ready"
            assert httpx.get(url, trust_env=False).status_code == 200
    _records_are_whole(platform)


def test_a_model_server_killed_under_load_costs_only_its_own_requests(platform: Platform, tmp_path: Path) -> None:
    model = corpus_models(tmp_path / "models")[0]
    clients = 8
    with platform.client() as client:
        client.upload(model, name="m1")
        url = client.deploy("m1").info.url + "/infer"
    load = Clients(url, clients)
    wait_until(lambda: load.outcomes["200"] > 200)
    for name in ("model-server-0", "model-server-1"):
        answered = load.outcomes["200"]
        before = platform.pid_of(name)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda name=name, before=before: platform.pid_of(name) != before, what="the next server")
        wait_until(lambda answered=answered: load.outcomes["200"] > answered + 300, what="answers after the kill")
        wait_until(lambda: _both_ready(platform), what="both servers")
    outcomes = load.stop()
    broken = {name: count for name, count in outcomes.items() if name != "200"}
    assert not [name for name in broken if name.isdecimal()], outcomes
    assert sum(broken.values()) <= 2 * clients, outcomes


def test_a_full_disk_refuses_the_upload_and_nothing_else(tmp_path: Path) -> None:
    disk = tmp_path / "data"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=112m tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("a small file system cannot be mounted here: it takes root with CAP_SYS_ADMIN")
    try:
        with running_platform(tmp_path) as platform:
            model = corpus_models(tmp_path / "models")[0]
            with platform.client() as client:
                client.upload(model, name="m1")
                url = client.deploy("m1").info.url + "/infer"
            big = {"files": ("m.onnx", b"\x08\x08" * (30 << 20))}
            answer = httpx.post(
                platform.control_url + "/api/v1/models/big/versions", files=big, trust_env=False, timeout=60
            )
            assert answer.status_code == 507, answer.text
            assert answer.json()["code"] == "storage_full"
            assert answer.json()["hint"]
            assert httpx.post(url, json=GOOD, trust_env=False).status_code == 200
            wait_until(lambda: not left_of_uploads(platform), limit_s=10, what="an empty incoming folder")
            with platform.client() as client:
                assert [row["name"] for row in client.models()] == ["m1"]
                client.upload(corpus_models(tmp_path / "models")[1], name="m_int8")
    finally:
        os.system(f"umount -l {disk}")


def _both_ready(platform: Platform) -> bool:
    with platform.client() as client:
        servers = client.service("m1").info.document.get("servers") or ()
    return len([row for row in servers if row["state"] == "ready"]) == 2


def _records_are_whole(platform: Platform) -> None:
    with closing(sqlite3.connect(platform.places.database, timeout=20)) as records:
        assert records.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with platform.client() as client:
        assert client.request("GET", platform.control_url + "/api/v1/history/verify").json()["intact"]
