"""What has to be on this machine before a worker can start: the environment of own code, built from its lock file.

Building takes from a second to many minutes, so it happens in a thread beside the reconciler, which is woken when it is
over. A failure stays with the revision that met it; asking again is a new revision, and a new build. What is built is
kept by the digest of the lock file and serves every version and service that has the same one.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from modelyard.control.deployments.state import Preparation, PreparationState
from modelyard.domain.errors import ModelyardError
from modelyard.domain.errors.platform import NotFound
from modelyard.foundation.clock import Clock
from modelyard.foundation.documents import read_package
from modelyard.foundation.environments import LOCK_FILE, Environments, lock_to_build

_LOG: Final = logging.getLogger(__name__)
_AT_ONCE: Final = 2
_REASON_CHARS: Final = 1500
Key = tuple[str, str, int]
"""Project, service, revision."""


class Prepare(Protocol):
    """Tells how far the preparation of a package is, and begins it when nobody has."""

    def __call__(self, key: Key, package: Path, wake: Callable[[], None], /) -> Preparation | None:
        """None when there is nothing to prepare. `wake` is called when the state changes."""


def nothing_to_prepare(key: Key, package: Path, wake: Callable[[], None]) -> None:
    """For platforms that start no workers of own code."""
    del key, package, wake


class EnvironmentPreparer:
    """Builds environments, two at a time. Called by one thread."""

    def __init__(self, environments: Environments, clock: Clock) -> None:
        self._environments = environments
        self._clock = clock
        self._known: dict[Key, Preparation] = {}
        self._nothing: set[Path] = set()
        self._places = threading.BoundedSemaphore(_AT_ONCE)

    def __call__(self, key: Key, package: Path, wake: Callable[[], None], /) -> Preparation | None:
        """See `Prepare`."""
        known = self._known.get(key)
        if known is not None and known.state is PreparationState.FAILED:
            return known
        if known is not None and known.state is PreparationState.BUILDING:
            return self._with_progress(known, package)
        digest = self._lock_digest(package)
        if digest is None:
            return None
        try:
            self._environments.find(digest)
        except NotFound:
            begun = self._note(key, PreparationState.BUILDING, "its environment is being built")
            work = threading.Thread(
                target=self._build, args=(key, package / LOCK_FILE, digest, wake), name="environment", daemon=True
            )
            work.start()
            return begun
        return known

    def _lock_digest(self, package: Path) -> str | None:
        """The digest of the package's lock file; None when there is nothing to build for it."""
        if package in self._nothing:
            return None
        try:
            read = read_package(package)
        except (OSError, ValueError):
            return None  # the worker says what is wrong with the package
        digest = lock_to_build(read)
        if digest is None:
            self._nothing.add(package)
        return digest

    def _build(self, key: Key, lock: Path, digest: str, wake: Callable[[], None]) -> None:
        try:
            with self._places:
                self._environments.ensure(lock, digest, say=_LOG.info)
            self._note(key, PreparationState.READY, "")
        except ModelyardError as error:
            text = f"{error.detail}\nhint: {error.hint}" if error.hint else error.detail
            self._note(key, PreparationState.FAILED, text[:_REASON_CHARS])
        except Exception as error:  # noqa: BLE001  (the edge of a thread: a builder may raise anything)
            _LOG.exception("an environment could not be built")
            self._note(key, PreparationState.FAILED, f"the builder failed: {type(error).__name__}: {error}"[:500])
        wake()

    def _with_progress(self, known: Preparation, package: Path) -> Preparation:
        """`known` with the installer's last line."""
        digest = self._lock_digest(package)
        last = "" if digest is None else self._environments.last_line(digest)
        reason = f"{known.reason}: {last}" if last else known.reason
        return Preparation(state=known.state, reason=reason, at=known.at)

    def _note(self, key: Key, state: PreparationState, reason: str) -> Preparation:
        noted = Preparation(state=state, reason=reason, at=self._clock.now().timestamp())
        self._known[key] = noted
        return noted
