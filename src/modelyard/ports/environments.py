"""Environments of own code: the packages of a lock file, installed where one interpreter finds them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    """What to install, from where, and where to.

    `site` is an empty directory that becomes a place for packages of the interpreter `python`. `index` is "" (no index
    is asked), "default" (what the installer is set up with on this machine) or a URL. `wheels` is a folder of wheels,
    asked first. Without `sdists` only wheels are installed, so that no code of a package runs. `log` takes all output.
    """

    lock: Path
    site: Path
    python: str
    log: Path
    index: str = ""
    wheels: Path | None = None
    sdists: bool = False
    timeout_s: float = 900.0


class EnvironmentBuilder(Protocol):
    """Installs lock files. Blocks; several may run at once in different directories."""

    name: str

    def is_available(self) -> bool:
        """Whether its installer is on this machine."""

    def build(self, order: BuildOrder) -> None:
        """Install what the lock names, and nothing else; digests in it are checked.

        Raises:
            StartRefused: the installer failed or took too long; the text says why, in its own last words.
        """
