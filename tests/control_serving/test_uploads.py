"""Uploads over HTTP against a real control plane: whole, in pieces, followed, interrupted, at once, and too many."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from bundles import bundle, concatenated
from control_driver import Control, eventually

STEPS = ("store", "package", "register", "commit", "done")


def incoming(control: Control) -> list[str]:
    return [path.name for path in (control.data / "incoming").iterdir()]


def test_an_upload_is_answered_with_its_version_and_its_audit(shared_control: Control) -> None:
    with shared_control.client() as client:
        answer = client.post("/models/plain/versions", files=bundle())
        document = answer.json()
        assert answer.status_code == 201, document
        assert (document["name"], document["version"], document["state"]) == ("plain", "1", "approved")
        assert document["audit"]["verdict"] == "approved"
        assert all(check["evidence"] is not None for check in document["audit"]["checks"])
        assert client.get(answer.headers["location"].removeprefix("/api/v1")).json()["digest"] == document["digest"]
    assert incoming(shared_control) == []


def test_the_same_files_again_are_the_next_version_with_the_same_digest(shared_control: Control) -> None:
    with shared_control.client() as client:
        first = client.post("/models/twice/versions", files=bundle()).json()
        second = client.post("/models/twice/versions", files=bundle()).json()
        named = client.post("/models/twice/versions", params={"version": second["version"]}, files=bundle())
    assert (first["version"], second["version"]) == ("1", "2")
    assert first["digest"] == second["digest"]
    assert named.status_code == 201
    assert named.json()["version"] == "2"


def test_one_name_with_other_content_is_taken_once(shared_control: Control) -> None:
    def send(number: int) -> httpx.Response:
        with shared_control.client() as client:
            return client.post("/models/raced/versions", params={"version": "1"}, files=bundle(bias=float(number)))

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(send, range(1, 7)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [201, 409, 409, 409, 409, 409]
    with shared_control.client() as client:
        versions = client.get("/models/raced/versions").json()["items"]
    winner = next(answer.json() for answer in answers if answer.status_code == 201)
    assert [(version["version"], version["digest"]) for version in versions] == [("1", winner["digest"])]
    assert incoming(shared_control) == []


def test_an_alias_points_at_the_new_version(shared_control: Control) -> None:
    with shared_control.client() as client:
        client.post("/models/aliased/versions", params={"alias": "champion"}, files=bundle()).raise_for_status()
        assert client.get("/models/aliased").json()["aliases"] == {"champion": "1"}


def test_a_refusal_says_what_to_change_and_leaves_only_its_report(shared_control: Control) -> None:
    before = set(shared_control.left_over())
    files = [("files", ("config.json", b"{}")), ("files", ("weights.safetensors", b"nothing"))]
    with shared_control.client() as client:
        answer = client.post("/models/refused/versions", files=files)
        problem = answer.json()
        assert answer.status_code == 422, problem
        assert problem["code"] == "weights_format"
        assert problem["hint"]
        assert client.get("/models/refused").status_code == 404
        entries = client.get("/history", params={"limit": 500}).json()["items"]
    entry = next(entry for entry in entries if entry["subject"] == "model/refused")
    assert entry["action"] == "model.upload_refused"
    assert entry["payload"]["code"] == "weights_format"
    assert [check for check in entry["payload"]["checks"] if check["outcome"] == "failed"]
    assert set(shared_control.left_over()) == before


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("application/json", b"{}", 415, "unsupported_type"),
        ("multipart/form-data", b"", 400, "multipart_invalid"),
        ("multipart/form-data; boundary=b", b"--b--\r\n", 400, "multipart_invalid"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n", 400, "multipart_invalid"),
    ],
)
def test_a_body_that_is_no_upload_is_told_so(
    shared_control: Control, content_type: str, body: bytes, status: int, code: str
) -> None:
    with shared_control.client() as client:
        answer = client.post("/models/none/versions", content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert incoming(shared_control) == []


def test_a_followed_upload_tells_its_checks_and_its_version(shared_control: Control) -> None:
    with shared_control.client() as client:
        answer = client.post("/models/followed/versions", files=bundle(), headers={"prefer": "respond-async"})
        assert answer.status_code == 202
        place = answer.headers["location"].removeprefix("/api/v1")
        events: list[tuple[str, dict[str, object]]] = []
        with client.stream("GET", place, headers={"accept": "text/event-stream"}) as stream:
            kind = ""
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    events.append((kind, json.loads(line.removeprefix("data: "))))
        final = client.get(place).json()
    assert [kind for kind, _ in events[:-1]] == ["check"] * (len(events) - 1)
    assert events[-1] == ("upload", final)
    assert final["state"] == "accepted"
    assert final["version"]["version"] == "1"
    assert [check for _, check in events[:-1]] == final["checks"]


def test_a_followed_refusal_ends_with_its_problem(shared_control: Control) -> None:
    with shared_control.client() as client:
        files = [("files", ("weights.safetensors", b"nothing"))]
        answer = client.post("/models/followed2/versions", files=files, headers={"prefer": "respond-async"})
        place = answer.headers["location"].removeprefix("/api/v1")
        eventually(lambda: client.get(place).json()["state"] == "refused")
        problem = client.get(place).json()["problem"]
    assert problem["status"] == 422
    assert problem["code"] == "weights_format"


@pytest.mark.slow
def test_a_resumable_upload_goes_on_where_it_stood(tmp_path: Path) -> None:
    announced, data = concatenated(bundle())
    control = Control(tmp_path / "data").start()
    try:
        with control.client() as client:
            made = client.post("/uploads", json={"model": "pieces", "files": announced})
            place = made.headers["location"].removeprefix("/api/v1")
            first = client.patch(place, content=data[:100], headers={"upload-offset": "0"})
            assert (first.status_code, first.headers["upload-offset"]) == (204, "100")
            wrong = client.patch(place, content=b"x", headers={"upload-offset": "999"})
            assert (wrong.status_code, wrong.json()["code"]) == (409, "conflict")
            early = client.post(place + "/finish")
            assert early.status_code == 409
        control.kill()
        control.start()
        with control.client() as client:
            assert client.head(place).headers["upload-offset"] == "100"
            for start in range(100, len(data), 150):
                piece = data[start : start + 150]
                client.patch(place, content=piece, headers={"upload-offset": str(start)}).raise_for_status()
            assert client.post(place + "/finish").status_code == 202
            eventually(lambda: "version" in client.get(place).json())
            version = client.get(place).json()["version"]
            whole = client.post("/models/whole/versions", files=bundle()).json()
        assert version["digest"] == whole["digest"]
        assert incoming(control) == []
    finally:
        control.stop()


def test_a_file_that_is_not_the_announced_one_is_refused(shared_control: Control) -> None:
    announced, data = concatenated(bundle())
    announced[1]["sha256"] = "0" * 64
    with shared_control.client() as client:
        made = client.post("/uploads", json={"model": "altered", "files": announced})
        place = made.headers["location"].removeprefix("/api/v1")
        client.patch(place, content=data, headers={"upload-offset": "0"}).raise_for_status()
        finished = client.post(place + "/finish")
        assert (finished.status_code, finished.json()["code"]) == (422, "digest_mismatch")
        assert client.get(place).status_code == 404
    assert incoming(shared_control) == []


def test_an_abandoned_upload_leaves_nothing(shared_control: Control) -> None:
    announced, data = concatenated(bundle())
    with shared_control.client() as client:
        made = client.post("/uploads", json={"model": "given-up", "files": announced})
        place = made.headers["location"].removeprefix("/api/v1")
        client.patch(place, content=data[:50], headers={"upload-offset": "0"}).raise_for_status()
        assert client.delete(place).status_code == 204
        assert client.get(place).status_code == 404
    assert incoming(shared_control) == []


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_sender_that_goes_away_leaves_nothing(shared_control: Control, share: float) -> None:
    request = httpx.Request("POST", shared_control.url + "/api/v1/models/cut/versions", files=bundle())
    body = request.read()
    head = f"POST /api/v1/models/cut/versions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    head += f"Content-Type: {request.headers['content-type']}\r\n\r\n"
    with socket.create_connection(shared_control.address) as connection:
        connection.sendall(head.encode() + body[: int(len(body) * share)])
        eventually(lambda: incoming(shared_control), within_s=5)
    eventually(lambda: incoming(shared_control) == [], within_s=5)
    with shared_control.client() as client:
        assert client.get("/models/cut").status_code == 404


def test_a_project_stores_no_more_than_its_quota(tmp_path: Path) -> None:
    control = Control(tmp_path / "data", options={"uploads": {"project_bytes": 1500}}).start()
    try:
        with control.client() as client:
            answers = [client.post("/models/big/versions", files=bundle(bias=float(n))) for n in range(1, 5)]
        assert answers[0].status_code == 201
        assert (answers[-1].status_code, answers[-1].json()["code"]) == (403, "quota_exceeded")
        assert incoming(control) == []
    finally:
        control.stop()


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    control = Control(tmp_path / "data", options={"uploads": {"total_bytes": 1000}}).start()
    try:
        head = "POST /api/v1/models/m/versions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n"
        head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        with socket.create_connection(control.address, timeout=20) as connection:
            connection.sendall(head.encode())
            assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]
    finally:
        control.stop()


def test_an_audit_whose_children_are_killed_is_never_an_approval(control: Control) -> None:
    assert control.process is not None
    with control.client() as client:
        sent = client.post("/models/m/versions", files=bundle(), headers={"prefer": "respond-async"})
        place = sent.headers["location"].removeprefix("/api/v1")

        def is_decided() -> bool:
            for child in psutil.Process(control.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            return client.get(place).json()["state"] in ("accepted", "refused", "failed")

        eventually(is_decided)
        document = client.get(place).json()
        assert document["state"] in ("refused", "failed")
        assert document["problem"]["hint"]
        assert client.get("/models/m").status_code == 404
        assert client.post("/models/m/versions", files=bundle()).status_code == 201
    assert incoming(control) == []


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_of_a_commit_it_is_whole_or_not_at_all(tmp_path: Path, step: str) -> None:
    dying = Control(
        tmp_path / "data",
        module="dying_control",
        environment={"DIE_AT": step, "PYTHONPATH": str(Path(__file__).parent)},
    ).start()
    with dying.client() as client, pytest.raises(httpx.HTTPError):
        client.post("/models/m/versions", files=bundle())
    assert dying.process is not None
    assert dying.process.wait(30) == -9
    control = Control(tmp_path / "data").start()
    try:
        with control.client() as client:
            found = client.get("/models/m/versions")
            versions = found.json()["items"] if found.status_code == 200 else []
            assert len(versions) == (1 if step == "done" else 0)
            assert bool(control.left_over()) == bool(versions)
            again = client.post("/models/m/versions", files=bundle())
            assert again.status_code == 201, again.text
            service = client.post("/services", json={"name": "m", "model": "m"})
            assert service.status_code == 202
        assert incoming(control) == []
    finally:
        control.stop()


def test_a_good_upload_succeeds_beside_bad_ones(shared_control: Control) -> None:
    stop = threading.Event()

    def bad() -> None:
        with shared_control.client() as client:
            while not stop.is_set():
                client.post("/models/bad/versions", files=[("files", ("weights.safetensors", b"nothing"))])

    thread = threading.Thread(target=bad)
    thread.start()
    try:
        with shared_control.client() as client:
            assert client.post("/models/good/versions", files=bundle()).status_code == 201
    finally:
        stop.set()
        thread.join(30)
