"""Asked now, answered later, through the client and on a real platform whose servers are killed meanwhile."""

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from stranger_models import joblib_classifier, make

from modelyard.client import AsyncClient, Client, RemoteError
from modelyard.testing.platform import running_platform, wait_until
from modelyard.testing.webhooks import is_signed, receiving

pytestmark = [pytest.mark.platform, pytest.mark.slow]


def test_answers_come_whoever_dies_and_from_every_server(tmp_path: Path) -> None:
    model = make(joblib_classifier, tmp_path / "models")
    rows = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]])
    with running_platform(tmp_path, "--servers", "2") as platform, Client(platform.control_url) as client:
        client.upload(model.path, name="patient")
        service = client.deploy("patient")
        at_once = service.ask(rows)
        waiting = []
        for number in range(6):
            waiting += [service.ask_later(rows) for _ in range(20)]
            victim = platform.pid_of(f"model-server-{number % 2}")
            os.kill(victim, signal.SIGKILL)
            wait_until(
                lambda n=number, v=victim: platform.pid_of(f"model-server-{n % 2}") not in (0, v),
                what="the next server",
            )
        answers = [later.result(60) for later in waiting]
        assert len(answers) == 120
        for answer in answers:
            assert answer.version == at_once.version
            for name, values in at_once.outputs.items():
                np.testing.assert_array_equal(answer.outputs[name], values)

        again = service.later(waiting[0].id)
        again.cancel()
        with pytest.raises(RemoteError) as gone:
            again.status()
        assert gone.value.status == 404

        async def from_elsewhere() -> None:
            async with AsyncClient(platform.control_url) as other:
                asked = await (await other.service("patient")).ask_later(rows, idempotency_key="order-7")
                twice = await (await other.service("patient")).ask_later(rows, idempotency_key="order-7")
                assert twice.id == asked.id
                assert (await asked.result(60)).version == at_once.version

        asyncio.run(from_elsewhere())
        left = [path.name for path in platform.places.deferred.rglob("*") if path.suffix in (".request", ".tries")]
        assert left == []


def test_answers_are_told_to_a_webhook_though_its_sender_dies(tmp_path: Path) -> None:
    model = make(joblib_classifier, tmp_path / "models")
    settings = tmp_path / "settings.yaml"
    settings.write_text("deferred: {webhooks: true, webhook_private: true, webhook_ports: [any]}\n")
    rows = np.array([[5.1, 3.5, 1.4, 0.2]])
    with (
        receiving() as receiver,
        running_platform(tmp_path, "--servers", "2", "--settings", str(settings)) as platform,
        Client(platform.control_url) as client,
    ):
        client.upload(model.path, name="patient")
        service = client.deploy("patient")
        receiver.statuses = [503, 503]
        asked = []
        for _ in range(3):
            asked += [service.ask_later(rows, webhook=receiver.url) for _ in range(10)]
            victim = platform.pid_of("webhook-sender")
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda v=victim: platform.pid_of("webhook-sender") not in (0, v), what="the next sender")
        wait_until(
            lambda: {headers["ce-id"] for headers, _ in receiver.messages} == {later.id for later in asked},
            limit_s=60,
            what="a message for every request",
        )
        secret = (platform.places.secrets / "webhook.secret").read_text()
        assert all(is_signed(headers, body, secret) for headers, body in receiver.messages)
        assert (platform.places.secrets / "webhook.secret").stat().st_mode & 0o777 == 0o600
