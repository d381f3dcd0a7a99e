"""Streaming inference: a generator of own code in its worker, its parts over HTTP, and every way a stream can end."""

import http.client
import importlib.util
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_code_kit import running_worker

from modelyard.domain.contract import Isolation
from modelyard.foundation.environments import CodePolicy
from modelyard.inference.routing.frames import Kind, frame, pack_tensors, run_frame, unpack_tensors

CONFIG: dict[str, Any] = {
    "inputs": [
        {"name": "text", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "count", "datatype": "INT64", "shape": [-1, 1]},
    ],
    "outputs": [{"name": "word", "datatype": "BYTES", "shape": [-1, 1]}],
}
SOURCE = """
import os, pathlib, time
import numpy as np

HERE = pathlib.Path(os.environ["TMPDIR"])

def load(path): pass

def predict(inputs):
    return [[t] for t in inputs["text"].ravel()]

def predict_stream(inputs):
    text, count = inputs["text"].ravel()[0].decode(), int(inputs["count"].ravel()[0])
    made = 0
    try:
        for number in range(count):
            if text == "fail" and number == 3:
                raise ValueError("a secret of the code")
            if text == "die" and number == 3:
                os._exit(9)
            if text == "unfit" and number == 1:
                yield {"other": [1]}
            if text == "slow":
                time.sleep(0.05)
            if text == "big":
                yield [["x" * 100_000]]
            else:
                yield [[f"{text}{number}"]]
            made += 1
    finally:
        (HERE / "ended").write_text(str(made))
"""


def _kit() -> Any:
    name = "data_plane_kit"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "inference" / "conftest.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def kit() -> Any:
    return _kit()


@contextmanager
def streaming(kit: Any, place: Path, source: str = SOURCE, **config: Any) -> Iterator[tuple[Any, Any]]:
    """A worker of this code and a server that asks it."""
    with running_worker(place, source, config=CONFIG, policy=CodePolicy()) as worker:
        backend = kit.backend(place / "bundle", workers=(str(worker.path),))
        backend = type(backend)(**{name: getattr(backend, name) for name in backend.__slots__} | {"digest": _digest()})
        table = kit.table(kit.service("own", backend, isolation=Isolation.PROCESS))
        servers = kit.Servers(place)
        try:
            server = servers.start(table, wait_first_s=0.1, **config)
            kit.until(server.is_ready, patience_s=60)
            yield server, worker
        finally:
            servers.close()


def _digest() -> str:
    return "sha256:" + "0" * 64


def events(answer: Any) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    parts = answer.text.split("\n\n")
    assert parts[-1] == ""
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-1]]


URL = "/v2/models/own/generate_stream"
OF = 'project="default",service="own"'


def settled(figures: dict[str, float]) -> bool:
    done = sum(
        value
        for name, value in figures.items()
        if OF in name
        and name.startswith(("modelyard_inputs_answered", "modelyard_inputs_rejected", "modelyard_inputs_lost"))
    )
    return (
        done == figures[f"modelyard_inputs_received_total{{{OF}}}"]
        and not figures[f"modelyard_inputs_in_flight{{{OF}}}"]
    )


def test_parts_come_in_order_with_what_names_their_model(kit, tmp_path) -> None:
    with streaming(kit, tmp_path) as (server, _), server.client() as client:
        for count in (0, 1, 50):
            answer = client.post(URL, json={"text": "w", "count": count, "id": "7"})
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-model-version"] == "1"
            found = events(answer)
            assert [each["word"] for each in found] == [f"w{number}" for number in range(count)]
            assert all((each["model_name"], each["model_version"], each["id"]) == ("own", "1", "7") for each in found)
        whole = client.post("/v2/models/own/generate", json={"text": "w", "count": 3})
        assert whole.json() == {"model_name": "own", "model_version": "1", "word": "w"}
        assert "generate" in client.get("/v2").json()["extensions"]
        figures = server.figures()
        assert figures[f'modelyard_requests_total{{{OF},outcome="ok"}}'] == 4
        assert settled(figures)


def test_a_failure_of_the_code_ends_the_stream_with_an_event_that_keeps_its_secrets(kit, tmp_path) -> None:
    with streaming(kit, tmp_path) as (server, worker), server.client() as client:
        for text, good in (("fail", 3), ("unfit", 1)):
            found = events(client.post(URL, json={"text": text, "count": 9}))
            assert [each["word"] for each in found[:-1]] == [f"{text}{number}" for number in range(good)]
            assert found[-1]["code"] == "run_failed"
            assert "secret" not in json.dumps(found)
        assert "a secret of the code" in worker.log.read_text()
        assert len(events(client.post(URL, json={"text": "w", "count": 2}))) == 2, "the worker goes on"
        assert settled(server.figures())


def test_a_worker_that_dies_ends_the_stream_with_an_event(kit, tmp_path) -> None:
    with streaming(kit, tmp_path) as (server, _), server.client() as client:
        found = events(client.post(URL, json={"text": "die", "count": 9}))
        assert [each.get("word") for each in found] == ["die0", "die1", "die2", None]
        assert found[-1]["code"] == "run_failed"
        figures = server.figures()
        assert figures[f'modelyard_inputs_lost_total{{{OF},reason="worker_died"}}'] == 1
        assert settled(figures)


