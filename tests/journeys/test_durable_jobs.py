"""Durable work on a real platform: nothing that was accepted is lost, nothing happens twice, whoever is killed."""

import json
import os
import random
import signal
import time
import warnings
from contextlib import suppress
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import psutil
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from stranger_models import joblib_classifier, make

from modelyard.client import Client, RemoteError, calls
from modelyard.client.working import download, follow, give_file, submit
from modelyard.testing.platform import Platform, running_platform, wait_until

pytestmark = [pytest.mark.platform, pytest.mark.slow]
KILLS = 12


@pytest.fixture
def platform(tmp_path: Path):
    with running_platform(tmp_path, "--servers", "2") as running, running.client() as client:
        client.upload(make(joblib_classifier, tmp_path / "models").path, name="flowers")
        client.deploy("flowers")
        yield running


def rows_file(place: Path, count: int) -> tuple[Path, np.ndarray]:
    """Measured flowers, each a little different; and their features."""
    base = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 3.0, 4.2, 1.5]])
    features = np.round(base[np.arange(count) % 3] + np.random.default_rng(0).normal(0, 0.1, (count, 4)), 3)
    path = place / "rows.csv"
    pd.DataFrame(features, columns=["a", "b", "c", "d"]).to_csv(path, index=False)
    return path, features


def job_processes(platform: Platform) -> list[psutil.Process]:
    """What the jobs of this platform have started: they carry its mark in their environment."""
    mark = f"{platform.places.control_socket}#"
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            is_over = process.status() == psutil.STATUS_ZOMBIE
            if not is_over and process.environ().get("MODELYARD_JOB_WORKER", "").startswith(mark):
                found.append(process)
    return found


def asked_at_once(client: Client, features: np.ndarray) -> list[str]:
    return list(client.service("flowers").predict(features)["label"])


def test_a_file_of_rows_is_answered_row_by_row(platform: Platform, tmp_path: Path) -> None:
    path, features = rows_file(tmp_path, 1000)
    done = platform.run("batch", "flowers", "--data", str(path))
    assert done.returncode == 0, done.stderr
    labels = list(pd.read_csv(tmp_path / "rows.predictions.csv")["label"])
    with platform.client() as client:
        assert labels == asked_at_once(client, features)
        [row] = client.send(calls.listing("jobs"))
    assert (row["state"], row["progress"]["done"]) == ("succeeded", 1.0)


def test_a_job_whose_worker_is_killed_again_and_again_is_done_once(platform: Platform, tmp_path: Path) -> None:
    """Workers, the job's own process and the control plane, at moments that nobody chose."""
    path, features = rows_file(tmp_path, 6000)
    chance = random.Random(7)
    with platform.client() as client:
        given = give_file(client, path)
        parameters = {"service": "flowers", "chunk_rows": 5, "at_once": 1}
        ids = {
            submit(client, "batch-inference", parameters, {"data": given}, idempotency_key="once")["id"] for _ in "ab"
        }
        assert len(ids) == 1
        [number] = ids
        killed = 0
        for turn in range(KILLS):
            time.sleep(chance.uniform(0.1, 1.2))  # the moment of the kill, not a wait for anything
            names = ["job-worker-0"] * 3 + ["control-plane"] if turn % 3 else ["the job"]
            name = chance.choice(names)
            victims = (
                [process.pid for process in job_processes(platform)] if name == "the job" else [platform.pid_of(name)]
            )
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
                killed += 1
        wait_until(lambda: _answers(client), limit_s=60, what="the control plane")
        done = follow(client, number, timeout_s=200)
        assert killed >= KILLS // 2
        assert done["state"] == "succeeded", done
        [fetched] = download(client, done, tmp_path / "out")
        labels = list(pd.read_csv(fetched)["label"])
        assert labels == asked_at_once(client, features)
        history = client.send(calls.listing("history", subject=f"job/{number}", limit=500))
        assert [each["action"] for each in history].count("job.succeeded") == 1
    wait_until(lambda: not job_processes(platform), what="the end of everything that the job started")


def _answers(client: Client) -> bool:
    try:
        client.send(calls.listing("jobs"))
    except Exception:  # noqa: BLE001  (it is away)
        return False
    return True


def test_a_job_that_cannot_succeed_says_why_and_can_be_cancelled_and_retried(
    platform: Platform, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("a,b\n" + "1,2\n" * 50)
    with platform.client() as client:
        given = give_file(client, wrong)
        for body, field in (
            (("batch-inference", {"service": "flowers", "chunk_rows": 0}), "parameters.chunk_rows"),
            (("batch-inference", {"service": "nobody"}), None),
            (("knitting", {}), "kind"),
        ):
            with pytest.raises(RemoteError) as refused:
                submit(client, *body, {"data": given})
            assert refused.value.status in (404, 422)
            if field is not None:
                assert refused.value.details[0]["field"] == field
        failed = follow(
            client, submit(client, "batch-inference", {"service": "flowers"}, {"data": given})["id"], timeout_s=60
        )
        assert failed["state"] == "failed"
        assert "the service refuses rows from 1 on" in failed["error"]["detail"]
        again = client.send(calls.act("jobs", failed["id"], "retry"))
        assert again["state"] == "queued"
        assert follow(client, failed["id"], timeout_s=60)["state"] == "failed"

        long = give_file(client, rows_file(tmp_path, 6000)[0])
        parameters = {"service": "flowers", "chunk_rows": 1, "at_once": 1}
        number = submit(client, "batch-inference", parameters, {"data": long})["id"]
        wait_until(lambda: client.send(calls.read("jobs", number))["progress"].get("done"), what="progress")
        client.send(calls.act("jobs", number, "cancel"))
        assert follow(client, number, timeout_s=30)["state"] == "cancelled"
    wait_until(lambda: not job_processes(platform), what="the end of the cancelled job's process")


def test_a_version_is_compressed_into_one_that_answers_as_well(platform: Platform, tmp_path: Path) -> None:
    data, target = load_digits(return_X_y=True)
    rows, held, known, right = train_test_split(data / 16, target, test_size=0.5, random_state=0, stratify=target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        joblib.dump(MLPClassifier((600, 600), max_iter=6, random_state=0).fit(rows, known), tmp_path / "net.joblib")
    columns = [f"p{number}" for number in range(64)]
    pd.DataFrame(held, columns=columns).assign(digit=right).to_csv(tmp_path / "held.csv", index=False)
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({str(number): str(number) for number in range(10)}))
    with platform.client() as client:
        client.upload(tmp_path / "net.joblib", name="net", labels=labels)
        done = platform.run("compress", "net:1", "--sample", str(tmp_path / "held.csv"), "--target", "digit", "--json")
        assert done.returncode == 0, done.stderr
        job = json.loads(done.stdout)
        assert job["result"]["size"]["ratio"] < 0.35
        assert job["result"]["drop"]["points"] <= 0.5
        [candidate] = job["candidates"]
        assert (candidate["state"], candidate["version"]) == ("version", "2")
        version = client.version("net", "2")
        assert version.state == "approved"
        assert version.document["source"] == {"kind": "job", "job": job["id"], "candidate": 0, "parent": "net:1"}
        before = client.deploy("net:1").predict(held)["label"]
        after = client.deploy("net:2").predict(held)["label"]
        assert (before.astype(str) != after.astype(str)).mean() <= 0.01
        short = tmp_path / "short.csv"
        short.write_text("a,b\n" + "1,2\n" * 40)
        refused = platform.run("compress", "net:1", "--sample", str(short))
        assert refused.returncode == 1
        assert "a row of 'input' has the shape [2]" in refused.stderr.replace('"', "'")
