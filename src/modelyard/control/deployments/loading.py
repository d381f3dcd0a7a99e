"""Unload a service, which keeps all that it is, and load it again: a change of status with its history, no revision.

What the model repository extension of the Open Inference Protocol means by it: an unloaded model is in the index and
takes no memory. Deploying another revision loads as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelyard.control.deployments import store
from modelyard.control.deployments.readiness import status_of
from modelyard.control.deployments.service import Deployments, require_standing
from modelyard.control.deployments.state import NEXT_TABLE, Service
from modelyard.control.history import append
from modelyard.control.identity import Principal, require
from modelyard.domain.access import Verb
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict
from modelyard.domain.routing import ServerReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far the servers are with what was asked: `done`, or `failed` for the reason, or neither yet."""

    done: bool = False
    failed: str = ""


def set_loaded(deployments: Deployments, who: Principal, project: str, name: str, *, loaded: bool) -> int:
    """Load or unload a service; gives the table that says so. Asking for what is so already changes nothing.

    Raises:
        NotFound, Forbidden: the service, or the scope deploy.
        Conflict: no revision of it ever answered, or another one is on its way.
    """
    require(who, Verb.DEPLOY, project=project, name=name, what=f"service {quote(name)}")
    with deployments.database.begin() as tx:
        service = store.find(tx, project, name).service
        require_standing(service)
        status = service.status
        if status.unloaded is not loaded:
            return deployments.publish(tx)
        _require_settled(service, loaded=loaded)
        changed = replace(
            status,
            unloaded=not loaded,
            warm=status.warm if loaded else (),
            draining=status.draining if loaded else (*status.draining, *(each.revision for each in status.warm)),
            awaiting=NEXT_TABLE,
            reason="" if loaded else f"unloaded by {who.name}",
        )
        saved = store.save(tx, project, name, changed, publish=deployments.publish)
        append(
            tx,
            actor=who.actor,
            action="service.loaded" if loaded else "service.unloaded",
            subject=f"service/{name}",
            project=project,
            payload={"service": name, "project": project, "live": status.live, "table": saved.awaiting},
        )
        return saved.awaiting or 0


def look(deployments: Deployments, project: str, name: str, *, servers: Sequence[ServerReport], table: int) -> Standing:
    """How far `servers` are with a change that was asked for; `set_loaded` has checked who asks."""
    with deployments.database.read() as tx:
        return standing(store.find(tx, project, name).service, servers, table=table)


def standing(service: Service, servers: Sequence[ServerReport], *, table: int) -> Standing:
    """How far `servers` are with a service that was loaded or unloaded by `table`."""
    live, loaded = service.status.live, not service.status.unloaded
    if live is None or not servers or any(report.table_revision < table for report in servers):
        return Standing()
    said = [status_of(report, service.spec(live), live) for report in servers]
    states = [None if status is None else status.state for status in said]
    if not loaded:
        return Standing(done=not {"loading", "ready"}.intersection(states))
    reasons = [status.reason for status in said if status is not None and status.state == "failed"]
    if reasons and all(state in {"ready", "failed"} for state in states):
        return Standing(failed=reasons[0] or "it cannot be loaded")
    return Standing(done=all(state == "ready" for state in states))


def _require_settled(service: Service, *, loaded: bool) -> None:
    status = service.status
    if status.live is None:
        raise Conflict(f"no revision of {quote(service.name)} is live yet", hint="deploy a version that can be served")
    if status.candidate is not None and not loaded:
        raise Conflict(
            f"revision {status.candidate} of {quote(service.name)} is on its way",
            hint="unload it when that is done, or abort the rollout first",
        )
