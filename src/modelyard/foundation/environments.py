"""Environments of own code on this machine: one directory a lock file, built once, whole or not at all.

    ROOT/<sha256 of the lock>/environment.json   which interpreter, and where the packages lie
    ROOT/<sha256 of the lock>/site/              the packages
    ROOT/<sha256 of the lock>.log                what the installer said
    ROOT/policy.json                             what workers of own code may use

A package may say (`options["library"]`) that it needs no environment where that library is installed beside us.

An environment appears by a rename after everything is installed. Two builders of one lock wait for each other.
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from modelyard.domain.contract import ModelFormat, ServingPackage
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import NotFound, NotSupported, StartRefused
from modelyard.foundation.documents import from_json, to_json
from modelyard.foundation.registry import Registry
from modelyard.foundation.settings import EnvironmentSettings
from modelyard.ports.environments import BuildOrder, EnvironmentBuilder

BUILDERS: Final = Registry[EnvironmentBuilder](
    group="modelyard.environment_builders",
    builtin={
        "uv": "modelyard.integrations.environments.uv:UvBuilder",
        "pip": "modelyard.integrations.environments.pip:PipBuilder",
    },
)
LOCK_FILE: Final = "requirements.lock"
_OWN_ENVIRONMENT: Final = frozenset({ModelFormat.PYTHON, ModelFormat.TORCH_EXPORT})
_IN_ORDER: Final = ("uv", "pip")
_RECORD: Final = "environment.json"
_POLICY: Final = "policy.json"
_TAIL_CHARS: Final = 350
_LINE_CHARS: Final = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A built environment: the interpreter and the directory of its packages."""

    python: str
    site: str
    builder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodePolicy:
    """What a worker of own code may use: bytes of address space and of one file, seconds a run, the network."""

    memory_bytes: int = 4 << 30
    file_bytes: int = 1 << 30
    run_limit_s: float = 60.0
    network: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """How environments are built; the fields of `BuildOrder`, and `builder`: "auto", "uv", "pip" or a plugin's name."""

    builder: str = "auto"
    index: str = ""
    wheels: Path | None = None
    python: str = ""
    sdists: bool = False
    timeout_s: float = 900.0


class Environments:
    """All environments below `root`."""

    def __init__(self, root: Path, settings: BuildSettings | None = None) -> None:
        self.root = root
        self._settings = settings or BuildSettings()

    def find(self, lock_digest: str) -> Environment:
        """The environment of a lock file with this hex SHA-256; `NotFound` when it is not built."""
        try:
            return from_json((self.root / lock_digest / _RECORD).read_bytes(), Environment)
        except (OSError, ValueError) as error:
            raise NotFound(
                "the environment of this code is not built on this machine",
                hint="deploy the version again: its environment is built before its first worker starts",
            ) from error

    def ensure(self, lock: Path, lock_digest: str, *, say: Callable[[str], None]) -> Environment:
        """The environment of `lock`, built now if it is not there. `say` hears what is being done, line by line.

        Raises:
            StartRefused: it cannot be built; with the end of the installer's log.
        """
        python = self._settings.python or base_interpreter()
        with self._alone(lock_digest):
            with suppress(NotFound):
                found = self.find(lock_digest)
                if found.python == python:
                    return found
            builder = self._builder()
            say(f"building the environment with {builder.name}; log {self.log(lock_digest)}")
            return self._build(builder, lock, lock_digest, python=python)

    def log(self, lock_digest: str) -> Path:
        """What the installer said of this lock file."""
        return self.root / f"{lock_digest}.log"

    def last_line(self, lock_digest: str) -> str:
        """The last thing that the installer said of this lock file."""
        return next(reversed(_tail(self.log(lock_digest))), "")

    def policy(self) -> CodePolicy:
        """What workers may use; the defaults where nothing was written."""
        try:
            return from_json((self.root / _POLICY).read_bytes(), CodePolicy)
        except FileNotFoundError:
            return CodePolicy()

    def write_policy(self, policy: CodePolicy) -> None:
        """Say what workers that are started from now on may use."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self.root / f"{_POLICY}.new"
        draft.write_bytes(to_json(policy))
        draft.replace(self.root / _POLICY)

    def _build(self, builder: EnvironmentBuilder, lock: Path, lock_digest: str, *, python: str) -> Environment:
        place = self.root / f"{lock_digest}.building-{os.getpid()}"
        final, log = self.root / lock_digest, self.log(lock_digest)
        for left in self.root.glob(f"{lock_digest}.building-*"):  # of a builder that died: the lock is ours
            shutil.rmtree(left, ignore_errors=True)
        site = place / "site"
        site.mkdir(parents=True, mode=0o700)
        log.unlink(missing_ok=True)
        wish = self._settings
        order = BuildOrder(
            lock=lock,
            site=site,
            python=python,
            log=log,
            index=wish.index,
            wheels=wish.wheels,
            sdists=wish.sdists,
            timeout_s=wish.timeout_s,
        )
        try:
            builder.build(order)
            record = Environment(python=python, site=str(final / "site"), builder=builder.name)
            (place / _RECORD).write_bytes(to_json(record))
            shutil.rmtree(final, ignore_errors=True)
            place.rename(final)
        except StartRefused as error:
            words = "\n".join([error.detail, *_tail(log)])
            raise StartRefused(
                words, hint=f"{error.hint}; the whole log: {log}" if log.exists() else error.hint
            ) from error
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return record

    def _builder(self) -> EnvironmentBuilder:
        name = self._settings.builder
        wanted = _IN_ORDER if name == "auto" else (name,)
        for each in wanted:
            builder = BUILDERS.get(each)()
            if builder.is_available():
                return builder
        raise NotSupported(
            f"the installer {quote(name)} is not on this machine" if name != "auto" else "neither uv nor pip is here",
            hint="pip install uv",
        )

    @contextmanager
    def _alone(self, lock_digest: str) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self.root / f"{lock_digest}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def lock_to_build(package: ServingPackage) -> str | None:
    """The hex SHA-256 of the lock file whose environment this package runs in; None when there is none to build."""
    if package.format not in _OWN_ENVIRONMENT or environment_beside(package) is not None:
        return None
    return package.files.get(LOCK_FILE)


def environment_beside(package: ServingPackage) -> Environment | None:
    """This installation as an environment, where it has the library that the package asks for; nothing is imported."""
    library = package.options.get("library")
    found = find_spec(library) if library else None
    if found is None or found.origin is None:
        return None
    return Environment(python=base_interpreter(), site=str(Path(found.origin).parent.parent), builder="installed")


def base_interpreter() -> str:
    """The interpreter under this one, outside any virtual environment."""
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def environments_of(root: Path, settings: EnvironmentSettings) -> Environments:
    """The environments below `root`, built and used as `settings` say; the policy of workers is written."""
    build = BuildSettings(
        builder=settings.builder,
        index=settings.index,
        wheels=Path(settings.wheel_folder).resolve() if settings.wheel_folder else None,
        python=settings.python,
        sdists=settings.allow_sdists,
        timeout_s=settings.build_timeout_s,
    )
    environments = Environments(root, build)
    environments.write_policy(
        CodePolicy(memory_bytes=settings.memory_mib << 20, run_limit_s=settings.run_limit_s, network=settings.network)
    )
    return environments


def _tail(log: Path) -> list[str]:
    """The last lines that the installer wrote, as many as an error has room for."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    kept: list[str] = []
    for line in reversed([line.strip()[:_LINE_CHARS] for line in lines if line.strip()]):
        if sum(map(len, kept)) + len(line) > _TAIL_CHARS:
            break
        kept.insert(0, line)
    return kept
