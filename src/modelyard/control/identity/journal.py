"""How identity writes history without knowing it: the capability above hands its `append` in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from modelyard.control.identity.principal import Actor
from modelyard.control.records import Transaction


class Journal(Protocol):
    """Adds an entry to the unit of work in which the change is made."""

    def __call__(
        self,
        tx: Transaction,
        *,
        actor: Actor,
        action: str,
        subject: str,
        project: str | None,
        payload: Mapping[str, Any] | None = None,
    ) -> str:
        """Write the entry and return its id."""


@dataclass(frozen=True, slots=True)
class JournalBook:
    """The journal among the parts of a control plane, for identity's own routes."""

    write: Journal
