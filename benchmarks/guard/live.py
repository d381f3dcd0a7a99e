"""Canaries on a real platform under an open-loop client: who is rolled back, who is promoted, what clients see."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.guard import models
from tests.faults.load import Load, Question

from modelyard.client import Client, calls
from modelyard.testing.platform import Platform, running_platform

HEAVY = 24
"""Matrix products of the version under the latency trials: some milliseconds a run."""
MOST = 4000
"""Requests of the canary after which it goes on without a sign of harm, so that a trial takes minutes, not hours."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One canary: what it is, how much load, and what should become of it."""

    name: str
    version: models.Version
    base: models.Version = field(default_factory=models.Version)
    rate: float = 300.0
    poisoned: bool = False
    expected: str = "promoted"
    limit_s: float = 400.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of it: after how long, by what the client saw, with the reason that history has."""

    trial: str
    ended: str
    expected: str
    seconds: float
    canary_requests: int
    requests: int
    not_ok: dict[str, int]
    reason: str


def trials(alike: int) -> list[Trial]:
    """The A/A trials and those of each kind of change."""
    heavy = models.Version(work=HEAVY)
    same = Trial(name="the same again", version=models.Version())
    return [
        *(same for _ in range(alike)),
        Trial(name="good", version=models.Version(noise=0.01, seed=3)),
        Trial(
            name="slow, + 50 %",
            base=heavy,
            version=replace(heavy, work=HEAVY * 3 // 2),
            rate=60.0,
            expected="rolled back",
        ),
        Trial(name="failing, 2 %", version=models.Version(fails=True), poisoned=True, expected="rolled back"),
        Trial(name="quietly wrong", version=models.Version(tilt=0.35), expected="rolled back"),
    ]


def run(directory: Path, chosen: list[Trial], *, say: bool = True) -> list[Outcome]:
    """All of them, one after the other, on one platform with two model servers."""
    outcomes = []
    directory.mkdir(parents=True, exist_ok=True)
    terms = directory / "settings.yaml"
    terms.write_text(f"guard:\n  most_requests: {MOST}\n")
    options = ("--servers", "2", "--settings", str(terms))
    with running_platform(directory, *options) as platform, platform.client() as client:
        for number, trial in enumerate(chosen):
            outcomes.append(one(platform, client, trial, directory / f"trial-{number}", name=f"colours-{number}"))
            if say:
                last = outcomes[-1]
                print(f"{last.trial:<16}{last.ended:<13}{last.seconds:5.0f} s  n {last.canary_requests}", end="  ")
                print(last.not_ok or "", last.reason, flush=True)
            client.undeploy(f"colours-{number}")
    return outcomes


def one(platform: Platform, client: Client, trial: Trial, directory: Path, *, name: str) -> Outcome:
    """Deploy what it is, load it, deploy the canary under an acting guard, and wait for its end."""
    for kind, version in (("base", trial.base), ("canary", trial.version)):
        client.upload(models.write(directory / kind, version), name=name)
    client.deploy(f"{name}:1", service=name)
    drawn = models.rows(500, poisoned=0.02 if trial.poisoned else 0.0)
    questions = [Question(f"/v2/models/{name}/infer", models.body(row)) for row in drawn]
    with Load(platform.inference_url, questions, trial.rate, 10.0, 1) as load:
        load.wait_for(100)
        began = time.monotonic()
        client.deploy(f"{name}:2", service=name, rollout={"strategy": "canary", "steps": [25, 50], "guard": "auto"})
        ended = _wait(client, name, limit_s=trial.limit_s)
        seconds = time.monotonic() - began
        load.wait_for(200)
    evidence = client.send(calls.read("services", name, "rollout", "evidence", project=client.connection.project))
    outcomes = {kind: count for kind, count in load.ledger.outcomes.items() if kind != "ok"}
    rows = [row for row in evidence["rows"] if row["thing"] == "errors"]
    return Outcome(
        trial=trial.name,
        ended=ended,
        expected=trial.expected,
        seconds=seconds,
        canary_requests=rows[0]["canary_n"] if rows else 0,
        requests=len(load.ledger.entries),
        not_ok=outcomes,
        reason=client.rollout(name)["rejected"][0]["reason"] if ended == "rolled back" else "",
    )


def _wait(client: Client, name: str, *, limit_s: float) -> str:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        found = client.rollout(name)
        if found["rejected"]:
            return "rolled back"
        if found["candidate"] is None and found["live"]["version"] == "2":
            return "promoted"
        time.sleep(0.5)
    return "undecided"
