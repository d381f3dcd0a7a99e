"""The environment that own code is served in: built from its lock file before the first worker starts."""

from collections.abc import Callable
from pathlib import Path

from modelyard.domain.contract import Isolation, ServingPackage
from modelyard.foundation.environments import LOCK_FILE, BuildSettings, Environments, lock_to_build
from modelyard.ports.runtime import ProgramRuntime


def build_environment(
    package: ServingPackage, directory: Path, *, index: str | None, wheels: Path | None, say: Callable[[str], None]
) -> None:
    """Build what `package` needs beside `directory`, if it is own code; `say` hears what is being done.

    The person at the terminal has asked for it (`--trust`), so packages come from where their installer is set up to
    find them, unless a folder of wheels or an index is given.

    Raises:
        StartRefused: the environment cannot be built; with the end of the installer's log.
    """
    if package.isolation is not Isolation.PROCESS:
        return  # own code never runs anywhere else
    from modelyard.inference.hosting import RUNTIMES  # numpy is loaded for this alone

    digest = lock_to_build(package)
    if digest is None or not isinstance(RUNTIMES.get(package.runtime)(), ProgramRuntime):
        return
    source = index if index is not None else "default" if wheels is None else ""
    settings = BuildSettings(index=source, wheels=None if wheels is None else wheels.resolve())
    environments = Environments(directory.parent / "environments", settings)
    environments.ensure(directory / LOCK_FILE, digest, say=say)
