"""The folder's own kit is importable by name, and wheels are made once for all test processes."""

import fcntl
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from own_code_kit import Wheelhouse, wheel_of_installed

_PACKAGES = ("numpy", "pandas", "python-dateutil", "onnxruntime")


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Wheelhouse:
    """Wheels of what is installed here: real packages, no network."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "wheelhouse"
    folder.mkdir(exist_ok=True)
    with (folder.parent / "wheelhouse.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = {}
        for name in _PACKAGES:
            note = folder / f"{name}.line"
            if not note.exists():
                note.write_text(wheel_of_installed(folder, name))
            lines[name] = note.read_text()
    return Wheelhouse(folder, lines)
