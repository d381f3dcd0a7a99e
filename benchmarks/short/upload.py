"""Receiving an upload of 1 GiB against reading, hashing and writing the same file in one plain pass.

With `Prefer: respond-async` the answer comes when all bytes are on the disk and hashed, before the audit.
"""

import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from benchmarks.figures import Figure
from benchmarks.serving.trees import end, memory

_SIZE, _BLOCK = 1 << 30, 1 << 20
_EDGE = "----one-part-of-an-upload"
_COMMAND = "curl -H 'Prefer: respond-async' -F files=@large.onnx …/api/v1/models/large/versions"


def measure(rounds: int = 3) -> list[Figure]:
    """Throughput of the copy ÷ throughput of the upload, in pairs, and what the control plane's memory grew by."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        source = place / "large.onnx"
        block = os.urandom(16 * _BLOCK)
        with source.open("wb") as stream:
            for _ in range(_SIZE // len(block)):
                stream.write(block)
        process, url = _start(place / "data")
        try:
            before = memory([process.pid]).rss
            pairs, peaks = [], []
            for number in range(rounds):
                copied = _copy(source, place / "copy")
                sent = _upload(source, url, f"large-{number}")
                peaks.append(memory([process.pid]).rss)
                pairs.append((copied, sent))
        finally:
            end([process], grace_s=30)
    mib = _SIZE / 2**20
    return [
        Figure(
            name="upload of 1 GiB ÷ plain copy with hashing, throughput",
            values=tuple(copied / sent for copied, sent in pairs),
            unit="ratio",
            command=_COMMAND,
            aim=0.5,
            better="more",
        ),
        Figure(
            name="upload", values=tuple(mib / sent for _, sent in pairs), unit="MiB/s", command=_COMMAND, better="more"
        ),
        Figure(
            name="plain copy with hashing",
            values=tuple(mib / copied for copied, _ in pairs),
            unit="MiB/s",
            command="read, sha256, write in blocks of 1 MiB",
            better="more",
        ),
        Figure(name="memory of the platform grew by", values=(max(peaks) - before,), unit="MiB", command=_COMMAND),
    ]


def _start(data: Path) -> tuple[psutil.Popen, str]:
    program = str(Path(sys.executable).with_name("modelyard"))
    command = [program, "up", "--data", str(data), "--json", "--servers", "1"]
    ports = ["--control-port", "0", "--inference-port", "0", "--grpc-port", "0"]
    process = psutil.Popen([*command, *ports], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("modelyard up did not start")
    return process, str(json.loads(line)["control_url"])


def _copy(source: Path, target: Path) -> float:
    began = time.perf_counter()
    digest = hashlib.sha256()
    with source.open("rb", buffering=0) as reading, target.open("wb", buffering=0) as writing:
        while block := reading.read(_BLOCK):
            digest.update(block)
            writing.write(block)
    digest.hexdigest()
    took = time.perf_counter() - began
    target.unlink()
    return took


def _upload(source: Path, url: str, name: str) -> float:
    """Send it as curl would, and wait for the 202."""
    address = urlsplit(url)
    head = f'--{_EDGE}\r\nContent-Disposition: form-data; name="files"; filename="large.onnx"\r\n\r\n'.encode()
    tail = f"\r\n--{_EDGE}--\r\n".encode()
    began = time.perf_counter()
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
    connection.putrequest("POST", f"/api/v1/models/{name}/versions")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={_EDGE}")
    connection.putheader("Content-Length", str(len(head) + _SIZE + len(tail)))
    connection.putheader("Prefer", "respond-async")
    connection.endheaders()
    assert isinstance(connection.sock, socket.socket)
    connection.sock.sendall(head)
    with source.open("rb") as stream:
        connection.sock.sendfile(stream)
    connection.sock.sendall(tail)
    answer = connection.getresponse()
    text = answer.read()
    took = time.perf_counter() - began
    if answer.status != http.HTTPStatus.ACCEPTED:
        raise RuntimeError(f"{answer.status}: {text[:300]!r}")
    _await_decision(connection, answer.headers["Location"])
    connection.close()
    return took


def _await_decision(connection: http.client.HTTPConnection, location: str) -> None:
    """Let the audit end before the next measurement."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        connection.request("GET", location)
        document = json.loads(connection.getresponse().read())
        if document.get("state") not in {"receiving", "checking", "running", "waiting"}:
            return
        time.sleep(0.2)
    raise TimeoutError(location)
