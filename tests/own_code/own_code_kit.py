"""Bundles of own code, wheels made of what is installed here, and a worker that a test can talk to."""

import base64
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelyard.domain.contract import Isolation, ModelFormat, ServingPackage
from modelyard.foundation.documents import to_json, write_package
from modelyard.foundation.environments import CodePolicy, Environment, Environments, base_interpreter
from modelyard.inference.routing.frames import FrameReader, Kind, pack_tensors, run_frame, unpack_tensors
from modelyard.inspection.code_bundle import inputs_as, read_contract

DOUBLE = """
import numpy as np

def load(path):
    return None

def predict(inputs):
    return {"y": inputs["x"].sum(axis=1, keepdims=True) * 2}
"""
CONFIG: dict[str, Any] = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
}
X = np.arange(8, dtype="f4").reshape(2, 4)


def write_bundle(
    directory: Path, source: str = DOUBLE, *, lock: str = "", config: Mapping[str, Any] = CONFIG, **files: bytes
) -> Path:
    """A bundle of own code in `directory`; `files` are further ones, `__` in a name stands for its dot."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "predict.py").write_text(source)
    (directory / "requirements.lock").write_text(lock)
    (directory / "config.json").write_text(json.dumps(config))
    for name, data in files.items():
        (directory / name.replace("__", ".")).write_bytes(data)
    return directory


def as_package(bundle: Path) -> Path:
    """The bundle with the `package.json` that the audit would write."""
    config = json.loads((bundle / "config.json").read_text())
    contract = read_contract(config, ())
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in bundle.iterdir()}
    package = ServingPackage(
        name="own",
        digest="sha256:" + "0" * 64,
        format=ModelFormat.PYTHON,
        runtime="python_code",
        entry="predict.py",
        platform="python",
        contract=contract,
        isolation=Isolation.PROCESS,
        files=files,
        options={"inputs_as": inputs_as(config, contract)},
    )
    write_package(bundle, package)
    return bundle


def borrow_environment(root: Path, package: Path, policy: CodePolicy) -> Path:
    """An environment that is the one of the tests themselves: nothing has to be installed."""
    lock = hashlib.sha256((package / "requirements.lock").read_bytes()).hexdigest()
    place = root / lock
    place.mkdir(parents=True, exist_ok=True)
    site = next(path for path in sys.path if path.endswith("site-packages"))
    (place / "environment.json").write_bytes(
        to_json(Environment(python=base_interpreter(), site=site, builder="borrowed"))
    )
    Environments(root).write_policy(policy)
    return root


@dataclass(frozen=True)
class Wheelhouse:
    """A folder of wheels and the lock line of each."""

    folder: Path
    lines: Mapping[str, str]


@dataclass
class Worker:
    """A running worker, asked over its own socket as a model server would."""

    process: subprocess.Popen[bytes]
    path: Path
    log: Path
    hello: dict[str, Any] = field(default_factory=dict)
    channel: socket.socket | None = None
    reader: FrameReader = field(default_factory=FrameReader)
    waiting: list[tuple[Kind, int, bytes]] = field(default_factory=list)
    asked: int = 0

    def connect(self, *, limit_s: float = 20.0) -> "Worker":
        """Wait until it listens, and take its hello."""
        end = time.monotonic() + limit_s
        while True:
            self.channel = socket.socket(socket.AF_UNIX)
            self.channel.settimeout(limit_s)
            try:
                self.channel.connect(str(self.path))
                break
            except OSError:
                self.channel.close()
                if self.process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"the worker does not listen: {self.log.read_text()}") from None
                time.sleep(0.02)
        kind, _, payload = self.next()
        assert kind is Kind.HELLO
        self.hello = msgspec.msgpack.decode(payload)
        return self

    def next(self) -> tuple[Kind, int, bytes]:
        """The next frame."""
        assert self.channel is not None
        while not self.waiting:
            data = self.channel.recv(1 << 16)
            if not data:
                raise EOFError
            self.waiting += self.reader.feed(data)
        return self.waiting.pop(0)

    def ask(self, **inputs: np.ndarray[Any, Any]) -> tuple[Kind, Any]:
        """Run one batch; the kind of the answer, and tensors or the text of the failure."""
        assert self.channel is not None
        self.asked += 1
        self.channel.sendall(run_frame(self.asked, pack_tensors(inputs), left_ms=60_000))
        while True:
            kind, number, payload = self.next()
            if kind in (Kind.ANSWER, Kind.FAILURE):
                assert number == self.asked
                return kind, unpack_tensors(payload) if kind is Kind.ANSWER else msgspec.msgpack.decode(payload)["text"]

    def failure(self, **inputs: np.ndarray[Any, Any]) -> str:
        """The text of the failure that these inputs end in."""
        kind, text = self.ask(**inputs)
        assert kind is Kind.FAILURE, text
        return str(text)


@contextmanager
def running_worker(place: Path, source: str, *, policy: CodePolicy | None = None, **bundle: Any) -> Iterator[Worker]:
    """A worker of this source, not yet connected to; gone afterwards."""
    package = as_package(write_bundle(place / "bundle", source, **bundle))
    environments = borrow_environment(place / "environments", package, policy or CodePolicy())
    path, log = Path(f"/tmp/my-own-{os.getpid()}-{time.monotonic_ns():x}.sock"), place / "worker.log"
    config = {"package": str(package), "socket": str(path), "title": "modelyard: model-worker own 0"}
    (place / "worker.json").write_text(json.dumps({**config, "environments": str(environments)}))
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "modelyard.processes.model_worker", "--config", str(place / "worker.json")],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    worker = Worker(process, path, log)
    try:
        yield worker
    finally:
        if worker.channel is not None:
            worker.channel.close()
        with suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        path.unlink(missing_ok=True)
        subprocess.run(["rm", "-rf", f"{path}.d"], check=False)


def make_wheel(folder: Path, name: str, version: str, files: Mapping[str, bytes], tag: str = "py3-none-any") -> str:
    """A wheel (PEP 427) of these files in `folder`; gives the line that a lock file has for it."""
    info = f"{name}-{version}.dist-info"
    whole = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for path, data in whole.items()
    )
    whole[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    partial = path.with_suffix(f".{os.getpid()}")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for member, data in whole.items():
            archive.writestr(member, data)
    digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    partial.replace(path)
    return f"{name}=={version} --hash=sha256:{digest}\n"


def wheel_of_installed(folder: Path, name: str) -> str:
    """A wheel of a package that is installed here, so that tests build real environments offline."""
    found = distribution(name)
    files = {}
    for path in found.files or []:
        text = str(path)
        if not text.startswith("..") and "__pycache__" not in text and ".dist-info/" not in text:
            files[text] = Path(str(path.locate())).read_bytes()
    wheel = found.read_text("WHEEL") or ""
    tag = re.findall(r"^Tag: (\S+)", wheel, re.MULTILINE)[-1]
    return make_wheel(folder, re.sub(r"[-.]+", "_", found.metadata["Name"]), found.version, files, tag)
