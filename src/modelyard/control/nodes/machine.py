"""Nodes as the API shows them: what each has, what it gives, and what runs there and why."""

import os
from collections.abc import Mapping
from typing import Any

import psutil

from modelyard.control.nodes.board import Board
from modelyard.control.nodes.roster import Node, Roster
from modelyard.domain.nodes import NodeWish
from modelyard.domain.routing import BackendStatus, ServerReport
from modelyard.ports.orchestrator import Replica


def node_documents(board: Board, roster: Roster) -> list[dict[str, Any]]:
    """All nodes. The listening servers belong to the machine as a whole, so the first node shows them."""
    return [_document(node, board if index == 0 else None, roster) for index, node in enumerate(roster.nodes())]


def _document(node: Node, board: Board | None, roster: Roster) -> dict[str, Any]:
    alive, silent = (board.alive(), board.silent()) if board is not None else ((), ())
    workers = roster.replicas_on(node.name)
    models = {f"{each.project}/{each.service}:{each.version}" for r in alive for each in r.backends}
    return {
        "name": node.name,
        "state": _state(node, alive, silent),
        "why": node.why,
        "reported_s_ago": node.age_s,
        **_capacity(node),
        "servers": [
            *(_server(report, "ready", board) for report in alive if board is not None),
            *(_server(report, "silent", board) for report in silent if board is not None),
        ],
        "workers": [_worker(replica, why) for replica, why in workers],
        "models": sorted(models),
    }


def _state(node: Node, alive: tuple[ServerReport, ...], silent: tuple[ServerReport, ...]) -> str:
    if not node.answers or (silent and not alive):
        return "silent"
    return "ready" if node.wish is NodeWish.OPEN else node.wish.value


def _capacity(node: Node) -> Mapping[str, object]:
    report = node.report
    if report is not None:
        return {
            "cpus": report.cpus,
            "load": report.load,
            "memory_bytes": report.memory_bytes,
            "memory_available_bytes": report.memory_available_bytes,
        }
    memory = psutil.virtual_memory()
    return {
        "cpus": os.cpu_count() or 1,
        "load": round(os.getloadavg()[0], 2),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
    }


def _worker(replica: Replica, why: str) -> dict[str, Any]:
    project, service, revision, _ = replica.id.rsplit(".", 3)
    return {
        "id": replica.id,
        "project": project.replace("~", "."),
        "service": service.replace("~", "."),
        "revision": revision,
        "state": replica.state.value,
        "restarts": replica.restarts,
        "reason": replica.reason,
        "moving_to": replica.moving_to,
        "why": why,
    }


def _server(report: ServerReport, state: str, board: Board) -> dict[str, Any]:
    age = board.age_s(report.server)
    return {
        "name": report.server,
        "pid": report.pid,
        "state": state,
        "started_at": report.started_at,
        "reported_s_ago": None if age is None else round(age, 3),
        "table": report.table_revision,
        "in_flight": report.in_flight,
        "models": [_model(status) for status in report.backends],
    }


def _model(status: BackendStatus) -> dict[str, Any]:
    why = f"service {status.project}/{status.service} asks for it in revision {status.revision}"
    return {
        "project": status.project,
        "service": status.service,
        "version": status.version,
        "digest": status.digest,
        "revision": status.revision,
        "state": status.state,
        "reason": status.reason,
        "why": why,
        "load_s": status.load_s,
        "memory_bytes": status.memory_bytes,
        "device": status.device or None,
    }
