"""Faults of model servers and of the control plane: drained, killed, overloaded, left alone."""

import os
import signal
import statistics
import threading
import time
from typing import Any

import httpx
import psutil
from tests.faults.account import Audit
from tests.faults.experiment import Run, experiment
from tests.faults.load import Load
from tests.faults.models import question
from tests.faults.stand import Stand, within


def _server_pids(stand: Stand) -> dict[str, int]:
    return {f"model-server-{index}": stand.platform.pid_of(f"model-server-{index}") for index in range(2)}


@experiment("C06")
def drained_servers(run: Run) -> None:
    """A model server is asked to end under load; the supervisor starts another."""
    stand = run.stand()
    service = stand.linear("beside")
    stand.wait_ready()
    audit = Audit(service)
    codes: list[str] = []
    exits: list[float] = []
    with run.load(service) as load:
        run.steady(load)
        for number in range(run.scale.rounds):
            name = f"model-server-{number % 2}"
            victim = stand.platform.pid_of(name)
            process = psutil.Process(victim)
            began = time.monotonic()
            run.inject(f"SIGTERM {name}", lambda victim=victim: os.kill(victim, signal.SIGTERM))
            within(lambda process=process: not process.is_running(), limit_s=60.0)
            exits.append(time.monotonic() - began)
            within(lambda name=name, victim=victim: stand.platform.pid_of(name) != victim, limit_s=60.0)
            stand.wait_ready()
            codes.append(_last_end(stand, name))
        run.after(load)
    run.check_no_failures(load)
    run.check("connections reset", load.ledger.count("reset"), at_most=0)
    run.check("longest exit", max(exits), at_most=30.0, unit="s")
    run.check("exit codes other than 0", sum(code != "0" for code in codes), at_most=0, detail=str(codes))
    audit.check(run, load.ledger)


def _last_end(stand: Stand, name: str) -> str:
    """The exit code in the supervisor's last word about this child."""
    assert stand.platform.command is not None
    lines = [line for line in stand.platform.command.text().splitlines() if name in line]
    for line in reversed(lines):
        if "killed by" in line:
            return line.split("killed by", 1)[1].split()[0].rstrip(":;")
        if "exit code" in line:
            return line.split("exit code", 1)[1].split()[0].rstrip(":;")
    return f"unknown: {lines[-1:]}"


@experiment(
    "server-killed",
    title="kill -9 of a model server under load",
    hypothesis="lost is at most what was in its hands, and it is accounted for",
    injection="os.kill(model_server, 9)",
)
def killed_server(run: Run) -> None:
    """Shared models die with their server: the client sees resets, no more than there were requests in flight."""
    stand = run.stand()
    service = stand.linear("beside")
    stand.wait_ready()
    audit = Audit(service)
    in_hand = 0
    with run.load(service) as load:
        run.steady(load)
        for number in range(2 if run.scale.short else 6):
            name = f"model-server-{number % 2}"
            victim = stand.platform.pid_of(name)
            in_hand += load.in_flight + 8  # what is counted here, and what leaves between counting and killing
            run.inject(f"kill -9 {name}", lambda victim=victim: os.kill(victim, signal.SIGKILL))
            within(lambda name=name, victim=victim: stand.platform.pid_of(name) != victim, limit_s=60.0)
            stand.wait_ready()
            load.wait_s(1.0)
        run.after(load)
    run.keep(load)
    lost = load.ledger.count("reset")
    run.check(
        "failed otherwise than with its server",
        len(load.ledger.failed) - lost,
        at_most=0,
        detail="; ".join(load.ledger.examples()),
    )
    run.check("lost requests", lost, at_most=in_hand)
    audit.check(run, load.ledger, uncertain=lost)


@experiment("C09", short=True)
def overload(run: Run) -> None:
    """Ten times what the model can do."""
    stand = run.stand()
    limits = {"deadline_ms": 2000}
    service = stand.own_code("busy", sleep_s=0.02, batch=1, replicas=2, limits=limits)
    deadline_s = 2.0
    capacity = _capacity(run, service)
    run.figures["capacity per s"] = round(capacity, 1)
    slow_pages: list[float] = []
    over = threading.Event()
    watcher = threading.Thread(target=_watch_pages, args=(stand, over, slow_pages), daemon=True)
    seconds = 6.0 if run.scale.short else 60.0
    with run.load(service, rate=capacity / 2, deadline_s=deadline_s) as calm:
        calm.wait_s(2.0 if run.scale.short else 10.0)
    watcher.start()
    run.note("ten times the capacity")
    with run.load(service, rate=10 * capacity, deadline_s=deadline_s) as load:
        load.wait_s(seconds)
    over.set()
    watcher.join()
    run.note("half the capacity")
    with run.load(service, rate=capacity / 2, deadline_s=deadline_s) as after:
        after.wait_s(4.0 if run.scale.short else 20.0)
    run.keep(load)
    inside = load.ledger.between(1.0, seconds)
    goodput = inside.count("ok") / (seconds - 1.0)
    generous = 3.0 if run.scale.short else 1.0
    run.check("goodput ÷ capacity", goodput / capacity, at_least=0.8 / generous)
    run.check("p99 of accepted", load.ledger.quantile(0.99, "ok"), at_most=deadline_s, unit="s")
    refused = load.ledger.quantile(0.95, "refused")
    run.check("refusals answered within (95 %)", refused, at_most=0.05 * generous**3, unit="s")
    run.check("slowest health or admin page", max(slow_pages, default=9.9), at_most=1.0 * generous, unit="s")
    normal = after.ledger.between(1.0 if run.scale.short else 10.0)
    run.check("failures after the load fell", len(normal.failed), at_most=0, detail="; ".join(normal.examples()))


