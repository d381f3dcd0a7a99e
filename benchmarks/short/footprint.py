"""What an installation takes: packages and bytes of locks/runtime.txt in a fresh environment."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import Figure

_LOCK = "locks/runtime.txt"
_ROOT = Path(__file__).parents[2]


def measure() -> list[Figure]:
    """Packages, and megabytes without bytecode (which the interpreter writes when it first imports)."""
    uv = str(Path(sys.executable).with_name("uv"))
    with tempfile.TemporaryDirectory() as place:
        environment = Path(place) / "env"
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(environment)], check=True)
        interpreter = str(environment / "bin" / "python")
        subprocess.run(
            [uv, "pip", "sync", "-q", "--require-hashes", "--python", interpreter, str(_ROOT / _LOCK)], check=True
        )
        site = next((environment / "lib").glob("python3.*/site-packages"))
        packages = len(list(site.glob("*.dist-info")))
        size = sum(_sizes(site)) + sum(_sizes(_ROOT / "src" / "modelyard"))
    command = f"uv pip sync {_LOCK}"
    return [
        Figure(name="packages installed", values=(packages,), unit="", command=command, aim=45),
        Figure(name="size installed", values=(size / 1e6,), unit="MB", command=command, aim=350),
    ]


def _sizes(directory: Path) -> list[int]:
    return [
        os.lstat(os.path.join(folder, file)).st_size  # noqa: PTH118  (ten thousands of files)
        for folder, _, files in os.walk(directory)
        for file in files
        if not file.endswith(".pyc")
    ]
