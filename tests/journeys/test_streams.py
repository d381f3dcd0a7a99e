"""A service bound to topics of real brokers: every message is answered, in order for each key, whoever dies."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pytest
from stranger_models import joblib_classifier, make

from modelyard.testing.brokers import BrokerMissing, running_redis
from modelyard.testing.platform import Platform, running_platform, wait_until

pytestmark = [pytest.mark.platform, pytest.mark.slow]
FLOWERS = ([5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 3.0, 4.2, 1.5])


@pytest.fixture
def platform(tmp_path: Path):
    with running_platform(tmp_path, "--servers", "1") as running, running.client() as client:
        client.upload(make(joblib_classifier, tmp_path / "models").path, name="flowers")
        client.deploy("flowers")
        yield running


@pytest.fixture(params=["embedded", "redis"])
def broker(request, tmp_path: Path):
    if request.param == "embedded":
        yield ("--dir", str(tmp_path / "queue"))
        return
    try:
        with running_redis() as running:
            yield ("--broker", running.url)
    except BrokerMissing as missing:
        pytest.skip(str(missing))


class Shell:
    def __init__(self, platform: Platform, broker: tuple[str, ...]) -> None:
        self.platform, self.broker = platform, broker

    def run(self, name: str, *arguments: str) -> str:
        done = self.platform.run("stream", name, *arguments, *self.broker)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "modelyard.cli", "stream", "run", "flowers", "--in", "asked", "--out", "told"]
        return subprocess.Popen(
            [*command, "--member", "one", "--at-once", "8", *self.broker],
            env=self.platform.environment(),
            cwd=self.platform.directory,
            stderr=subprocess.PIPE,
            text=True,
        )

    def send(self, messages: list[object]) -> None:
        path = self.platform.directory / "messages.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in messages))
        self.run("send", "asked", "--group", "flowers", "--data", str(path), "--key", "id")

    def read(self, topic: str, *arguments: str) -> list[dict]:
        return [json.loads(line) for line in self.run("read", topic, *arguments).splitlines()]


def request(number: int, rows: list[list[float]]) -> dict[str, object]:
    data = [value for row in rows for value in row]
    tensor = {"name": "input", "shape": [len(rows), 4], "datatype": "FP32", "data": data}
    return {"id": f"key-{number % 5}", "parameters": {"number": number}, "inputs": [tensor]}


def message_id(number: int, message: object) -> str:
    """As `stream send` names it: by its place and its text."""
    return hashlib.sha256(f"{number + 1}\n{json.dumps(message)}".encode()).hexdigest()[:32]


def ended(running: subprocess.Popen[str]) -> str:
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    return said


@pytest.mark.timeout(600)  # every message waits for the disk twice, and the disk may be busy
def test_every_message_is_answered_once_in_order_of_its_key_while_the_stream_is_killed(platform, broker) -> None:
    shell, count, chance = Shell(platform, broker), 1200, random.Random(3)
    asked = [request(number, [list(FLOWERS[number % 3])]) for number in range(count)]
    shell.send(asked)
    under_way = 0
    for _ in range(5):
        running = shell.start()
        assert running.stderr is not None
        wait_until(lambda running=running: "answers asked into told" in running.stderr.readline(), what="a start")
        time.sleep(chance.uniform(0.05, 0.3))  # the moment of the kill, not a wait for anything
        running.kill()
        under_way += "lag 0" not in running.communicate()[1]
    assert under_way == 5, "each was killed while it worked"
    running = shell.start()
    wait_until(lambda: "lag 0" in (running.stderr.readline() if running.stderr else ""), limit_s=120, what="an end")
    ended(running)
    answers = shell.read("told")
    numbers: dict[str, list[int]] = defaultdict(list)
    place = {message_id(number, each): number for number, each in enumerate(asked)}
    for each in answers:
        number = place[each["headers"]["in-reply-to"]]
        assert each["key"] == f"key-{number % 5}"
        if number not in numbers[each["key"]]:
            numbers[each["key"]].append(number)
    assert all(found == sorted(found) for found in numbers.values()), "first answers stand in order, key by key"
    distinct = {each["id"]: each for each in answers}
    assert len(distinct) == count, "each message has one answer, by whatever number of deliveries"
    assert {each["headers"]["model-version"] for each in answers} == {"1"}
    labels = [output["data"] for each in answers for output in each["body"]["outputs"] if output["name"] == "label"]
    assert {len(each) for each in labels} == {1}
    assert len({each[0] for each in labels}) > 1
    assert shell.read("asked.flowers.dead", "--group", "dead-letters", "--wait", "1") == []


def test_what_cannot_be_answered_is_a_dead_letter_with_the_reason_and_the_rest_goes_on(platform, broker) -> None:
    shell = Shell(platform, broker)
    wrong = request(1, [[1.0, 2.0, 3.0, 4.0]])
    wrong["inputs"] = [{"name": "other", "shape": [1, 1], "datatype": "FP32", "data": [1]}]
    shell.send(
        [request(0, [list(FLOWERS[0])]), wrong, {"id": "x", "what": 1}, request(1, [list(each) for each in FLOWERS])]
    )
    running = shell.start()
    wait_until(lambda: "lag 0" in (running.stderr.readline() if running.stderr else ""), limit_s=60, what="an end")
    said = ended(running)
    assert "answered 2, dead letters 2" in said
    dead = shell.read("asked.flowers.dead", "--group", "dead-letters")
    reasons = sorted(each["headers"]["dead-letter-reason"] for each in dead)
    assert "neither a V2 request" in reasons[0]
    assert "the service refuses it" in reasons[1]
    assert len(shell.read("told")) == 2
    assert shell.read("told", "--wait", "1") == [], "what was read is taken"


def test_a_service_that_is_away_is_waited_for(platform, broker) -> None:
    shell = Shell(platform, broker)
    server = platform.pid_of("model-server-0")
    running = shell.start()
    assert running.stderr is not None
    wait_until(lambda: "answers asked into told" in running.stderr.readline(), what="a start")
    os.kill(server, signal.SIGSTOP)
    try:
        shell.send([request(number, [list(FLOWERS[0])]) for number in range(3)])
        os.kill(server, signal.SIGKILL)
    finally:
        with suppress(ProcessLookupError):  # it is gone already
            os.kill(server, signal.SIGCONT)
    wait_until(lambda: "answered 3" in running.stderr.readline(), limit_s=90, what="answers after the server is back")
    ended(running)
    assert len({each["id"] for each in shell.read("told")}) == 3
