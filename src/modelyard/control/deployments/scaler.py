"""Move the number of isolated workers with the load: gather what the servers report, decide, write it down.

The decision is pure (`modelyard.domain.scaling`). One that changes the number is a unit of work with its history entry,
in which its inputs stand; the reconciler then starts and stops workers. The latest decision of each service is kept in
memory, also those that change nothing, to answer "why 3?".
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from modelyard.control.deployments import store
from modelyard.control.deployments.routing import is_scaled
from modelyard.control.deployments.service import Deployments
from modelyard.control.deployments.state import Scaled, Service
from modelyard.control.deployments.steps import Event, Plan
from modelyard.control.deployments.workers import wanted_of
from modelyard.control.identity import system_actor
from modelyard.control.nodes import Board
from modelyard.domain.errors import ModelyardError
from modelyard.domain.routing import ServerReport
from modelyard.domain.scaling import Decision, Load, Thought, decide
from modelyard.domain.service import Phase

_LOG: Final = logging.getLogger(__name__)
EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """The latest decision about a service, and when it was made."""

    decision: Decision
    at: datetime


class Scaler:
    """One thread that looks after the numbers of all services. `start` once; `stop` waits for the look that runs."""

    def __init__(self, deployments: Deployments, board: Board, *, every_s: float = EVERY_S) -> None:
        self._deployments = deployments
        self._database = deployments.database
        self._board = board
        self._every_s = every_s
        self._latest: dict[tuple[str, str], Latest] = {}
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scaler", daemon=True)
        self._changed = threading.Event()  # services have: what is known of who is scaled may be old
        self._changed.set()
        self._any_scaled = False
        self._leave = self._database.subscribe(store.TOPIC, self._changed.set)
        board.listen(self._woken.set)

    def start(self) -> None:
        """Begin to look after the numbers."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present look. Idempotent."""
        self._leave()
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def latest(self, project: str, name: str) -> Latest | None:
        """The latest decision about a service; None when its number follows nothing."""
        return self._latest.get((project, name))

    def look(self) -> None:
        """Decide about every service whose number may move."""
        if not self._board.is_complete or not (self._any_scaled or self._changed.is_set()):
            return
        self._changed.clear()
        with self._database.read() as tx:
            services = [stored.service for stored in store.find_services(tx)]
            now = tx.now
        reports = self._board.alive()
        self._any_scaled = any(_is_scaled(service) for service in services)
        seen = set()
        for service in services:
            if _moves(service):
                seen.add((service.project, service.name))
                self._decide(service, reports, now)
        self._latest = {place: latest for place, latest in self._latest.items() if place in seen}

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.wait(self._every_s)
            self._woken.clear()
            try:
                with self._database.leading() as leads:
                    if leads and not self._stopped.is_set():
                        self.look()
            except ModelyardError as error:
                _LOG.warning("the services cannot be scaled now: %s", error)
            except Exception:  # noqa: BLE001  (the loop: it outlives whatever one look meets)
                _LOG.exception("a look at the load failed; the next one tries again")

    def _decide(self, service: Service, reports: Sequence[ServerReport], now: datetime) -> None:
        place, status = (service.project, service.name), service.status
        assert status.live is not None
        replicas = service.spec(status.live).replicas
        present = wanted_of(service, status.live)
        before = self._latest.get(place)
        fresh = (Thought(at=now.timestamp(), number=present),)  # after a start nothing is taken away at once
        decision = decide(
            replicas.scaling,
            bounds=(replicas.min, replicas.max),
            present=present,
            load=load_of(service, reports),
            thoughts=fresh if before is None else before.decision.thoughts,
            changed_at=0.0 if status.scaled is None else status.scaled.at,
            now=now,
        )
        self._latest[place] = Latest(decision=decision, at=now)
        if decision.wanted != present:
            self._write(service, present, decision)

    def _write(self, service: Service, present: int, decision: Decision) -> None:
        with self._database.begin() as tx:
            stored = store.find_any(tx, service.project, service.name)
            if stored is None or not _moves(stored.service) or stored.service.status.live != service.status.live:
                return
            status = stored.service.status
            assert status.live is not None
            scaled = Scaled(at=tx.now.timestamp(), wanted=decision.wanted, reason=decision.reason)
            payload = {"from": present, "to": decision.wanted, "reason": decision.reason, "inputs": decision.inputs}
            made = Plan(
                status=replace(status, wanted=decision.wanted, scaled=scaled),
                events=(Event(action="service.scaled", revision=status.live, payload=payload),),
            )
            store.carry_out(tx, stored.service, made, actor=system_actor("scaler"), publish=self._deployments.publish)


def load_of(service: Service, reports: Sequence[ServerReport]) -> Load:
    """What all servers together say of a service; the worst of their latencies."""
    said = [
        load
        for report in reports
        for load in report.loads
        if (load.project, load.service) == (service.project, service.name)
    ]
    if not said:
        return Load()
    latencies = [load.latency_ms for load in said if load.latency_ms is not None]
    return Load(
        in_flight=sum(load.in_flight for load in said),
        rate=sum(load.rate for load in said),
        latency_ms=max(latencies, default=None),
        waiting=sum(load.waiting for load in said),
        quiet_s=min(load.quiet_s for load in said),
    )


def _moves(service: Service) -> bool:
    """Whether the number may be changed now: it follows something, and no revision is on its way."""
    return service.status.phase is Phase.SERVING and _is_scaled(service)


def _is_scaled(service: Service) -> bool:
    live = service.status.live
    return live is not None and is_scaled(service.spec(live))
