"""From a model to the cheapest way to serve it, deployed and held to what was promised; and nothing left behind."""

import json
from contextlib import suppress
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import psutil
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from modelyard.client import calls
from modelyard.client.working import follow, give_file, submit
from modelyard.testing.platform import Platform, running_platform, wait_until

pytestmark = [pytest.mark.platform, pytest.mark.slow]


@pytest.fixture
def yard(tmp_path: Path):
    data, target = load_digits(return_X_y=True)
    rows, held, known, right = train_test_split(data, target, test_size=0.5, random_state=0, stratify=target)
    joblib.dump(RandomForestClassifier(200, random_state=0).fit(rows, known), tmp_path / "digits.joblib")
    frame = pd.DataFrame(held)
    frame["digit"] = right
    frame.to_csv(tmp_path / "held.csv", index=False)
    with running_platform(tmp_path, "--servers", "2") as running, running.client() as client:
        client.upload(tmp_path / "digits.joblib", name="digits")
        yield running


SEARCH = ("optimise", "digits", "--sample", "held.csv", "--target", "digit", "--seconds", "5", "--rate", "100")


def test_what_is_chosen_is_deployed_with_its_settings_and_measured_in_service(yard: Platform) -> None:
    done = yard.run(*SEARCH, "--p99", "2s", "--rows", "16", "--method", "trees", "--deploy", "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    chosen, check = found["result"]["chosen"], found["check"]["result"]
    assert found["result"]["load"]["servers"] == 2
    assert (yard.directory / "out" / "frontier.svg").is_file()
    with yard.client() as client:
        [manifest] = client.export_manifests()
        service = client.service("digits")
        version = "2" if chosen["form"] == "trees" else "1"
        assert service.info.document["version"] == version
        assert manifest["spec"]["resources"]["cpu"] == chosen["threads"]
        batching = {"max_size": 64, "max_wait_ms": 0.0, **manifest["spec"].get("batching", {})}  # defaults are left out
        assert batching == {"max_size": chosen["max_batch_size"], "max_wait_ms": chosen["max_wait_ms"]}
        table = pd.read_csv(yard.directory / "held.csv")
        answers = service.predict(table.drop(columns="digit").to_numpy("f4"))["label"]
        assert np.mean([int(each) for each in answers] == table["digit"]) > 0.9
    assert check["failed"] == 0
    assert check["within_target"] is True
    assert check["answered"] == pytest.approx(500, rel=0.5)
    low, high = check["predicted_ms"]
    value = check["p99_ms"]["value"]
    assert check["prediction"] == ("slower" if value > high else "quicker" if value < low else "within")

    missed = yard.run(
        "measure", "digits", "--sample", "held.csv", "--target", "digit", "--seconds", "5", "--p99", "10us"
    )
    assert missed.returncode == 1
    assert "target  missed" in missed.stdout


def test_a_latency_that_nothing_keeps_to_ends_with_one_and_says_what_there_is(yard: Platform) -> None:
    done = yard.run(*SEARCH, "--p99", "10us", "--method", "graph", "--runtime", "onnxruntime")
    assert done.returncode == 1
    assert "nothing stays within 0.01 ms; the quickest has" in done.stderr
    assert "as it is (default)" in done.stdout


def test_a_search_whose_process_is_killed_leaves_no_server_behind(yard: Platform) -> None:
    with yard.client() as client:
        given = give_file(client, yard.directory / "held.csv")
        parameters = {
            "p99_ms": 2000,
            "target": "digit",
            "seconds": 600,
            "methods": ["graph"],
            "runtimes": ["onnxruntime"],
        }
        inputs = {"model": {"model": "digits"}, "sample": given}
        number = submit(client, "optimise", parameters, inputs, attempts=1)["id"]
        job = wait_until(lambda: titled(f"modelyard: job optimise {number}"), limit_s=60, what="the job's process")[0]
        servers = wait_until(
            lambda: [each for each in job.children(recursive=True) if "model-server" in title(each)],
            limit_s=120,
            what="servers of the search",
        )
        job.kill()
        assert follow(client, number, timeout_s=60)["state"] == "dead"
        assert client.send(calls.read("jobs", number))["candidates"] == []
    wait_until(lambda: not any(map(is_there, [job, *servers])), limit_s=30, what="the end of what the search started")


def title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def titled(text: str) -> list[psutil.Process]:
    return [each for each in psutil.process_iter() if text in title(each)]


def is_there(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
