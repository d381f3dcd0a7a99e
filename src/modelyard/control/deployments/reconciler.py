"""Bring what runs to what is wanted: observe, plan, carry out, write down.

Level-triggered: a lost wake-up costs one sweep, and a crash between two steps costs nothing, for the next pass plans
again from what it then sees.
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from modelyard.control.deployments import store
from modelyard.control.deployments.following import follow_aliases
from modelyard.control.deployments.plan import plan
from modelyard.control.deployments.preparation import Prepare, nothing_to_prepare
from modelyard.control.deployments.routing import package_directory
from modelyard.control.deployments.service import Deployments
from modelyard.control.deployments.state import Preparation, Service
from modelyard.control.deployments.steps import Observed, Pace, Plan
from modelyard.control.deployments.store import Stored
from modelyard.control.deployments.workers import owner_prefix
from modelyard.control.identity import published_secrets, system_actor
from modelyard.control.nodes import TOPIC as NODES
from modelyard.control.nodes import Board, Roster
from modelyard.domain.contract import Isolation
from modelyard.domain.errors import ModelyardError
from modelyard.domain.routing import SealedSecret
from modelyard.ports.orchestrator import Replica, ReplicaSpec, ReplicaState

_LOG: Final = logging.getLogger(__name__)
_AGAIN: Final = 20
"""Passes in a row for one wake-up: a step often makes the next one possible at once."""


class Reconciler:
    """One thread that looks after all services. `start` once; `stop` waits for the pass that runs."""

    def __init__(
        self,
        deployments: Deployments,
        *,
        board: Board,
        roster: Roster,
        pace: Pace,
        prepare: Prepare = nothing_to_prepare,
    ) -> None:
        self._deployments = deployments
        self._database = deployments.database
        self._board = board
        self._roster = roster
        self._leaving: frozenset[str] = frozenset()
        self._targets = deployments.targets
        self._step = deployments.step
        self._pace = pace
        self._prepare = prepare
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)
        self._leave = [self._database.subscribe(topic, self._woken.set) for topic in (store.TOPIC, NODES)]
        board.listen(self._woken.set)

    def start(self) -> None:
        """Begin to look after the services."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present pass. Idempotent."""
        for leave in self._leave:
            leave()
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def reconcile(self) -> bool:
        """One pass over all services; whether anything changed."""
        follow_aliases(self._deployments)
        with self._database.read() as tx:
            present = store.find_services(tx)
        replicas = {kind: self._replicas(kind) for kind in self._targets.orchestrators}
        self._roster.see(replica for seen in replicas.values() for replica in (seen or {}).values())
        self._leaving = frozenset(self._roster.leaving())
        changed = [self._reconcile(stored, replicas) for stored in present]
        self._stop_orphans([stored.service for stored in present], replicas)
        return any(changed)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.wait(self._pace.sweep_s)
            self._woken.clear()
            for _ in range(_AGAIN):
                try:
                    with self._database.leading() as leads:
                        if self._stopped.is_set() or not leads or not self.reconcile():
                            break
                except Exception:  # noqa: BLE001  (the loop: it outlives whatever one pass meets)
                    _LOG.exception("a pass over the services failed; the next sweep tries again")
                    break

    def _replicas(self, kind: str) -> dict[str, Replica] | None:
        """What this orchestrator runs; None when it does not say."""
        try:
            return {replica.id: replica for replica in self._targets.orchestrators[kind].replicas()}
        except (ModelyardError, TimeoutError):
            return None

    def _reconcile(self, stored: Stored, replicas: Mapping[str, dict[str, Replica] | None]) -> bool:
        service = stored.service
        kinds = {self._targets.kind_of(revision.spec.target) for revision in service.revisions.values()}
        seen: dict[str, Replica] = {}
        for kind in kinds:
            found = None if kind is None else replicas[kind]
            if found is None and any(rev.spec.isolation is Isolation.PROCESS for rev in service.revisions.values()):
                return False  # nothing is known of its workers: leave everything as it is
            seen |= found or {}
        observed = replace(self._observe(seen), preparations=self._preparations(service))
        self._step("reconcile.observed")
        made = plan(service, observed, now=self._now(), pace=self._pace)
        self._step("reconcile.planned")
        made = self._start(service, made, seen.values())
        self._step("reconcile.started")
        changed = made.status != service.status or bool(made.events) or bool(made.outcomes)
        if changed and not self._write(stored, made):
            return True  # somebody asked for something else meanwhile: look again
        for kind in kinds - {None}:
            self._stop(kind or "", [name for name in made.stop if name in (replicas[kind or ""] or {})])
        self._step("reconcile.stopped")
        return changed

    def _observe(self, replicas: Mapping[str, Replica]) -> Observed:
        return Observed(
            servers=self._board.alive() if self._board.is_complete else (),
            alive_since=self._board.alive_since,
            replicas=replicas,
            packages=str(self._deployments.packages),
            leaving=self._leaving,
        )

    def _preparations(self, service: Service) -> dict[int, Preparation]:
        """What has to be built before workers of the service's revisions can start; building begins here."""
        found = {}
        for number in {service.status.live, service.status.candidate, service.status.goal} - {None}:
            if number is None or number in service.status.failed:
                continue
            spec = service.spec(number)
            if spec.isolation is Isolation.PROCESS:
                package = Path(package_directory(str(self._deployments.packages), spec.digest))
                known = self._prepare((service.project, service.name, number), package, self._woken.set)
                if known is not None:
                    found[number] = known
        return found

    def _start(self, service: Service, made: Plan, present: Iterable[Replica]) -> Plan:
        """Put each worker on a node and have it started; what stands in the way is the status's reason."""
        running = {replica.id: replica for replica in present}
        for replica in made.start:
            kind = self._targets.kind_of(service.spec(replica.revision).target)
            try:
                if kind is None:
                    continue
                orchestrator = self._targets.orchestrators[kind]
                places_itself = orchestrator.abilities().places_itself
                node = "" if places_itself else self._roster.place(replica, running.values()).node
                orchestrator.start(replace(replica, node=node, env=self._env(service, replica)))
                running[replica.id] = Replica(id=replica.id, state=ReplicaState.STARTING, address="", node=node)
            except (ModelyardError, TimeoutError) as error:
                return replace(made, status=replace(made.status, reason=str(error) or "the workers cannot be started"))
        return made

    def _env(self, service: Service, replica: ReplicaSpec) -> Mapping[str, SealedSecret]:
        """The variables of a worker, sealed as they are in the records now."""
        wanted = service.spec(replica.revision).env
        if not wanted:
            return {}
        with self._database.read() as tx:
            places = {(service.project, secret) for secret in wanted.values()}
            sealed = {one.name: one for one in published_secrets(tx, places)}
        return {variable: sealed[secret] for variable, secret in wanted.items() if secret in sealed}

    def _stop(self, kind: str, replicas: Sequence[str]) -> None:
        for replica in replicas:
            try:
                self._targets.orchestrators[kind].stop(replica, grace_s=self._pace.grace_s)
            except (ModelyardError, TimeoutError) as error:
                _LOG.warning("worker %s cannot be stopped now: %s", replica, error)

    def _write(self, stored: Stored, made: Plan) -> bool:
        service = stored.service
        actor = system_actor("reconciler")
        with self._database.begin() as tx:
            present = store.find_any(tx, service.project, service.name)
            if present is None or present.edition != stored.edition:
                return False
            store.carry_out(tx, service, made, actor=actor, publish=self._deployments.publish)
            self._step("reconcile.written")
        self._step("reconcile.committed")
        return True

    def _stop_orphans(self, services: Sequence[Service], replicas: Mapping[str, dict[str, Replica] | None]) -> None:
        """Workers of services that are no more: left when the platform ended between two steps."""
        prefixes = tuple(owner_prefix(service.project, service.name) for service in services)
        for kind, seen in replicas.items():
            self._stop(kind, [replica for replica in seen or {} if not replica.startswith(prefixes)])

    def _now(self) -> float:
        return self._database.clock.now().timestamp()
