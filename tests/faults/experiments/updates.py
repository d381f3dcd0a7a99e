"""Versions change under load: updates one after the other, going back, taking a version away."""

import time
from contextlib import ExitStack, suppress

import httpx
from tests.faults import models
from tests.faults.experiment import Run, experiment
from tests.faults.load import Question, right_answers
from tests.faults.stand import Service, Stand, within

_RATE = 100.0


def two_versions(stand: Stand, name: str, **options: object) -> Service:
    """The service `name` with versions 1 and 2, the first deployed; its questions know the answers of both."""
    if name in stand.services:
        return stand.services[name]
    url, questions = stand.platform.inference_url, []
    answers: dict[str, list[Question]] = {}
    with stand.client() as client:
        for version, scale in (("1", 1.0), ("2", 2.0)):
            file = models.linear(stand.directory / "models" / f"{name}-{version}.onnx", scale=scale)
            digest = client.upload(file, name=name).digest
            client.deploy(f"{name}:{version}", service=name, **options)
            bodies = [models.question(float(value), value + 0.5) for value in range(1, 9)]
            answers[version] = right_answers(url, [Question(f"/v2/models/{name}/infer", body) for body in bodies])
        client.deploy(f"{name}:1", service=name, retry=True)
    for one, other in zip(answers["1"], answers["2"], strict=True):
        assert one.answer is not None
        assert other.answer is not None
        questions.append(Question(one.path, one.body, named=((one.answer, "1"), (other.answer, "2"))))
    stand.services[name] = Service(stand, name, name, questions, digest)
    return stand.services[name]


@experiment("P01")
def rolling_updates(run: Run) -> None:
    """Version 1 and version 2 in turn, each with two workers of its own."""
    stand = run.stand()
    service = two_versions(stand, "rolling", isolation="process", replicas=2)
    stale: list[str] = []
    fewest = 2
    with run.load(service, rate=min(run.scale.rate, _RATE)) as load, stand.client() as client:
        run.steady(load)
        for number in range(run.scale.rounds):
            version = str(2 - number % 2)
            run.note(f"deploy version {version}")
            client.deploy(f"rolling:{version}", retry=True, wait=False)
            fewest = min(fewest, _watch_workers(service, version))
            switched = load.now
            load.wait_s(0.5)
            until = load.now
            load.settle(until)
            late = [
                entry for entry in load.ledger.between(switched, until).entries if entry.detail not in ("", version)
            ]
            stale += [
                f"#{entry.number}: {entry.detail} instead of {version}" for entry in late if entry.outcome == "ok"
            ]
        run.after(load)
    run.check_no_failures(load)
    run.check("fewest workers that live", fewest, at_least=2)
    run.check("answers of the old version after the switch", len(stale), at_most=0, detail="; ".join(stale[:5]))


def _watch_workers(service: Service, version: str) -> int:
    """The fewest workers that were seen while the version came to answer alone."""
    fewest, end = 99, time.monotonic() + 120
    while time.monotonic() < end:
        document = service.stand.control("GET", f"/services/{service.name}").json()
        fewest = min(fewest, len(service.worker_pids()))
        if document["phase"] == "serving" and document["version"] == version and document["live"] == document["goal"]:
            acknowledged = next(each for each in document["conditions"] if each["type"] == "Acknowledged")
            if acknowledged["status"]:
                return fewest
        time.sleep(0.05)
    raise AssertionError(f"version {version} did not come to answer: {document['reason']}")


@experiment("P02")
def rollbacks(run: Run) -> None:
    """The version before is still loaded: going back is a table."""
    stand = run.stand()
    service = two_versions(stand, "returning")
    seconds: list[float] = []
    with run.load(service) as load, stand.client() as client:
        run.steady(load)
        for _ in range(1 if run.scale.short else 5):
            client.deploy("returning:2", retry=True)
            load.wait_s(1.0)
            began = load.now
            run.inject("rollback", lambda: client.rollback("returning"))
            load.wait_s(1.0)
            load.settle(load.now)
            newer = [entry.due for entry in load.ledger.between(began).entries if entry.detail == "2"]
            seconds.append(max(newer, default=began) - began)
        run.after(load)
    run.check_no_failures(load)
    run.check("all answers from the old version after", max(seconds), at_most=10.0, unit="s")


@experiment("P06")
def deleted_under_load(run: Run) -> None:
    """A service is taken away and its version deleted, while another service answers with another one."""
    stand = run.stand()
    rounds = 1 if run.scale.short else 5
    with ExitStack() as stack:
        kept = two_versions(stand, "kept")
        client = stack.enter_context(stand.client())
        beside = stack.enter_context(run.load(kept, rate=run.scale.rate / 2))
        for number in range(rounds):
            _delete_one(run, stand, number)
        run.after(beside)
    run.check_no_failures(beside)
    with stand.client() as client:
        stored = b"".join(client.file(client.version("kept", "2"), "kept-2.onnx"))
    same = stored == (stand.directory / "models" / "kept-2.onnx").read_bytes()
    run.check("the other version's file is whole", float(same), at_least=1)


def _delete_one(run: Run, stand: Stand, number: int) -> None:
    name = f"doomed-{number}"
    file = models.linear(stand.directory / "models" / f"{name}.onnx", scale=3.0 + number)
    with stand.client() as client:
        version = client.upload(file, name="kept").version
        client.deploy(f"kept:{version}", service=name)
        path = f"/v2/models/{name}/infer"
        asked = [Question(path, models.question(float(value))) for value in range(1, 9)]
        service = Service(stand, name, "kept", right_answers(stand.platform.inference_url, asked), "")
        with run.load(service, rate=min(run.scale.rate, _RATE)) as load:
            run.steady(load)
            deleted = load.now
            run.inject("undeploy", lambda: client.undeploy(name))
            gone = within(lambda: _is_gone(service), limit_s=40.0)
            after = load.now
            load.wait_s(1.0)
        for step in ("archive", ""):
            method, tail = ("POST", f"/{step}") if step else ("DELETE", "")
            answer = stand.control(method, f"/models/kept/versions/{version}{tail}")
            assert answer.is_success, answer.text
    ledger = load.ledger
    before = ledger.between(0.0, deleted).failed
    others = [entry for entry in ledger.failed if entry.outcome != "404"]
    late = [entry for entry in ledger.between(after).entries if entry.outcome != "404"]
    run.check("failed before it was deleted", len(before), at_most=0, detail=str(before[:3]))
    run.check("answers other than right ones and 404", len(others), at_most=0, detail="; ".join(ledger.examples()))
    run.check("answers other than 404 once it is gone", len(late), at_most=0, detail=str(late[:3]))
    run.check("gone after", gone, at_most=30.0, unit="s")


def _is_gone(service: Service) -> bool:
    """Ten new connections in a row, which the servers share, hear that there is no such service."""
    with suppress(httpx.HTTPError):
        return all(service.ask(1.0).status_code == httpx.codes.NOT_FOUND for _ in range(10))
    return False
