"""Jobs that take too much: each ends with the bound it met, what it started is gone, and the next job is done."""

import errno
import os
from pathlib import Path

import pandas as pd
import pytest
from stranger_models import joblib_classifier, make

from modelyard.client import calls
from modelyard.client.working import follow, give_file, submit
from modelyard.domain.errors.platform import JobLimitReached
from modelyard.processes.job_program import _failure
from modelyard.processes.jobs.orders import Order
from modelyard.testing.platform import running_platform

pytestmark = [pytest.mark.platform, pytest.mark.slow]
ROW = {"a": 5.1, "b": 3.5, "c": 1.4, "d": 0.2}


def rows_file(place: Path, count: int) -> Path:
    path = place / f"rows-{count}.csv"
    pd.DataFrame([ROW] * count).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(joblib_classifier, tmp_path_factory.mktemp("models")).path


def test_time_and_disk_are_bounded_and_the_next_job_is_done(tmp_path: Path, model: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("jobs: {disk_mib: 1}\n")
    with running_platform(tmp_path, "--settings", str(settings)) as platform, platform.client() as client:
        client.upload(model, name="flowers")
        client.deploy("flowers")
        asked = {"service": "flowers", "chunk_rows": 1, "at_once": 1}
        given = {"data": give_file(client, rows_file(tmp_path, 3000))}
        late = submit(client, "batch-inference", asked, given, limit_s=1.0, attempts=1)
        large = {"data": give_file(client, rows_file(tmp_path, 60_000))}
        wide = submit(client, "batch-inference", {"service": "flowers", "chunk_rows": 2000}, large, attempts=1)
        small = submit(
            client, "batch-inference", {"service": "flowers"}, {"data": give_file(client, rows_file(tmp_path, 10))}
        )
        ended = [follow(client, each["id"], timeout_s=90) for each in (late, wide, small)]
        assert [each["state"] for each in ended] == ["dead", "dead", "succeeded"]
        assert "it was not done after 1 seconds" in ended[0]["error"]["detail"]
        assert "more than the 1 MiB that a job may have on the disk" in ended[1]["error"]["detail"]
        assert all(each["error"]["hint"] for each in ended[:2])
        dead = client.send(calls.listing("jobs", state="dead"))
        assert {each["id"] for each in dead} == {late["id"], wide["id"]}


def test_memory_is_bounded(tmp_path: Path, model: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("jobs: {memory_mib: 64}\n")
    with running_platform(tmp_path, "--settings", str(settings)) as platform, platform.client() as client:
        client.upload(model, name="flowers")
        client.deploy("flowers")
        given = {"data": give_file(client, rows_file(tmp_path, 1000))}
        job = follow(
            client, submit(client, "batch-inference", {"service": "flowers"}, given, attempts=2, pause_s=0.1)["id"]
        )
        assert job["state"] == "dead"
        assert job["failed_attempts"] == 2
        assert "more than the 64 MiB of memory that a job may have" in job["error"]["detail"]


def test_a_write_that_the_kernel_refuses_is_told_in_the_words_of_the_bound() -> None:
    """One file can reach the bound before the worker has looked at the sum of all."""
    order = Order(
        job="j",
        kind="compress",
        parameters={},
        inputs={},
        directory="/",
        checkpoint="/",
        seed=0,
        attempt=1,
        parent=0,
        memory_bytes=1 << 30,
        disk_bytes=1 << 20,
        read=[],
    )
    told = _failure(OSError(errno.EFBIG, os.strerror(errno.EFBIG)), order)
    assert (told["failure"], told["error"]["code"]) == ("error", JobLimitReached.code)
    assert "more than the 1 MiB that a job may have on the disk" in told["error"]["detail"]
    assert told["error"]["hint"]
