"""Build environments with uv: quick, and its cache makes a second build of the same wheels a matter of links."""

import shutil
import sys
from pathlib import Path

from modelyard.domain.errors.platform import NotSupported
from modelyard.integrations.environments.installing import install, prepare, sources
from modelyard.ports.environments import BuildOrder


class UvBuilder:
    """The builder `uv`."""

    name = "uv"

    def is_available(self) -> bool:
        """Whether uv is beside this interpreter or on the path."""
        return _find() is not None

    def build(self, order: BuildOrder) -> None:
        """`uv pip install --target`; see `EnvironmentBuilder`."""
        program = _find()
        if program is None:
            raise NotSupported("uv is not on this machine", hint="pip install uv, or environments.builder: pip")
        lock, pins = prepare(order)
        if not pins:
            return
        hashed = ["--require-hashes"] if all(pin.hashes for pin in pins) else []
        wheels = [] if order.sdists else ["--no-build"]
        install(
            [
                program,
                "pip",
                "install",
                *("--python", order.python),
                *("--target", str(order.site)),
                *("--no-deps", "--no-progress", "--compile-bytecode", *wheels, *hashed),
                *sources(order),
                *("--requirements", str(lock)),
            ],
            order,
        )


def _find() -> str | None:
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.is_file() else shutil.which("uv")
