"""Models that misbehave: eat the memory, never return, do not load, answer NaN, are asked by many while cold."""

import json
import os
import signal
import threading
import time

import httpx
import psutil
from tests.faults import models
from tests.faults.experiment import Run, experiment
from tests.faults.models import EAT, HANG, NAN
from tests.faults.stand import Service, within

from modelyard.client.errors import RemoteError


@experiment(
    "memory-eater",
    title="a model that eats the memory",
    hypothesis="its worker's bound contains it; the guilty request is told why; no other request fails",
    injection="requests whose input makes the model allocate without end",
)
def memory_eater(run: Run) -> None:
    """RLIMIT_AS makes the allocation fail inside the worker, and the worker goes on."""
    service = run.stand().own_code("hungry", sleep_s=0.002, replicas=2)
    _guilty(run, service, EAT, "more memory")


@experiment(
    "endless-computation",
    short=False,
    title="a computation that never ends",
    hypothesis="it is ended and named after the time a run may take; no other request fails",
    injection="requests whose input makes the model loop for ever",
)
def endless(run: Run) -> None:
    """What waits behind it moves to the other worker; the one that loops is ended and started again."""
    service = run.stand().own_code("endless", sleep_s=0.002, replicas=2)
    _guilty(run, service, HANG, "did not come to an end")


def _guilty(run: Run, service: Service, act: float, reason: str) -> None:
    beside = run.stand().linear("beside")
    answers: list[str] = []
    with (
        run.load(service, rate=min(run.scale.rate, 60.0), deadline_s=30.0) as load,
        run.load(beside, rate=run.scale.rate / 2) as other,
    ):
        run.steady(load)
        for _ in range(1 if run.scale.short else 5):
            answer = run.inject("a guilty request", lambda: service.ask(act))
            answers.append(f"{answer.status_code} {answer.json().get('code')} {answer.json().get('error')}")
            load.wait_s(1.0)
        run.after(load)
    run.figures["guilty answers"] = answers
    run.check_no_failures(load)
    run.check("failed requests of another model", len(other.ledger.failed), at_most=0)
    unnamed = [text for text in answers if not text.startswith("500 run_failed") or reason not in text]
    run.check("guilty requests without their reason", len(unnamed), at_most=0, detail=str(answers))


@experiment(
    "version-that-does-not-load",
    short=False,
    title="a version that fails to load is deployed under load",
    hypothesis="the version that answered goes on, and the service says why the new one did not come",
    injection="deploy(v2) where load() raises",
)
def does_not_load(run: Run) -> None:
    """The new workers end at once; the old ones never stop."""
    stand = run.stand()
    service = stand.own_code("loads", sleep_s=0.001)
    with run.load(service, rate=min(run.scale.rate, 100.0)) as load:
        run.steady(load)
        bundle = models.own_code(stand.directory / "models" / "loads-not", scale=2.0)
        source = (bundle / "predict.py").read_text()
        source = source.replace(
            "    return None\n\ndef orders", "    raise RuntimeError('no weights here')\n\ndef orders"
        )
        (bundle / "predict.py").write_text(source)
        with stand.client() as client:
            version = client.upload(bundle, name="loads")
            client.approve("loads", version.version)
            problem = ""
            try:
                run.inject("deploy a version whose load() raises", lambda: client.deploy(f"loads:{version.version}"))
            except RemoteError as error:
                problem = str(error)
            status = client.service("loads").info
        run.after(load)
    run.figures["problem"] = problem
    run.check_no_failures(load)
    run.check("reason named", float("no weights here" in problem), at_least=1, detail=problem)
    run.check("revision that answers", float(status.revision or 0), at_most=1, detail=json.dumps(status.document)[:300])


@experiment(
    "answers-nan",
    short=False,
    title="a version that answers NaN",
    hypothesis="one that does so on its probe is refused by the audit; one that does so later gives valid JSON",
    injection="upload of a graph that divides zero by zero; an input on which own code answers NaN",
)
def answers_nan(run: Run) -> None:
    """NaN never becomes invalid JSON, and never gets past the probe."""
    stand = run.stand()
    refused = ""
    with stand.client() as client:
        try:
            client.upload(models.not_a_number(stand.directory / "models" / "nan.onnx"), name="nan")
        except RemoteError as error:
            refused = str(error)
    run.check("audit refuses it", float(bool(refused)), at_least=1, detail=refused)
    service = stand.own_code("fragile", sleep_s=0.002, replicas=2)
    answer = service.ask(NAN)
    run.figures["answers"] = [refused[:200], answer.text[:200]]
    document = json.loads(answer.text, parse_constant=_no_constant)
    data = document["outputs"][0]["data"]
    run.check("values other than null", sum(value is not None for value in data), at_most=0, detail=answer.text)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


@experiment("W10", short=False, injection="par(100, infer) while the model's only worker is being started")
def cold_herd(run: Run) -> None:
    """A hundred at once while nothing is loaded: one load, and all of them wait for it."""
    service = run.stand().linear("cold", isolation="process", replicas=1)
    [victim] = service.worker_pids()
    one_load = psutil.Process(victim).memory_info().rss
    run.inject("kill -9 the only worker", lambda: os.kill(victim, signal.SIGKILL))
    statuses: list[int] = []
    seen: set[int] = set()

    def ask() -> None:
        statuses.append(service.ask(1.0).status_code)

    run.note("a hundred requests at once")
    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    peak = 0
    while any(thread.is_alive() for thread in threads):
        pids = service.worker_pids()
        seen |= set(pids)
        peak = max(peak, sum(_rss(pid) for pid in pids))
        time.sleep(0.02)
    within(lambda: len(service.worker_pids()) == 1, limit_s=20.0)
    seen |= set(service.worker_pids())
    run.check("loads", len(seen - {victim}), at_least=1, at_most=1)
    run.check("failed", sum(status != httpx.codes.OK for status in statuses), at_most=0, detail=str(statuses))
    run.check("requests", len(statuses), at_least=100)
    run.check("peak memory ÷ one load", peak / one_load, at_most=1.2)


def _rss(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
