"""What an upload is while the platform has it: where it goes, how far it is, and what came of it."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modelyard.control.catalog import VersionRecord
from modelyard.control.identity import Actor, Principal
from modelyard.domain.errors import ModelyardError
from modelyard.domain.report import AuditReport, Check


class UploadState(StrEnum):
    """How far an upload is. The last four are final."""

    RECEIVING = "receiving"
    WAITING = "waiting"
    CHECKING = "checking"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where an upload goes and who sent it. `version` None takes the next number.

    `alias` is pointed at the new version when it is approved at once, with the rights of `sender`. `source` says where
    the model comes from, in plain JSON values; it is kept with the version.
    """

    project: str
    model: str
    author: Actor
    version: str | None = None
    alias: str | None = None
    sender: Principal | None = None
    source: Mapping[str, Any] = field(default_factory=lambda: {"kind": "upload"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The end of an upload: the version that it became, or the error that says why it did not."""

    audit: AuditReport | None = None
    version: VersionRecord | None = None
    error: ModelyardError | None = None


@dataclass(slots=True)
class Progress:
    """An upload that is being checked. Threads of the pool write, those of requests read; listeners are told."""

    id: str
    target: Target
    state: UploadState = UploadState.WAITING
    checks: list[Check] = field(default_factory=list)
    decision: Decision | None = None
    finished: "Future[Decision]" = field(default_factory=Future)
    _listeners: list[Callable[[], None]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def on_check(self, check: Check) -> None:
        """One check is done."""
        self.state = UploadState.CHECKING
        self.checks.append(check)
        self._tell()

    def finish(self, decision: Decision, state: UploadState) -> None:
        """Nothing more will happen."""
        self.decision = decision
        self.state = state
        self.finished.set_result(decision)
        self._tell()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` (quick, from any thread) after every change; returns what ends it."""
        with self._lock:
            self._listeners.append(listener)

        def leave() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return leave

    def _tell(self) -> None:
        with self._lock:
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()


Describe = Callable[[ModelyardError], Mapping[str, Any]]
"""Turns an error into the problem document that the API would answer."""
