"""Isolated model workers: a crash of a model costs no client anything."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.domain.contract import Isolation


@pytest.fixture
def sockets(tmp_path: Path) -> list[Path]:
    return [tmp_path / f"w{index}.sock" for index in range(2)]


def isolated(kit, package: Path, sockets: list[Path], **more):
    backend = kit.backend(package, workers=tuple(map(str, sockets)), **more)
    return kit.table(kit.service("m1", backend, isolation=Isolation.PROCESS))


def test_a_worker_answers_in_the_place_of_the_listener(packages, servers, kit, sockets) -> None:
    package = packages.classifier("m1")
    process = servers.worker(package, sockets[0])
    server = servers.start(isolated(kit, package, sockets[:1]))
    kit.until(server.is_ready)
    with server.client() as client:
        answer = client.post("/v2/models/m1/infer", json=kit.question([9.0, 1.0, 0.0]))
        assert answer.json()["outputs"][0]["data"] == ["no"]
    assert sockets[0].stat().st_mode & 0o777 == 0o600
    assert Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"modelyard: model-worker")
    memory = server.figures()['modelyard_model_memory_bytes{project="default",service="m1",model="m1",version="1"}']
    assert memory > 0


def test_killing_workers_in_mid_flight_fails_no_request(packages, servers, kit, sockets) -> None:
    package = packages.linear("m1")
    workers = [servers.worker(package, path, name=f"w{index}") for index, path in enumerate(sockets)]
    server = servers.start(isolated(kit, package, sockets))
    kit.until(server.is_ready)
    body = json.dumps(kit.question([1.0, 2.0, 3.0])).encode()
    with kit.Traffic(server.port, "/v2/models/m1/infer", body, right=lambda answer: b"[1.0,2.0]" in answer) as traffic:
        for victim in (0, 1, 0):
            os.kill(workers[victim].pid, signal.SIGKILL)
            workers[victim].wait()
            traffic.more(50)
            workers[victim] = servers.worker(package, sockets[victim], name=f"w{victim}")
            traffic.more(50)
    assert traffic.wrong == []
    figures = server.figures()
    of = 'project="default",service="m1"'
    assert figures[f"modelyard_inputs_received_total{{{of}}}"] == figures[f"modelyard_inputs_answered_total{{{of}}}"]


def test_requests_wait_for_the_successor_of_the_last_worker(packages, servers, kit, sockets) -> None:
    package = packages.linear("m1")
    worker = servers.worker(package, sockets[0])
    server = servers.start(isolated(kit, package, sockets[:1]))
    kit.until(server.is_ready)
    body = json.dumps(kit.question([1.0, 2.0, 3.0])).encode()
    with kit.Traffic(server.port, "/v2/models/m1/infer", body, right=lambda answer: b"[1.0,2.0]" in answer) as traffic:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        servers.worker(package, sockets[0], name="successor")
        traffic.more(50)
    assert traffic.wrong == []


def test_a_worker_that_holds_another_model_gets_no_traffic(packages, servers, kit, sockets) -> None:
    wanted, other = packages.linear("m1"), packages.linear("other", scale=7.0)
    servers.worker(other, sockets[0])
    server = servers.start(isolated(kit, wanted, sockets[:1]), deadline_s=1.0)
    kit.until(lambda: "another model" in server.log.read_text())
    with server.client() as client:
        assert client.post("/v2/models/m1/infer", json=kit.question()).status_code == 503


def test_a_worker_whose_package_is_damaged_says_so_and_is_not_started_again(packages, tmp_path) -> None:
    package = packages.linear("m1")
    (package / "model.onnx").write_bytes(b"nothing")
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "modelyard.processes.model_worker",
            "--package",
            str(package),
            "--socket",
            str(tmp_path / "s"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 78
    assert ended.stderr.splitlines()[-1].startswith("the model cannot be loaded: ")
