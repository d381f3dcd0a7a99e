"""The control plane killed at every step of a deployment, while two model servers answer."""

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from tests.faults.experiment import Run, experiment
from tests.faults.load import Load, Question, right_answers
from tests.faults.models import question
from tests.faults.stand import within

from modelyard.control.deployments import STEPS

DRIVERS = Path(__file__).parents[2] / "control_serving"
"""A control plane that dies at a step, and model servers beside it: the drivers of the tests of deployments."""
_NAME = "killed"


@experiment(
    "C01",
    short=False,
    injection=f"deploy; the control plane kills itself (SIGKILL) at each of {', '.join(STEPS)}; start it",
)
def killed_at_every_step(run: Run) -> None:
    """It is the old version or the new one, never a third state, and nobody who asks notices."""
    sys.path.insert(0, str(DRIVERS))
    run.cleanup.callback(sys.path.remove, str(DRIVERS))
    from serving_driver import serving_in

    serving = run.cleanup.enter_context(serving_in(run.stands.folder()))
    questions = _questions(serving)
    converged: list[float] = []
    third: list[str] = []
    steps = STEPS[:2] if run.scale.short else STEPS
    url = serving.addresses[0]
    with Load(url, questions, min(run.scale.rate, 60.0), 10.0, run.seed) as load:
        run.steady(load)
        for number in range(1 if run.scale.short else run.scale.rounds):
            for step in steps:
                version = "2" if _live(serving)["version"] == "1" else "1"
                run.note(f"round {number}: dies at {step}")
                _die_at(serving, step, version)
                converged.append(within(lambda: _is_settled(serving), limit_s=90.0))
                third += [f"{step}: {flaw}" for flaw in _flaws(serving, step, version)]
        run.after(load)
    left = [path for path in serving.control.left_over() if path.startswith("incoming")]
    packages = {path.split("/")[1] for path in serving.control.left_over() if path.startswith("packages")}
    run.check_no_failures(load)
    run.check("deployments that were killed", len(converged), at_least=len(steps))
    run.check("states that are neither old nor new", len(third), at_most=0, detail="; ".join(third[:5]))
    run.check(
        "settled after the restart (longest)", max(converged), at_most=60.0 if run.scale.short else 10.0, unit="s"
    )
    run.check("files left over", len(left) + max(0, len(packages) - 3), at_most=0, detail=str(left[:3]))


def _questions(serving: Any) -> list[Question]:
    """The service with versions 1 and 2 asked once each; version 1 is live afterwards."""
    path, bodies = f"/v2/models/{_NAME}/infer", [question(0.0, float(value), 0.0) for value in range(1, 9)]
    answers = {}
    for version in ("1", "2", "1"):
        serving.deploy(name=_NAME, model="m", version=version) if not answers else _put(serving, version)
        assert within(lambda: _is_settled(serving), limit_s=60.0) < 60.0
        answers[version] = right_answers(serving.addresses[0], [Question(path, body) for body in bodies])
    pairs = zip(answers["1"], answers["2"], strict=True)
    return [Question(path, one.body, named=((one.answer or b"", "1"), (two.answer or b"", "2"))) for one, two in pairs]


def _put(serving: Any, version: str) -> None:
    with serving.client() as client:
        client.put(f"/services/{_NAME}", json={"model": "m", "version": version}).raise_for_status()


def _die_at(serving: Any, step: str, version: str) -> None:
    control = serving.control
    armed = control.data / "armed"
    control.stop()
    control.module = "dying_control"
    control.environment = {"DIE_AT": step, "ARMED": str(armed), "PYTHONPATH": str(DRIVERS)}
    control.start()
    armed.touch()
    try:
        with suppress(httpx.TransportError):
            _put(serving, version)
        code = control.process.wait(60)
        assert code == -9, f"it ended with {code}, not at {step}"
    finally:
        armed.unlink()
        control.module, control.environment = "modelyard.processes.control_plane", {}
        control.start()


def _live(serving: Any) -> dict[str, Any]:
    with serving.client() as client:
        return dict(client.get(f"/services/{_NAME}").raise_for_status().json())


def _is_settled(serving: Any) -> bool:
    document = _live(serving)
    acknowledged = next(each for each in document["conditions"] if each["type"] == "Acknowledged")
    return document["phase"] == "serving" and bool(acknowledged["status"]) and document["live"] == document["goal"]


def _flaws(serving: Any, step: str, version: str) -> list[str]:
    """What is neither the old state nor the new one: in the service, in its revisions, in what the servers answer."""
    document = _live(serving)
    with serving.client() as client:
        rows = client.get(f"/services/{_NAME}/revisions").json()["items"]
    live = [row["revision"] for row in rows if row["state"] == "live"]
    old = step == "change.written"  # before the commit nothing has been asked for
    flaws = [] if (document["version"] == version) != old else [f"version {document['version']} after {version}"]
    if live != [document["live"]]:
        flaws.append(f"live are {live}, the service says {document['live']}")
    end = time.monotonic() + 10
    answered = set()
    while time.monotonic() < end and answered != {str(document["live"])}:
        answered = {serving.ask(_NAME, server).headers["x-revision"] for server in (0, 1)}
    if answered != {str(document["live"])}:
        flaws.append(f"servers answer with {answered}, live is {document['live']}")
    return flaws