def test_a_client_that_goes_ends_the_generator_and_is_booked(kit, tmp_path) -> None:
    with streaming(kit, tmp_path) as (server, worker), server.client() as client:
        ended = Path(f"{worker.path}.d") / "ended"
        body = json.dumps({"text": "slow", "count": 100_000}).encode()
        with socket.create_connection(("127.0.0.1", server.port)) as gone:
            head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (URL.encode(), len(body))
            gone.sendall(head + body)
            seen = b""
            while b"slow2" not in seen:
                seen += gone.recv(4096)
        kit.until(ended.exists)
        assert int(kit.until(ended.read_text)) < 1000
        kit.until(lambda: server.figures().get(f'modelyard_inputs_lost_total{{{OF},reason="cancelled"}}') == 1)
        assert len(events(client.post(URL, json={"text": "w", "count": 2}))) == 2, "the worker is free again"
        assert settled(server.figures())


def test_a_slow_reader_holds_the_code_back(kit, tmp_path) -> None:
    with streaming(kit, tmp_path) as (server, worker):
        ended = Path(f"{worker.path}.d") / "ended"
        count = 400  # of 100 kB: more than any buffer on the way takes
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", URL, json.dumps({"text": "big", "count": count}))
        answer = connection.getresponse()
        answer.read(1000)
        memory = _resident(server.process.pid)
        assert not ended.exists(), "the code is not at its end while nobody reads"
        rest = answer.read()
        assert rest.count(b"data: ") >= count - 1
        kit.until(ended.exists)
        assert ended.read_text() == str(count)
        assert _resident(server.process.pid) < memory + 60_000_000
        connection.close()


def _resident(pid: int) -> int:
    import psutil

    return int(psutil.Process(pid).memory_info().rss)


def test_a_stream_ends_with_its_deadline(kit, tmp_path) -> None:
    with streaming(kit, tmp_path, deadline_s=1.0) as (server, worker), server.client() as client:
        found = events(client.post(URL, json={"text": "slow", "count": 100_000}))
        assert found[0]["word"] == "slow0"
        assert found[-1]["code"] == "deadline_exceeded"
        kit.until((Path(f"{worker.path}.d") / "ended").exists)
        kit.until(lambda: settled(server.figures()))


def test_a_busy_worker_says_so_and_ordinary_requests_wait_for_it(kit, tmp_path) -> None:
    with streaming(kit, tmp_path) as (server, _):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", URL, json.dumps({"text": "slow", "count": 40}))
        answer = connection.getresponse()
        answer.read(10)
        with server.client() as client:
            busy = client.post(URL, json={"text": "w", "count": 1})
            assert (busy.status_code, busy.json()["code"]) == (503, "workers_unavailable")
            waited = client.post("/v2/models/own/generate", json={"text": "w", "count": 1})
            assert waited.json()["word"] == "w"
        assert answer.read().count(b"data: ") >= 39
        connection.close()
        assert settled(server.figures())


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_json"),
        (b"[]", "bad_request"),
        (b'{"text":"w"}', "missing_input"),
        (b'{"text":"w","count":"many"}', "bad_data"),
        (b'{"text":"w","count":1.5}', "bad_data"),
        (b'{"text":"w","count":[[1],[1,2]]}', "bad_data"),
        (b'{"text":"w","count":[[[1]]]}', "bad_shape"),
        (b'{"text":"w","count":1,"count":2}', "bad_json"),
    ],
)
@pytest.mark.parametrize("address", ["generate", "generate_stream"])
def test_a_bad_request_is_refused_before_anything_runs(shared, body, code, address) -> None:
    with shared.client() as client:
        answer = client.post(f"/v2/models/own/{address}", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text
        found = answer.json()
        assert found["code"] in (code, "shape_mismatch"), found
        assert set(found.get("example") or {"text": 1, "count": 1}) == {"text", "count"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with streaming(_kit(), tmp_path_factory.mktemp("shared")) as (server, _):
        yield server


def test_a_model_without_streams_says_what_to_ask(kit, tmp_path) -> None:
    source = SOURCE.replace("def predict_stream", "def another")
    with streaming(kit, tmp_path, source) as (server, _), server.client() as client:
        answer = client.post(URL, json={"text": "w", "count": 1})
        assert (answer.status_code, answer.json()["code"]) == (501, "not_supported")
        assert client.get(URL).status_code == 405
        assert client.post(URL, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
        assert settled(server.figures())


def test_the_worker_sends_no_more_than_it_is_allowed(tmp_path) -> None:
    with running_worker(tmp_path, SOURCE, config=CONFIG) as worker:
        worker.connect()
        assert worker.hello["streams"] is True
        asked = pack_tensors({"text": np.array([[b"w"]], dtype=object), "count": np.array([[30]])})
        worker.channel.sendall(run_frame(5, asked, left_ms=60_000, kind=Kind.STREAM))

        def read(parts: int) -> list[str]:
            found = []
            while len(found) < parts:
                kind, number, payload = worker.next()
                if kind is Kind.PART:
                    assert number == 5
                    found.append(unpack_tensors(payload)["word"].ravel()[0].decode())
            return found

        assert read(8) == [f"w{number}" for number in range(8)]
        worker.channel.sendall(frame(Kind.PING, 78))
        while (came := worker.next())[1] != 78:
            assert came[0] is Kind.PONG, "nothing more comes unasked"
        worker.channel.sendall(frame(Kind.MORE, 5) * 2)
        assert read(2) == ["w8", "w9"]
        worker.channel.sendall(frame(Kind.DROP, 5))
        while (last := worker.next())[0] is Kind.PONG:
            pass
        assert last[0] is Kind.DROPPED
        assert worker.ask(text=np.array([[b"a"]], dtype=object), count=np.array([[1]]))[0] is Kind.ANSWER
        os.kill(worker.process.pid, signal.SIGTERM)
        assert worker.process.wait(30) == 0
