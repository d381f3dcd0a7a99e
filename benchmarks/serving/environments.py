"""The peers' own environments: made once under .envs/peers from the lock files in locks/peers."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.serving.peers.base import ROOT, python

LOCKS = ROOT / "locks" / "peers"
_PACKAGES = {"triton": "nvidia-pytriton"}


def install(names: Iterable[str]) -> None:
    """Make the environments that are not there, or not of the present lock."""
    uv = str(Path(sys.executable).with_name("uv"))
    for name in names:
        lock = LOCKS / f"{name}.txt"
        environment = Path(python(name)).parents[1]
        mark = environment / "lock.txt"
        if mark.exists() and mark.read_bytes() == lock.read_bytes():
            continue
        print(f"installing {name} …", flush=True)
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(environment)], check=True)
        subprocess.run([uv, "pip", "sync", "-q", "--require-hashes", "--python", python(name), str(lock)], check=True)
        mark.write_bytes(lock.read_bytes())


def version(name: str) -> str:
    """The peer's locked version."""
    package = _PACKAGES.get(name, name)
    found = re.search(rf"^{package}(?:\[\w+\])?==(\S+)", (LOCKS / f"{name}.txt").read_text(), re.MULTILINE)
    return found[1] if found else ""
