"""Faults of disk and database: flipped bits, half-written uploads, a database that somebody else holds."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from tests.faults import models
from tests.faults.experiment import Run, experiment
from tests.faults.stand import Stand, within

from modelyard.foundation.supervision.supervisor import CALM_S

_LOAD = """
import sys
from pathlib import Path
from modelyard.domain.errors import ModelyardError
from modelyard.inference.hosting import load_model
from modelyard.ports.runtime import LoadOptions

for line in sys.stdin:
    try:
        load_model(Path(line.strip()), options=LoadOptions()).model.close()
        print("loaded", flush=True)
    except ModelyardError as error:
        print(f"refused {error.detail}", flush=True)
    except Exception as error:
        print(f"raised {type(error).__name__}: {error}".replace(chr(10), " "), flush=True)
"""


@experiment("S05")
def flipped_bits(run: Run) -> None:
    """One random bit of a stored model, again and again: nothing of it is ever loaded."""
    stand = run.stand()
    service = stand.linear("beside")
    package = stand.platform.places.packages / service.digest.removeprefix("sha256:")
    copy = stand.directory / "flipped"
    outcomes: Counter[str] = Counter()
    rounds = 8 if run.scale.short else 100
    loader = subprocess.Popen(
        [sys.executable, "-c", _LOAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    run.cleanup.enter_context(loader)
    run.cleanup.callback(loader.kill)
    assert loader.stdin is not None
    assert loader.stdout is not None
    for _ in range(rounds):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(package, copy)
        name = run.chance.choice(sorted(path.name for path in copy.iterdir() if path.name != "package.json"))
        flip(run, copy / name)
        loader.stdin.write(f"{copy}\n")
        loader.stdin.flush()
        outcomes[loader.stdout.readline().split(" ")[0]] += 1
    run.figures["loads"] = dict(outcomes)
    run.check("loads of a flipped file", outcomes["loaded"], at_most=0)
    run.check("refused with the reason", outcomes["refused"], at_least=rounds, detail=str(outcomes))
    _flip_where_it_serves(run, stand)


def flip(run: Run, path: Path) -> None:
    """Change one random bit of a file."""
    data = bytearray(path.read_bytes())
    at = run.chance.randrange(len(data) * 8)
    data[at // 8] ^= 1 << (at % 8)
    path.chmod(0o600)
    path.write_bytes(data)


def _flip_where_it_serves(run: Run, stand: Stand) -> None:
    """The file of a running service: it goes on answering; a server that starts anew refuses the file, and says so."""
    service = stand.linear("flipped")
    package = stand.platform.places.packages / service.digest.removeprefix("sha256:")
    file = next(path for path in package.iterdir() if path.suffix == ".onnx")
    whole = file.read_bytes()
    run.cleanup.callback(file.write_bytes, whole)
    with run.load(service, rate=run.scale.rate / 2) as load:
        load.wait_s(1.0)
        run.inject("flip a bit of a model that is being served", lambda: flip(run, file))
        victim = stand.platform.pid_of("model-server-1")
        run.inject("SIGTERM model-server-1", lambda: os.kill(victim, signal.SIGTERM))
        within(lambda: stand.platform.pid_of("model-server-1") != victim, limit_s=30.0)
        said = within(lambda: "damaged" in stand.control("GET", "/services/flipped").text, limit_s=30.0)
        load.wait_s(1.0)
    wrong = [entry for entry in load.ledger.failed if entry.outcome != "refused"]
    run.check("wrong answers", len(wrong), at_most=0, detail=str(wrong[:3]))
    run.check("said by the service's status after", said, at_most=25.0, unit="s")
    file.write_bytes(whole)
    victim = stand.platform.pid_of("model-server-1")
    os.kill(victim, signal.SIGTERM)
    within(lambda: stand.platform.pid_of("model-server-1") != victim, limit_s=30.0)
    stand.wait_ready()


@experiment("S07", short=False)
def half_written_uploads(run: Run) -> None:
    """Clients that go in the middle of an upload, and a control plane that is killed in the middle of one."""
    stand = run.stands.fresh("--servers", "1")
    run.cleanup.callback(run.stands.discard, stand)
    file = models.linear(stand.directory / "models" / "half.onnx", scale=3.0)
    body, boundary = _multipart(file)
    rounds = 6 if run.scale.short else 100
    for number in range(rounds):
        cut = run.chance.randrange(1, len(body))
        _send(stand, body[:cut], len(body), boundary)
        run.note(f"client gone after {cut} bytes ({number})")
    back = time.monotonic()
    for _ in range(1 if run.scale.short else 100):
        cut = run.chance.randrange(1, len(body))
        before = stand.platform.pid_of("control-plane")
        if not run.scale.short:  # else the pauses before it is started again would grow from kill to kill
            within(lambda back=back: time.monotonic() - back > CALM_S + 0.5, limit_s=30.0)
        held = _send(stand, body[:cut], len(body), boundary, keep=True)
        run.inject("kill -9 control-plane", lambda before=before: os.kill(before, signal.SIGKILL))
        within(lambda before=before: stand.platform.pid_of("control-plane") != before, limit_s=30.0)
        within(lambda: _answers(stand), limit_s=60.0)
        back = time.monotonic()
        held.close()
    visible = stand.control("GET", "/models").json()["items"]
    left = within(lambda: not _leftovers(stand), limit_s=70.0)
    run.check("versions visible", len(visible), at_most=0, detail=str(visible))
    run.check("temporary files after", len(_leftovers(stand)), at_most=0)
    run.check("cleaned up within", left, at_most=60.0, unit="s")
    with stand.client() as client:
        version = client.upload(file, name="half")
        kept = client.request("GET", f"{stand.platform.control_url}/api/v1/models/half/versions/1/files/half.onnx")
    run.check("bytes of the upload after that differ", float(kept.content != file.read_bytes()), at_most=0)
    run.check("it is", float(version.state == "approved"), at_least=1)


def _multipart(file: Path) -> tuple[bytes, str]:
    boundary = "half-written"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n\r\n'
    return head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode(), boundary


def _send(stand: Stand, data: bytes, length: int, boundary: str, *, keep: bool = False) -> socket.socket:
    parts = urlsplit(stand.platform.control_url)
    connection = socket.create_connection((str(parts.hostname), parts.port or 80), timeout=10)
    head = (
        f"POST /api/v1/models/half/versions HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {length}\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\n\r\n"
    )
    connection.sendall(head.encode() + data)
    if not keep:
        connection.close()
    return connection


def _answers(stand: Stand) -> bool:
    with suppress(httpx.HTTPError):
        return stand.control("GET", "/models").status_code == httpx.codes.OK
    return False


def _leftovers(stand: Stand) -> list[Path]:
    return [path for path in stand.platform.places.incoming.rglob("*") if path.is_file()]


@experiment("D01")
def locked_database(run: Run) -> None:
    """Another writer holds the database; predictions do not notice, changes wait or are refused with 503."""
    stand = run.stand()
    service = stand.linear("beside")
    hold_s = 3.0 if run.scale.short else 10.0
    answers: list[tuple[int, float]] = []
    over = threading.Event()
    writer = threading.Thread(target=_write, args=(stand, over, answers), daemon=True)
    with run.load(service) as load:
        run.steady(load)
        writer.start()
        with closing(sqlite3.connect(stand.platform.places.database, timeout=30, isolation_level=None)) as other:
            run.inject("BEGIN EXCLUSIVE", lambda: other.execute("BEGIN EXCLUSIVE"))
            load.wait_s(hold_s)
            run.inject("ROLLBACK", lambda: other.execute("ROLLBACK"))
        load.wait_s(2.0)
        over.set()
        writer.join(60)
        run.after(load)
    run.check_no_failures(load)
    statuses = Counter(status for status, _ in answers)
    run.figures["control answers"] = {str(status): count for status, count in statuses.items()}
    done = statuses[200] + statuses[201]
    run.check("changes answered otherwise than with success or 503", len(answers) - done - statuses[503], at_most=0)
    longest = max((seconds for _, seconds in answers), default=0.0)
    run.check("longest wait of a change", longest, at_most=20.0 if run.scale.short else 11.0, unit="s")
    run.check("changes that went through", done, at_least=1)
    tags = stand.control("GET", "/models/beside").json()
    kept = int(tags.get("description") or -1)
    run.check("last change that was answered with success is kept", kept, at_least=_last_done(answers))


def _write(stand: Stand, over: threading.Event, answers: list[tuple[int, float]]) -> None:
    number = 0
    while not over.is_set():
        began = time.monotonic()
        answer = stand.control("PATCH", "/models/beside", json={"description": str(number)})
        answers.append((answer.status_code, time.monotonic() - began))
        number += 1
        over.wait(0.1)


def _last_done(answers: list[tuple[int, float]]) -> int:
    return max((number for number, (status, _) in enumerate(answers) if status < 300), default=-1)
