"""Build environments with the pip of the interpreter that shall run the code."""

import subprocess
from typing import Final

from modelyard.foundation.environments import base_interpreter
from modelyard.integrations.environments.installing import install, prepare, sources
from modelyard.ports.environments import BuildOrder

_ASK_S: Final = 30.0


class PipBuilder:
    """The builder `pip`."""

    name = "pip"

    def is_available(self) -> bool:
        """Whether our own base interpreter has pip."""
        asked = subprocess.run(
            [base_interpreter(), "-I", "-m", "pip", "--version"], capture_output=True, timeout=_ASK_S, check=False
        )
        return asked.returncode == 0

    def build(self, order: BuildOrder) -> None:
        """`pip install --target`; see `EnvironmentBuilder`."""
        lock, pins = prepare(order)
        if not pins:
            return
        hashed = ["--require-hashes"] if all(pin.hashes for pin in pins) else []
        wheels = [] if order.sdists else ["--only-binary", ":all:"]
        install(
            [
                *(order.python, "-m", "pip", "install"),
                *("--target", str(order.site)),
                *("--no-deps", "--no-input", "--progress-bar", "off", *wheels, *hashed),
                *sources(order),
                *("--requirement", str(lock)),
            ],
            order,
        )
