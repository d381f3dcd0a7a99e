"""Faults of the control plane that leads the others: killed, and stopped for so long that another one leads."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tests.faults.experiment import Run, Unable, experiment
from tests.faults.register import TABLES
from tests.faults.stand import Stand, within

from modelyard.testing.platform import wait_until
from modelyard.testing.postgres import PostgresMissing, PostgresServer, running_postgres

ROOT = Path(__file__).parents[3]
_ONCE = ("service.created", "service.revision_live", "service.changed")


@experiment(
    "C03", injection="kill -9 of the control plane that leads, in the middle of a deployment, with its supervisor"
)
def leader_killed(run: Run) -> None:
    """Another one leads in time, finishes the deployment, and nothing was done twice."""
    server = _postgres(run)
    url, shared = server.make(), run.stands.folder()
    settings = f"records:\n  url: {url}\n  files: {shared}\n"
    stands = [run.stands.fresh("--servers", "1", settings=settings) for _ in range(2)]
    database = url.rpartition("/")[2]
    stands[1].linear("counted", scale=2.0)
    for stand in stands:
        wait_until(lambda stand=stand: _live(stand, "counted"), limit_s=60, what="a service that both serve")
    rounds = 1 if run.scale.short else 5
    failovers: list[float] = []
    for number in range(rounds):
        leader, other = _by_lead(server, database, stands)
        before = _lease(server, database)[0]
        deployed = other.control("POST", "/services", json={"name": f"s{number}", "model": "counted"})
        assert deployed.status_code == 202, deployed.text
        time.sleep(run.chance.random() * 0.5)
        run.inject(f"the leader of token {before} is killed", lambda leader=leader: _kill(leader))
        failovers.append(within(lambda before=before: _lease(server, database)[0] > before, limit_s=60))
        wait_until(lambda other=other, n=number: _live(other, f"s{n}"), limit_s=120, what="a service that is deployed")
        os.kill(_supervisor(leader), signal.SIGCONT)
        wait_until(lambda leader=leader: _answers(leader), limit_s=120, what="a control plane that is started again")
    run.figures["failovers_s"] = [round(each, 2) for each in failovers]
    run.check("new leader", max(failovers), at_most=10, unit="s")
    run.check("things done twice", len(doubles := _doubles(server, database)), at_most=0, detail=str(doubles[:3]))
    run.check("deployments that went on", rounds, at_least=rounds)


@experiment("C04", injection="SIGSTOP of the process that leads and writes; SIGCONT when another one leads")
def leader_paused(run: Run) -> None:
    """What the stale leader tries to write is refused, and the register is counted on without a gap."""
    server = _postgres(run)
    url = server.make()
    database = url.rpartition("/")[2]
    server.ask(TABLES, database)
    writers = [Writer.start(run, url, name) for name in ("first", "second")]
    rounds, pause_s = (2, 0.5) if run.scale.short else (5, 30.0)
    stale = sum(_pause_the_leader(run, server, database, writers, pause_s) for _ in range(rounds))
    for writer in writers:
        writer.process.kill()
    log = server.ask("SELECT value, token, name FROM register_log ORDER BY value, place", database)
    value = server.ask("SELECT value FROM register", database)[0][0]
    newest, accepted = 0, 0
    for _, token, _ in log:
        accepted += token < newest
        newest = max(newest, token)
    run.figures |= {"writes": len(log), "pauses": rounds, "changes of hands": newest}
    run.check("attempts with an old token", stale, at_least=100)
    run.check("writes with an old token that were accepted", accepted, at_most=0)
    run.check("updates that are lost", value - len({row[0] for row in log}), at_most=0)
    run.check("updates that are written twice", len(log) - len({row[0] for row in log}), at_most=0)
    run.check("writers that led", len({name for _, _, name in log}), at_least=2)


def _pause_the_leader(run: Run, server: PostgresServer, database: str, writers: list["Writer"], pause_s: float) -> int:
    """Stop the one that leads until another one has written; how often it was refused after it went on."""
    leader = wait_until(lambda: _writing(server, database, writers), limit_s=60, what="a writer that leads")
    time.sleep(run.chance.random() * 0.2)
    token = _lease(server, database)[0]
    began = time.monotonic()
    run.inject(f"{leader.name} is stopped", lambda: os.kill(leader.process.pid, signal.SIGSTOP))
    wait_until(lambda: _written_after(server, database, token), limit_s=90, what="a write of the next leader")
    time.sleep(max(0.0, pause_s - (time.monotonic() - began)))
    refused = leader.refused()
    run.inject(f"{leader.name} goes on, another leads", lambda: os.kill(leader.process.pid, signal.SIGCONT))
    wait_until(lambda: leader.refused() > refused, limit_s=90, what="a stale writer that gave up")
    return leader.refused() - refused


@dataclass
class Writer:
    """One process that counts; what it says is kept in a file."""

    name: str
    process: "subprocess.Popen[bytes]"
    output: Path
    said: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def start(cls, run: Run, url: str, name: str) -> "Writer":
        """Start it; it ends with the experiment."""
        output = run.stands.folder() / f"{name}.jsonl"
        command = [sys.executable, "-m", "tests.faults.register", url, name]
        with output.open("wb") as stream:
            process = subprocess.Popen(command, cwd=ROOT, stdout=stream)
        run.cleanup.callback(process.wait)
        run.cleanup.callback(process.kill)
        writer = cls(name, process, output)
        wait_until(lambda: "started" in output.read_text(), limit_s=120, what="a writer that has started")
        return writer

    def refused(self) -> int:
        """Writes with an old token that were refused to it, as far as it said."""
        lines = [json.loads(line) for line in self.output.read_text().splitlines() if line.endswith("}")]
        return sum(line["refused"] for line in lines if line["event"] == "gave up")


def _postgres(run: Run) -> PostgresServer:
    try:
        return run.cleanup.enter_context(running_postgres(durable=True))
    except PostgresMissing as missing:
        raise Unable(str(missing)) from missing


def _lease(server: PostgresServer, database: str) -> tuple[int, str]:
    [(token, holder)] = server.ask("SELECT token, holder FROM leadership", database)
    return int(token), str(holder)


def _by_lead(server: PostgresServer, database: str, stands: list[Stand]) -> tuple[Stand, Stand]:
    """The stand that leads, and the other."""

    def found() -> tuple[Stand, Stand] | None:
        pid = _lease(server, database)[1].rpartition(":")[2]
        for index, stand in enumerate(stands):
            if str(stand.platform.pid_of("control-plane")) == pid:
                return stand, stands[1 - index]
        return None

    pair: tuple[Stand, Stand] = wait_until(found, limit_s=60, what="a control plane that leads")
    return pair


def _kill(stand: Stand) -> None:
    """With the supervisor stopped, so that nobody starts the control plane again before another one leads."""
    pid = stand.platform.pid_of("control-plane")
    os.kill(_supervisor(stand), signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)


def _supervisor(stand: Stand) -> int:
    command = stand.platform.command
    assert command is not None
    assert command.process is not None
    return command.process.pid


def _answers(stand: Stand) -> bool:
    try:
        return stand.control("GET", "/services").status_code == 200
    except httpx.HTTPError:
        return False


def _live(stand: Stand, name: str) -> bool:
    answer = stand.control("GET", f"/services/{name}")
    served = f"{stand.platform.inference_url}/v2/models/{name}/ready"
    if answer.status_code != 200 or answer.json()["phase"] != "serving":
        return False
    return httpx.get(served, timeout=10, trust_env=False).status_code == 200


def _doubles(server: PostgresServer, database: str) -> list[tuple[Any, ...]]:
    """History entries of what can happen once to a revision of a service, and happened more than once."""
    actions = ", ".join(f"'{action}'" for action in _ONCE)
    return server.ask(
        "SELECT action, subject, payload->>'revision', count(*) FROM history"
        f" WHERE action IN ({actions}) GROUP BY 1, 2, 3 HAVING count(*) > 1",
        database,
    )


def _writing(server: PostgresServer, database: str, writers: list[Writer]) -> Writer | None:
    """The writer that leads and has written since it does."""
    token, holder = _lease(server, database)
    rows = server.ask(f"SELECT 1 FROM register_log WHERE token = {token} LIMIT 1", database)
    return next((writer for writer in writers if rows and holder.startswith(f"{writer.name}:")), None)


def _written_after(server: PostgresServer, database: str, token: int) -> bool:
    return bool(server.ask(f"SELECT 1 FROM register_log WHERE token > {token} LIMIT 1", database))
