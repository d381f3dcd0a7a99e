"""Every hostile upload of the corpus, over HTTP: its listed answer and code; nothing stored, run or left."""

import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_driver import Control, eventually

CORPUS = Path(__file__).parent.parent / "corpora" / "bad_uploads.yaml"
OWN_CODES = {
    # the corpus names a class; where our answer is another word for the same, it stands here with the reason
    "unsupported_type": {"type_not_allowed", "unsupported_type"},
    "weights_unsafe": {"weights_unsafe", "type_not_allowed"},  # a kind that is not accepted is not looked into
}


@dataclass
class Answer:
    status: int
    body: bytes

    @property
    def code(self) -> str:
        found = re.search(rb'"code": ?"([a-z_]+)"', self.body)
        return found[1].decode() if found else ""


def ask(address: tuple[str, int], request: bytes) -> Answer:
    """Send raw bytes on a connection of their own and read the one answer."""
    with socket.create_connection(address, timeout=60) as connection:
        with suppress(OSError):  # refused before its end: the answer is there to be read
            connection.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            if not (chunk := connection.recv(65536)):
                return Answer(0, received)
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        while length and len(body) < int(length[1]) and (chunk := connection.recv(65536)):
            body += chunk
        return Answer(int(head.split(b" ")[1]), body)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], dict[str, Any], Path]:
    canary = tmp_path_factory.mktemp("canary")
    before = os.environ.get("CANARY_DIR")
    os.environ["CANARY_DIR"] = str(canary)
    try:
        document = yaml.safe_load(CORPUS.read_text())
        names: dict[str, Any] = {}
        exec(document["prelude"], names)
    finally:
        if before is None:
            del os.environ["CANARY_DIR"]
        else:
            os.environ["CANARY_DIR"] = before
    return [case for case in document["cases"] if case["kind"] in ("bundle", "raw")], names, canary


def request_of(case: dict[str, Any], names: dict[str, Any]) -> bytes:
    made = eval(case["construct"], names)
    if case["kind"] == "bundle":
        made = names["post"](names["mp"]([names["part"]("files", name, data) for name, data in made.items()]))
    return bytes(made)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_every_bad_upload_gets_its_answer_and_leaves_nothing(
    shared_control: Control, corpus: tuple[list[dict[str, Any]], dict[str, Any], Path]
) -> None:
    cases, names, canary = corpus
    control = shared_control

    def judge(case: dict[str, Any]) -> str:
        answer = ask(control.address, request_of(case, names))
        expected, code = case["expect"]["http"], case["expect"]["code"].lower()
        if answer.status not in expected:
            return f"{case['id']}: {answer.status} {answer.code}, expected {expected} {code}"
        accepted = answer.status in (200, 201, 202)
        known = OWN_CODES.get(code, {code})
        if not accepted and case["kind"] == "bundle" and answer.code not in known:
            return f"{case['id']}: code {answer.code}, expected {code} ({case['description']})"
        return ""

    with ThreadPoolExecutor(4) as pool:
        wrong = [text for text in pool.map(judge, cases) if text]
    assert wrong == []
    assert list(canary.iterdir()) == []
    eventually(lambda: list((control.data / "incoming").iterdir()) == [], within_s=5)
    with control.client() as client:
        versions = client.get("/models/m1/versions", params={"limit": 500}).json()["items"]
        kept = {file["sha256"] for version in versions for file in version["files"]}
        digests = {version["digest"].removeprefix("sha256:") for version in versions}
    assert {path.name for path in (control.data / "artifacts").glob("*/*") if path.is_file()} == kept
    assert {path.name for path in (control.data / "packages").iterdir()} == digests
