"""This machine as a node: what it has, what it gives, and which model runs where and why."""

import os
import platform
from typing import Any

import psutil

from modelyard.control.nodes.board import Board
from modelyard.domain.routing import BackendStatus, ServerReport


def node_documents(board: Board) -> list[dict[str, Any]]:
    """All nodes; on the local orchestrator this machine alone."""
    memory = psutil.virtual_memory()
    alive, silent = board.alive(), board.silent()
    return [
        {
            "name": platform.node() or "localhost",
            "state": "ready" if alive else "silent" if silent else "empty",
            "cpus": os.cpu_count() or 1,
            "load": round(os.getloadavg()[0], 2),
            "memory_bytes": memory.total,
            "memory_available_bytes": memory.available,
            "servers": [
                *(_server(report, "ready", board) for report in alive),
                *(_server(report, "silent", board) for report in silent),
            ],
            "models": sorted({f"{each.project}/{each.service}:{each.version}" for r in alive for each in r.backends}),
        }
    ]


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
    }
