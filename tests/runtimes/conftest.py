"""Models for the runtimes, and an environment of its own for torch, which is too large for everybody's."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".envs" / "torch"
LOCK_FILE = ROOT / "src" / "modelyard" / "inspection" / "children" / "torch_export.lock"

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def torch_python() -> Path:
    """An interpreter that has torch (its CPU build) and, after it, all that the tests have; built once by plain pip.

    The CPU build is asked for by its own version, which only a folder of wheels or torch's own index has: never the
    build for GPUs, which is several gigabytes.
    """
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    stamp, python = ENVIRONMENT / "lock.txt", ENVIRONMENT / "bin" / "python"
    with (ENVIRONMENT.parent / "torch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_bytes() != LOCK_FILE.read_bytes():
            _build(python)
            stamp.write_bytes(LOCK_FILE.read_bytes())
    return python


def _build(python: Path) -> None:
    pins = LOCK_FILE.read_text().splitlines()
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*install, f"{torch}+cpu"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{torch}+cpu is not to be had here (a folder of wheels or torch's CPU index has it)")
    subprocess.run([*install, *(pin for pin in pins if pin != torch)], check=True)
    site = next((ENVIRONMENT / "lib").glob("python3.*")) / "site-packages"
    beside = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "beside.pth").write_text(f"{beside}\n{ROOT / 'src'}\n")
