"""Public clients in an environment of their own (built once from locks/clients.txt), and a server for them."""

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.domain.tensors import DataType

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".envs" / "clients"
LOCK_FILE = ROOT / "locks" / "clients.txt"
PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def clients_python() -> Path:
    """The interpreter of the clients' environment; built where it is absent or its lock file changed."""
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    stamp, python = ENVIRONMENT / "lock.txt", ENVIRONMENT / "bin" / "python"
    with (ENVIRONMENT.parent / "clients.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_bytes() != LOCK_FILE.read_bytes():
            uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
            if uv is None:
                pytest.skip("uv is not installed: the clients' environment cannot be built")
            subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, ENVIRONMENT], check=True)
            options = ["-q", "--require-hashes", "--compile-bytecode", "--python", python]
            subprocess.run([uv, "pip", "sync", *options, LOCK_FILE], check=True)
            stamp.write_bytes(LOCK_FILE.read_bytes())
    return python


@pytest.fixture(scope="session")
def run_client(clients_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Run one of the programs with these arguments; what it printed, read as JSON."""

    def run(program: str, *arguments: str) -> Any:
        done = subprocess.run(
            [clients_python, PROGRAMS / program, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path_factory.mktemp("client"),
            env={name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """HTTP and gRPC address of a server with m1, sorter, words, lines and columns."""
    path = ROOT / "tests" / "inference" / "conftest.py"
    spec = importlib.util.spec_from_file_location("data_plane_kit_for_clients", path)
    assert spec is not None
    assert spec.loader is not None
    kit = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kit)
    place = tmp_path_factory.mktemp("served")
    packages, servers = kit.Packages(place / "packages"), kit.Servers(place)
    column = DataType.FP32, -1, 1
    models = {
        "m1": kit.backend(packages.linear("m1", scale=2.0), version="3"),
        "sorter": kit.backend(packages.classifier()),
        "words": kit.backend(packages.same("words", kit.spec("s", DataType.BYTES, -1))),
        "lines": kit.backend(packages.same("lines", kit.spec("s", DataType.BYTES, -1, 1))),
        "columns": kit.backend(packages.same("columns", kit.spec("a", *column), kit.spec("b", *column))),
    }
    try:
        server = servers.start(kit.table(*(kit.service(*each) for each in models.items())), grpc_port=0)
        lines = Path(server.config["address_file"]).read_text().splitlines()
        yield f"127.0.0.1:{server.port}", next(line.split()[1] for line in lines if line.startswith("grpc "))
    finally:
        servers.close()
