"""What a control plane is made of: built once by the process, read by every capability's routes.

Routes find it with `parts_of(request)`. Services of a capability are put in by type, so that no capability needs to
know the composition root and the composition root needs no list of fields that grows with the product.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

from modelyard.control.records.database import Database
from modelyard.foundation.clock import Clock
from modelyard.foundation.places import Places
from modelyard.foundation.settings import Settings
from modelyard.ports.artifact_store import ArtifactStore

T = TypeVar("T")


class HasApp(Protocol):
    """A request of the web framework, as far as it concerns us."""

    @property
    def app(self) -> Any:  # noqa: ANN401  (the framework's own object)
        """The application that serves it."""


@dataclass(kw_only=True)
class ControlParts:
    """The shared parts. `pepper` is the key of the key hashes; `metrics` gives the Prometheus text of `/metrics`."""

    database: Database
    settings: Settings
    clock: Clock
    places: Places
    artifacts: ArtifactStore
    pepper: bytes
    auth_required: bool = False
    metrics: Callable[[], bytes] | None = None
    _services: dict[type[Any], object] = field(default_factory=dict)

    def put(self, kind: type[T], service: T) -> None:
        """Make a capability's service known under its type."""
        self._services[kind] = service

    def has(self, kind: type[Any]) -> bool:
        """Whether a service of this type was put in."""
        return kind in self._services

    def get(self, kind: type[T]) -> T:
        """The service of this type; `LookupError` when the process was put together without it."""
        try:
            return cast("T", self._services[kind])
        except KeyError as error:
            raise LookupError(f"this control plane has no {kind.__name__}") from error


def parts_of(request: HasApp) -> ControlParts:
    """The parts of the application that serves `request`."""
    return cast("ControlParts", request.app.state.parts)
