"""Faults of isolated workers: killed, stopped, slow, all of them at once, poison."""

import os
import signal
import time

from tests.faults.experiment import Run, experiment
from tests.faults.models import CRASH
from tests.faults.stand import Service, within

_OUT_OF_DEADLINE_S = 10.0


def isolated(run: Run, name: str = "isolated", *, replicas: int = 2) -> Service:
    """A plain model with its own workers."""
    return run.stand().linear(name, isolation="process", replicas=replicas)


@experiment("W01")
def killed_workers(run: Run) -> None:
    """One of two workers is killed, again and again."""
    service = isolated(run)
    back: list[float] = []
    with run.load(service) as load:
        run.steady(load)
        steady_p99 = load.ledger.quantile(0.99, "ok")
        kills = []
        for _ in range(2 if run.scale.short else 6):
            victim = run.chance.choice(service.worker_pids())
            kills.append(load.now)
            run.inject(f"kill -9 worker {victim}", lambda victim=victim: os.kill(victim, signal.SIGKILL))
            back.append(within(lambda victim=victim: _others(service, victim, 2), limit_s=40.0))
            load.wait_s(1.0 if run.scale.short else 10.0 - back[-1])
        run.after(load)
    run.check_no_failures(load)
    run.check("two workers again", max(back), at_most=30.0 if run.scale.short else 5.0 + _load_s(service), unit="s")
    if not run.scale.short:
        near = max(load.ledger.between(at, at + 5).quantile(0.99, "ok") for at in kills)
        run.check("p99 in the 5 s after a kill ÷ steady p99", near / steady_p99, at_most=2.0 + 0.5 / steady_p99)


@experiment("W03")
def stopped_worker(run: Run) -> None:
    """A worker that hangs with its socket open: only its silence on the request path gives it away."""
    service = isolated(run)
    victim = run.chance.choice(service.worker_pids())
    before = _aside(service, "silent")
    with run.load(service) as load:
        run.cleanup.callback(_wake, victim)
        run.steady(load)
        run.inject(f"SIGSTOP worker {victim}", lambda: os.kill(victim, signal.SIGSTOP))
        noticed = within(lambda: _aside(service, "silent") > before, limit_s=40.0)
        load.wait_s(run.scale.fault_s)
        run.inject(f"SIGCONT worker {victim}", lambda: _wake(victim))
        run.after(load)
    run.check_no_failures(load)
    run.check("set aside", noticed, at_most=30.0 if run.scale.short else 6.0, unit="s")
    run.check("answers delivered twice", _delivered_twice(service, load), at_most=0)


@experiment("W04", short=False)
def slow_worker(run: Run) -> None:
    """One of three workers is ten times slower."""
    service = run.stand().own_code("slow", sleep_s=0.005, batch=1, replicas=3, resilience={"hedge": True})
    rate = 30.0 if run.scale.short else 60.0
    with run.load(service, rate=rate) as load:
        run.cleanup.callback(service.order, {})
        load.wait_s(4.0 if run.scale.short else run.scale.steady_s)
        steady_p99 = load.ledger.between(1.0).quantile(0.99, "ok")
        runs, asked = service.total("modelyard_worker_runs_total"), service.total("modelyard_inputs_received_total")
        victim = run.chance.choice(service.worker_pids())
        orders = {"pids": {str(victim): {"sleep_s": 0.05}}}
        run.inject(f"worker {victim} sleeps ten times as long", lambda: service.order(orders))
        load.wait_s(4.0 if run.scale.short else 10.0)
        settled = load.now
        load.wait_s(run.scale.fault_s)
        end = load.now
        runs = service.total("modelyard_worker_runs_total") - runs
        asked = service.total("modelyard_inputs_received_total") - asked
        run.inject("as before", lambda: service.order({}))
        run.after(load)
    run.check_no_failures(load)
    run.check("attempts ÷ requests", runs / max(1.0, asked), at_most=1.2 if run.scale.short else 1.05)
    p99 = load.ledger.between(settled, end).quantile(0.99, "ok")
    if not run.scale.short:
        run.check("p99 after 10 s ÷ steady p99", p99 / steady_p99, at_most=1.5)


@experiment(
    "all-workers-killed",
    title="every worker of one model is killed at once",
    hypothesis="its requests wait for the successors within their deadline; other models notice nothing",
    injection="os.kill(pid, 9) for all workers of the model",
)
def all_workers_killed(run: Run) -> None:
    """Nobody is left to answer, for a moment."""
    service = isolated(run)
    other = run.stand().linear("beside")
    with run.load(service, deadline_s=30.0) as load, run.load(other, rate=run.scale.rate / 2) as beside:
        run.steady(load)
        for _ in range(1 if run.scale.short else 3):
            for victim in service.worker_pids():
                run.inject(f"kill -9 worker {victim}", lambda victim=victim: os.kill(victim, signal.SIGKILL))
            back = within(lambda: len(service.worker_pids()) == 2, limit_s=40.0)
            load.wait_s(min(run.scale.fault_s, 10.0))
        run.after(load)
    run.check_no_failures(load)
    run.check("workers back", back, at_most=30.0 if run.scale.short else 5.0 + _load_s(service), unit="s")
    run.check("failed requests of another model", len(beside.ledger.failed), at_most=0)


@experiment(
    "poison",
    title="a request that ends the process that runs it",
    hypothesis="it is named and given up after two workers; no other request fails",
    injection="requests whose input makes the model call os._exit",
)
def poison(run: Run) -> None:
    """The guilty request alone is failed."""
    service = run.stand().own_code("fragile", sleep_s=0.002, replicas=2)
    codes: list[str] = []
    with run.load(service, rate=min(run.scale.rate, 50.0), deadline_s=30.0) as load:
        run.steady(load)
        for _ in range(2 if run.scale.short else 10):
            answer = run.inject("a request that crashes its worker", lambda: service.ask(CRASH))
            codes.append(f"{answer.status_code} {answer.json().get('code')}")
            within(lambda: len(service.worker_pids()) == 2, limit_s=30.0)
            load.wait_s(1.0 if run.scale.short else 5.0)
        run.after(load)
    run.figures["poison answers"] = codes
    run.check_no_failures(load)
    run.check(
        "poison requests not named", sum(code != "500 poison_request" for code in codes), at_most=0, detail=str(codes)
    )


def _others(service: Service, victim: int, count: int) -> bool:
    pids = service.worker_pids()
    return victim not in pids and len(pids) == count


def _load_s(service: Service) -> float:
    return float(sum(service.figures("modelyard_model_load_seconds").values()) or 1.0) + 2.0


def _aside(service: Service, why: str) -> float:
    found = service.figures("modelyard_workers_set_aside_total")
    return sum(value for name, value in found.items() if f'why="{why}"' in name)


def _wake(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


def _delivered_twice(service: Service, load: object) -> float:
    """Answers that the account counts beyond what was received."""
    time.sleep(0.5)
    received = service.total("modelyard_inputs_received_total")
    settled = sum(service.total(f"modelyard_inputs_{kind}_total") for kind in ("answered", "rejected", "lost"))
    return max(0.0, settled - received)
