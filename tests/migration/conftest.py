"""A real MLflow: its own environment (built once, shared by all workers), a real server with real models."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".envs" / "mlflow"
LOCK_FILE = ROOT / "locks" / "mlflow.txt"


def _uv():
    return shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@pytest.fixture(scope="session")
def mlflow_python():
    """The interpreter of the MLflow environment; built where it is absent or its lock file changed."""
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    stamp, python = ENVIRONMENT / "lock.txt", ENVIRONMENT / "bin" / "python"
    with (ENVIRONMENT.parent / "mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_bytes() != LOCK_FILE.read_bytes():
            uv = _uv()
            if uv is None:
                pytest.skip("uv is not installed: the MLflow environment cannot be built")
            subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, ENVIRONMENT], check=True)
            subprocess.run([uv, "pip", "sync", "-q", "--python", python, LOCK_FILE], check=True)
            stamp.write_bytes(LOCK_FILE.read_bytes())
    return python


@pytest.fixture(scope="session")
def mlflow_server(mlflow_python, tmp_path_factory):
    """(address, artifact folder) of a running `mlflow server` that holds the models of mlflow_log.py."""
    place = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address, artifacts = f"http://127.0.0.1:{port}", place / "artifacts"
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{place}/mlflow.db", "--artifacts-destination", str(artifacts)]
    quiet = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "GIT_PYTHON_REFRESH": "quiet"}
    with (place / "log").open("wb") as log:
        command = [mlflow_python, "-m", "mlflow", "server", *arguments, *stores]
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=place, env=quiet)
        try:
            _wait(address, server, place / "log")
            script = Path(__file__).with_name("mlflow_log.py")
            done = subprocess.run(
                [mlflow_python, script, address], capture_output=True, text=True, cwd=place, env=quiet, check=False
            )
            assert done.returncode == 0, done.stderr[-3000:]
            yield address, artifacts
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(20)


def _wait(address, server, log):
    end = time.monotonic() + 150
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(f"{address}/health", timeout=2).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)  # between two polls
    raise AssertionError(log.read_text()[-3000:])
