"""Backups made while the platform is written to: restored elsewhere, compared, started and asked."""

import hashlib
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Self

import httpx
from tests.faults import models
from tests.faults.experiment import Run, experiment
from tests.faults.stand import Service, Stand, within

from modelyard.testing.platform import Platform


class Writer:
    """Makes projects one after the other, and uploads between them; `acknowledged` grows with each success."""

    def __init__(self, stand: Stand) -> None:
        self.acknowledged: list[str] = []
        self.uploads: list[str] = []
        self.refused: Counter[int] = Counter()
        self._stand = stand
        self._over = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._projects, self._uploads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(120)

    def _projects(self) -> None:
        number = 0
        while not self._over.is_set():
            name = f"p-{number}"
            answer = self._stand.control("POST", "/projects", json={"name": name})
            if answer.is_success:
                self.acknowledged.append(name)
            else:
                self.refused[answer.status_code] += 1
            number += 1
            self._over.wait(0.01)

    def _uploads(self) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            file = models.linear(self._stand.directory / "models" / f"copied-{number}.onnx", scale=10.0 + number)
            with self._stand.client() as client:
                self.uploads.append(client.upload(file, name="copied").digest)
            self._over.wait(0.5)


@experiment("B01", short=False)
def backups_while_writing(run: Run) -> None:
    """Everything acknowledged before a backup began is in it, with its bytes; the last one is started and asked."""
    stand = run.stands.fresh("--servers", "1")
    run.cleanup.callback(run.stands.discard, stand)
    service = stand.linear("smoke")
    place = run.stands.folder()
    known: list[tuple[Path, set[str], set[str]]] = []
    rounds = 2 if run.scale.short else 20
    with Writer(stand) as writer, stand.client() as client:
        within(lambda: len(writer.acknowledged) > 5 and writer.uploads, limit_s=60.0)
        for number in range(rounds):
            before = set(writer.acknowledged), set(writer.uploads)
            file = place / f"{number}.modelyard"
            run.inject(f"backup {number}, {len(before[0])} rows acknowledged", lambda file=file: client.backup(file))
            known.append((file, *before))
            time.sleep(run.chance.random())
        rows = len(writer.acknowledged)
    run.figures |= {"rows acknowledged": rows, "uploads": len(writer.uploads), "refused": dict(writer.refused)}
    missing, dangling, files = 0, 0, 0
    for file, projects, digests in known:
        data = place / f"{file.stem}-restored"
        began = time.monotonic()
        _restore(file, data)
        found = _compare(data, projects, digests)
        missing, dangling, files = missing + found[0], dangling + found[1], files + found[2]
    run.check("backups restored", len(known), at_least=rounds)
    run.check("rows and versions acknowledged before that are missing", missing, at_most=0)
    run.check("files that are named and not there, or have other bytes", dangling, at_most=0)
    run.check("files compared", files, at_least=rounds)
    wrong = _ask(run, service, place, known[-1][0])
    run.check("right answers of the restored platform that differ", wrong, at_most=0)
    run.check("from the file to the first answers", time.monotonic() - began, at_most=300.0, unit="s")


def _restore(file: Path, data: Path) -> None:
    command = [sys.executable, "-m", "modelyard.cli", "restore", str(file), "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def _compare(data: Path, projects: set[str], digests: set[str]) -> tuple[int, int, int]:
    """Missing rows, files that are named and not there or damaged, and how many files were compared."""
    with closing(sqlite3.connect(data / "modelyard.db")) as connection:
        kept = {name for (name,) in connection.execute("SELECT name FROM projects")}
        versions = {digest for (digest,) in connection.execute("SELECT digest FROM model_versions")}
        named = {sha256 for (sha256,) in connection.execute("SELECT sha256 FROM version_files")}
    stored = {path.name: path for path in (data / "artifacts").rglob("*") if path.is_file()}
    whole = {name for name in named & stored.keys() if hashlib.sha256(stored[name].read_bytes()).hexdigest() == name}
    return len(projects - kept) + len(digests - versions), len(named - whole), len(named)


def _ask(run: Run, service: Service, place: Path, file: Path) -> int:
    """How many of the service's questions the restored platform answers otherwise than the first one did."""
    directory = place / "again"
    directory.mkdir()
    _restore(file, directory / "data")
    again = Platform(directory)
    run.cleanup.callback(again.end)
    again.start()
    headers = {"content-type": "application/json"}

    def answer(body: bytes) -> bytes:
        response = httpx.post(again.inference_url + service.path, content=body, headers=headers, trust_env=False)
        return response.content if response.status_code == httpx.codes.OK else b""

    within(lambda: answer(service.questions[0].body), limit_s=60.0)
    return sum(answer(question.body) != question.answer for question in service.questions)
