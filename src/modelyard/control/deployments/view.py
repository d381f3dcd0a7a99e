"""What the API says of services and revisions, as plain JSON, with why it is so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.control.deployments.answerers import is_relayed
from modelyard.control.deployments.readiness import status_of
from modelyard.control.deployments.routing import is_scaled
from modelyard.control.deployments.scaler import Latest
from modelyard.control.deployments.state import Revision, Service
from modelyard.control.deployments.store import Stored, moment
from modelyard.control.deployments.workers import wanted_of
from modelyard.domain.names import DEFAULT_PROJECT
from modelyard.domain.rollout import Strategy
from modelyard.domain.routing import ServerReport
from modelyard.foundation.documents import to_plain
from modelyard.foundation.metrics.inputs import InputAccount


@dataclass(frozen=True, slots=True)
class Addresses:
    """What answers print: the base URL of the inference listener."""

    inference_url: str


def service_document(stored: Stored, *, servers: Sequence[ServerReport], inference_url: str) -> dict[str, Any]:
    """A service: what was asked, what answers, how far it is, and what every server says."""
    service = stored.service
    status = service.status
    shown = status.live if status.live is not None else status.goal
    spec = service.spec(shown)
    failed = status.goal in status.failed
    return {
        "name": service.name,
        "project": service.project,
        "phase": status.phase.value,
        "reason": status.reason,
        "loaded": not status.unloaded,
        "problem": status.reason if failed else None,
        "revision": shown,
        "goal": status.goal,
        "live": status.live,
        "model": spec.model,
        "version": spec.version,
        "digest": spec.digest,
        "spec": to_plain(service.spec(status.goal)),
        "rollout": _rollout(service),
        "warm": [{"revision": each.revision, "until": moment(each.until)} for each in status.warm],
        "conditions": _conditions(service, servers),
        "servers": [row for number in status.kept for row in _servers(service, number, servers)],
        "workers": [address.rsplit("/", 1)[-1] for address in status.workers_of(shown)],
        "url": url_of(service, inference_url),
        "created_at": stored.created_at.isoformat(),
        "updated_at": stored.updated_at.isoformat(),
    }


def revision_document(revision: Revision) -> dict[str, Any]:
    """A revision: who wanted what, when and why, and what became of it."""
    return {
        "revision": revision.number,
        "model": revision.spec.model,
        "version": revision.spec.version,
        "digest": revision.spec.digest,
        "state": revision.state.value,
        "by": revision.actor,
        "why": revision.why,
        "created_at": moment(revision.created_at),
        "live_at": None if revision.live_at is None else moment(revision.live_at),
        "reason": revision.reason or revision.why,
        "spec": to_plain(revision.spec),
    }


def rollout_document(stored: Stored) -> dict[str, Any]:
    """What is on its way to the traffic and how far, and what was rejected, with the reasons."""
    service, status = stored.service, stored.service.status
    return {
        "name": service.name,
        "project": service.project,
        "phase": status.phase.value,
        "reason": status.reason,
        "live": None if status.live is None else _version(service, status.live),
        "candidate": None if status.candidate is None else _version(service, status.candidate),
        "rollout": _rollout(service),
        "warm": [{**_version(service, each.revision), "until": moment(each.until)} for each in status.warm],
        "rejected": [
            {"digest": digest, "reason": status.rejections.get(digest, "it did not become ready")}
            for digest in status.rejected
        ],
    }


def scaling_document(stored: Stored, latest: Latest | None) -> dict[str, Any]:
    """How many workers a service has and why: the latest decision, and the last one that changed the number."""
    service, status = stored.service, stored.service.status
    shown = status.live if status.live is not None else status.goal
    replicas = service.spec(shown).replicas
    decision = None if latest is None else latest.decision
    return {
        "name": service.name,
        "project": service.project,
        "replicas": to_plain(replicas),
        "wanted": wanted_of(service, shown),
        "follows_load": is_scaled(service.spec(shown)),
        "reason": "" if decision is None else decision.reason,
        "inputs": {} if decision is None else dict(decision.inputs),
        "decided_at": None if latest is None else latest.at.isoformat(),
        "last_change": None if status.scaled is None else {**to_plain(status.scaled), "at": moment(status.scaled.at)},
    }


def _version(service: Service, revision: int) -> dict[str, Any]:
    spec = service.spec(revision)
    return {"revision": revision, "model": spec.model, "version": spec.version, "digest": spec.digest}


def _rollout(service: Service) -> dict[str, Any] | None:
    """How far traffic has moved; None when nothing is on its way."""
    status = service.status
    if status.candidate is None:
        return None
    way, progress = service.spec(status.candidate).rollout, status.rollout
    return {
        "revision": status.candidate,
        "strategy": way.strategy.value,
        "steps": list(way.shares) if way.strategy is Strategy.CANARY else [],
        "guard": way.guard.value if way.strategy is Strategy.CANARY else None,
        "step": None if progress is None else progress.step,
        "weight": 0 if progress is None else progress.weight,
        "since": moment(status.since if progress is None else progress.since),
        "paused": progress is not None and progress.paused,
        "returning": bool(status.returning),
        "reason": status.reason if progress is None or not progress.reason else progress.reason,
    }


def account_document(account: InputAccount) -> dict[str, Any]:
    """What became of every request of a service, by reason where there are several."""
    return {
        "received": account.received,
        "answered": account.answered,
        "rejected": dict(account.rejected),
        "lost": dict(account.lost),
        "in_flight": account.in_flight,
        "balanced": account.is_balanced,
    }


def url_of(service: Service, inference_url: str) -> str:
    """The address at which the service answers; in the OpenAI dialect the base, to which clients add the rest."""
    where = "" if service.project == DEFAULT_PROJECT else f"/p/{service.project}"
    spec = service.spec(service.status.live if service.status.live is not None else service.status.goal)
    below = "/v1" if is_relayed(spec.upstream) else f"/v2/models/{service.name}"
    return f"{inference_url.rstrip('/')}{where}{below}"


def _conditions(service: Service, servers: Sequence[ServerReport]) -> list[dict[str, Any]]:
    status = service.status
    ready = 0
    if status.live is not None:
        said = [status_of(report, service.spec(status.live), status.live) for report in servers]
        ready = sum(each is not None and each.state == "ready" for each in said)
    available = f"{ready} of {len(servers)} model servers answer with revision {status.live}"
    waiting = 0 if status.awaiting is None else sum(each.table_revision < status.awaiting for each in servers)
    return [
        {"type": "Available", "status": ready > 0, "reason": available if status.live else "no revision is live yet"},
        {"type": "Progressing", "status": status.candidate is not None, "reason": status.reason},
        {
            "type": "Acknowledged",
            "status": status.awaiting is None,
            "reason": _unacknowledged(waiting, status.awaiting, servers) if waiting else "",
        },
    ]


def _unacknowledged(waiting: int, table: int | None, servers: Sequence[ServerReport]) -> str:
    said = [f"{report.server}: {report.table_refused}" for report in servers if report.table_refused]
    return "; ".join([f"{waiting} model servers have not taken over table {table}", *said])


def _servers(service: Service, revision: int, servers: Sequence[ServerReport]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for report in servers:
        said = status_of(report, service.spec(revision), revision)
        rows.append(
            {
                "server": report.server,
                "revision": revision,
                "version": service.spec(revision).version,
                "state": "unknown" if said is None else said.state,
                "load_s": None if said is None else said.load_s,
                "memory_bytes": None if said is None else said.memory_bytes,
                "device": None if said is None else said.device or None,
                "reason": "" if said is None else said.reason,
            }
        )
    return rows
