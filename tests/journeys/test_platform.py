"""What a user goes through, on a real platform with real models."""

import json
import os
import signal
import threading
import urllib.request
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from modelyard.foundation.supervision.adoption import read_left
from modelyard.testing.platform import Platform, running_platform, wait_until

pytestmark = [pytest.mark.platform, pytest.mark.slow]


class Asker(threading.Thread):
    """Asks again and again, one request after the other, and counts what came back."""

    def __init__(self, url: str, body: dict) -> None:
        super().__init__(daemon=True)
        self.url, self.body = url, json.dumps(body).encode()
        self.answers: list[int] = []
        self.ended = threading.Event()

    def run(self) -> None:
        with httpx.Client(trust_env=False, timeout=20) as client:
            while not self.ended.is_set():
                try:
                    answer = client.post(self.url, content=self.body, headers={"content-type": "application/json"})
                    self.answers.append(answer.status_code)
                except httpx.HTTPError as error:
                    self.answers.append(-1)
                    self.error = error

    def stop(self) -> list[int]:
        self.ended.set()
        self.join(30)
        return self.answers


def infer_body(images: np.ndarray) -> dict:
    row = images[:1]
    return {"inputs": [{"name": "input", "shape": list(row.shape), "datatype": "FP32", "data": row.ravel().tolist()}]}


def test_from_a_file_to_an_answer_and_back_to_who_gave_it(digits_platform: Platform, digits_images: np.ndarray) -> None:
    with digits_platform.client() as client:
        info = client.service("digits").info
        body = json.dumps(infer_body(digits_images)).encode()
        request = urllib.request.Request(info.url + "/infer", data=body, headers={"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            outputs = {output["name"]: output["data"] for output in json.load(answer)["outputs"]}
            assert answer.headers["x-model-digest"] == client.version("digits", "1").digest
            assert answer.headers["x-revision"] == "1"
        assert outputs["label"][0] in {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}
        frame = client.service("digits").predict(digits_images[:20])
        assert len(frame) == 20


def test_a_dead_control_plane_costs_no_prediction_and_comes_back(
    digits_platform: Platform, digits_images: np.ndarray
) -> None:
    with digits_platform.client() as client:
        url = client.service("digits").info.url + "/infer"
        asker = Asker(url, infer_body(digits_images))
        asker.start()
        wait_until(lambda: len(asker.answers) > 50)
        before = digits_platform.pid_of("control-plane")
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: _answers(digits_platform.control_url), limit_s=60, what="the control plane's return")
        wait_until(lambda: len(asker.answers) > 200)
        assert set(asker.stop()) == {200}
        assert digits_platform.pid_of("control-plane") != before
        assert client.service("digits").info.phase == "serving"


def test_a_killed_model_server_is_replaced(digits_platform: Platform, digits_images: np.ndarray) -> None:
    pid = digits_platform.pid_of("model-server-0")
    os.kill(pid, signal.SIGKILL)
    with digits_platform.client() as client:
        url = client.service("digits").info.url + "/infer"

        def asked() -> bool:
            try:
                return httpx.post(url, json=infer_body(digits_images), trust_env=False, timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(asked, what="an answer of the new server")
    assert digits_platform.pid_of("model-server-0") != pid


def test_what_was_there_is_there_after_a_restart(
    tmp_path: Path, digits_bundle: Path, digits_images: np.ndarray
) -> None:
    with running_platform(tmp_path) as platform:
        with platform.client() as client:
            client.upload(digits_bundle, name="digits", alias="champion")
            client.deploy("digits")
            count = len(client.send(_history()))
        assert platform.stop() == 0
        platform.start()
        with platform.client() as client:
            assert client.version("digits", "1").state == "approved"
            service = client.service("digits")
            assert client.wait(service.info).phase == "serving"
            assert len(service.predict(digits_images[:3])) == 3
            assert len(client.send(_history())) >= count


def test_servers_outlive_their_supervisor_and_are_adopted_by_the_next(
    tmp_path: Path, digits_bundle: Path, digits_images: np.ndarray
) -> None:
    with running_platform(tmp_path) as platform:
        with platform.client() as client:
            client.upload(digits_bundle, name="digits")
            client.deploy("digits", isolation="process")
            url = client.service("digits").info.url + "/infer"
        worker = wait_until(lambda: _pid_that_starts(platform, "model-worker"))
        server = wait_until(lambda: platform.pid_of("model-server-0"))
        asker = Asker(url, infer_body(digits_images))
        asker.start()
        wait_until(lambda: len(asker.answers) > 20)
        platform.kill_supervisor()
        platform.start()
        wait_until(lambda: len(asker.answers) > 100)
        assert set(asker.stop()) == {200}
        assert platform.pid_of("model-server-0") == server
        assert _pid_that_starts(platform, "model-worker") == worker
        assert "model-server-0" in platform.standing["adopted"]


def test_nothing_is_left_running_after_ctrl_c(tmp_path: Path) -> None:
    with running_platform(tmp_path) as platform:
        assert platform.command is not None
        assert platform.command.process is not None
        tree = psutil.Process(platform.command.process.pid).children(recursive=True)
        assert {"control-plane", "model-server-0"} <= {name.split(": ")[-1].replace(" ", "-") for name in _titles(tree)}
        assert platform.stop() == 0
        assert not [process for process in tree if process.is_running()]


def test_a_second_platform_on_the_same_data_is_refused_by_name(digits_platform: Platform, tmp_path: Path) -> None:
    second = Platform(tmp_path, ["--data", str(digits_platform.places.data)])
    with pytest.raises(AssertionError, match="already in use by the platform with process id"):
        second.start()
    second.end()


def _pid_that_starts(platform: Platform, name: str) -> int | None:
    entries = read_left(platform.places.run / "children.json")
    return next((entry.pid for entry in entries if entry.name.startswith(name)), None)


def _titles(processes: list[psutil.Process]) -> list[str]:
    return [" ".join(process.cmdline()).strip() for process in processes]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url + "/readyz", trust_env=False, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _history() -> object:
    from modelyard.client import calls

    return calls.listing("history", limit=200)