def _capacity(run: Run, service: Any) -> float:
    """Answers a second when there is always one waiting: eight clients, one question after the other."""
    ended = time.monotonic() + (2.0 if run.scale.short else 10.0)
    counts = [0] * 8

    def ask(index: int) -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            url = service.stand.platform.inference_url + service.path
            while time.monotonic() < ended:
                client.post(url, content=question(1.0), headers={"content-type": "application/json"})
                counts[index] += 1

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - began)


def _watch_pages(stand: Stand, over: threading.Event, times: list[float]) -> None:
    urls = [f"{stand.platform.inference_url}/healthz", f"{stand.platform.control_url}/api/v1/services"]
    with httpx.Client(trust_env=False, timeout=10) as client:
        while not over.is_set():
            for url in urls:
                began = time.monotonic()
                assert client.get(url).status_code == 200
                times.append(time.monotonic() - began)
            over.wait(0.2)


@experiment(
    "control-plane-away",
    title="the control plane is stopped for a minute under load",
    hypothesis="predictions go on; a model server that is restarted meanwhile starts from its own copy of the table",
    injection="SIGSTOP control-plane; SIGTERM model-server-0; SIGCONT after a minute",
)
def control_plane_away(run: Run) -> None:
    """Nobody needs it to answer."""
    stand = run.stand()
    service = stand.linear("beside")
    stand.wait_ready()
    control = stand.platform.pid_of("control-plane")
    with run.load(service) as load:
        run.steady(load)
        run.cleanup.callback(os.kill, control, signal.SIGCONT)
        run.inject("SIGSTOP control-plane", lambda: os.kill(control, signal.SIGSTOP))
        load.wait_s(1.0)
        victim = stand.platform.pid_of("model-server-0")
        run.inject("SIGTERM model-server-0", lambda: os.kill(victim, signal.SIGTERM))
        within(lambda: stand.platform.pid_of("model-server-0") != victim, limit_s=30.0)
        stand.wait_ready()
        load.wait_s(2.0 if run.scale.short else 60.0)
        run.inject("SIGCONT control-plane", lambda: os.kill(control, signal.SIGCONT))
        run.after(load)
    run.check_no_failures(load)
    back = within(lambda: stand.control("GET", "/services/beside").status_code == 200, limit_s=40.0)
    run.check("control API back", back, at_most=30.0, unit="s")


@experiment("C08")
def retry_storm(run: Run) -> None:
    """Every worker says that it cannot; then they all can again."""
    service = run.stand().own_code("storm", sleep_s=0.002, batch=1, replicas=2)
    rate = 30.0 if run.scale.short else 100.0
    with run.load(service, rate=rate, deadline_s=5.0) as load:
        run.cleanup.callback(service.order, {})
        run.steady(load)
        runs = service.total("modelyard_worker_runs_total")
        run.inject("all workers fail", lambda: service.order({"down": True}))
        begin = load.now
        load.wait_s(4.0 if run.scale.short else 60.0)
        runs = service.total("modelyard_worker_runs_total") - runs
        end = load.now
        run.inject("all workers are well", lambda: service.order({}))
        back = within(lambda: _lately_ok(load), limit_s=30.0)
        load.wait_s(3.0 if run.scale.short else 15.0)
    run.keep(load)
    failing = load.ledger.between(begin, end)
    run.check("attempts ÷ requests while failing", runs / max(1, len(failing.entries)), at_most=1.2)
    wrong = [entry for entry in failing.failed if entry.outcome != "refused"]
    run.check("answers other than 503 while failing", len(wrong), at_most=0, detail=str(wrong[:3]))
    calm = failing.between(begin + 1.5)
    run.check(
        "refusals at once (median)", calm.quantile(0.5, "refused"), at_most=0.25 if run.scale.short else 0.05, unit="s"
    )
    run.check("answers again after", back, at_most=5.0 if not run.scale.short else 20.0, unit="s")
    settled = load.ledger.between(end + (2.0 if run.scale.short else 10.0))
    success = settled.count("ok") / max(1, len(settled.entries))
    run.check("success after repair", success, at_least=0.999)


def _lately_ok(load: Load) -> bool:
    return statistics.fmean(entry.outcome == "ok" for entry in load.ledger.entries[-10:]) > 0.8
