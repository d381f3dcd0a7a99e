"""Webhooks: signed, tried until they are taken, and never a way into the network behind the server."""

import asyncio
import time
from pathlib import Path

import pytest

from modelyard.domain.deferred import DeferredRules, DeferredState
from modelyard.domain.routing import RoutingTable
from modelyard.inference.deferred import Accepted, Outcome, Sender, secret_of, sending
from modelyard.inference.deferred.hooks import write_message
from modelyard.testing.webhooks import is_signed, receiving

KEY = b"k" * 32
ID = "0123456789abcdef0123456789abcdef"


def leave(root: Path, url: str, *, request_id: str = ID) -> Path:
    """A message on the disk, as a server leaves it."""
    accepted = Accepted(
        id=request_id, project="default", service="m1", caller="", has_key=False, dialect="v2", version=None, fields={},
        created_at=1.0, expires_at=2.0, webhook=url,
    )  # fmt: skip
    outcome = Outcome(
        state=DeferredState.SUCCEEDED, status=200, content_type="application/json", headers="",
        finished_at=1_790_000_000.25, kept_until=1_790_000_001.0, tries=1,
    )  # fmt: skip
    path = root / "server" / f"{request_id}.hook"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(write_message(accepted, outcome, b'{"outputs": []}'))
    return path


def deliver(root: Path, path: Path, *, allow_private: bool = True, patience_s: float = 15.0) -> list[str]:
    """Run the sender until the message has ended; how it did."""
    told: list[str] = []

    async def run() -> None:
        ended = asyncio.Event()

        def tell(outcome: str) -> None:
            told.append(outcome)
            ended.set()

        task = asyncio.create_task(Sender(root, key=KEY, allow_private=allow_private, tell=tell).run())
        await asyncio.wait_for(ended.wait(), patience_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert not path.exists()
    return told


def test_a_message_is_a_signed_event(tmp_path: Path) -> None:
    with receiving() as receiver:
        path = leave(tmp_path, receiver.url)
        assert deliver(tmp_path, path) == ["delivered"]
        [(headers, body)] = receiver.messages
    assert body == b'{"outputs": []}'
    assert is_signed(headers, body, secret_of(KEY))
    assert not is_signed(headers, body + b" ", secret_of(KEY))
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert headers["webhook-id"] == headers["ce-id"] == ID
    assert headers["ce-type"] == "org.kubeflow.serving.inference.response"
    assert headers["ce-source"] == "/p/default/v2/models/m1"
    assert headers["x-response-status"] == "200"
    assert "authorization" not in headers


def test_a_receiver_that_fails_is_tried_again_and_one_that_is_gone_is_not(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sending, "PAUSES_S", (0.05,) * 4)
    with receiving() as receiver:
        receiver.statuses = [500, 429]
        assert deliver(tmp_path, leave(tmp_path, receiver.url)) == ["delivered"]
        assert len(receiver.messages) == 3
        assert len({headers["webhook-id"] for headers, _ in receiver.messages}) == 1
        receiver.statuses = [410]
        assert deliver(tmp_path, leave(tmp_path, receiver.url)) == ["refused"]
        receiver.statuses = [500] * 9
        assert deliver(tmp_path, leave(tmp_path, receiver.url)) == ["given_up"]
        assert len(receiver.messages) == 3 + 1 + 5


def test_a_redirect_is_not_followed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sending, "PAUSES_S", ())
    with receiving() as receiver, receiving() as canary:
        receiver.statuses, receiver.location = [302], canary.url
        assert deliver(tmp_path, leave(tmp_path, receiver.url)) == ["given_up"]
        assert canary.connections == 0


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]", "localhost.", "169.254.169.254",
    ],
)  # fmt: skip
def test_no_form_of_a_private_address_is_connected_to(tmp_path: Path, monkeypatch, host: str) -> None:
    monkeypatch.setattr(sending, "PAUSES_S", ())
    with receiving() as canary:
        path = leave(tmp_path, f"http://{host}:{canary.port}/hook")
        assert deliver(tmp_path, path, allow_private=False) == ["given_up"]
        assert canary.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "https://[::1]/", "http://10.0.0.7/x", "ftp://example.org/", "http://user:word@example.org/",
        "http://example.org:22/", "http://example.org/?a=1", "file:///etc/passwd", "//example.org/", "",
    ],
)  # fmt: skip
def test_an_address_that_can_be_known_to_be_wrong_is_refused_at_once(kit, packages, servers, tmp_path, url) -> None:
    table = RoutingTable(
        revision=1,
        services=(kit.service("m1", kit.backend(packages.linear("m1"))),),
        deferred=DeferredRules(webhook_ports=(443, 80)),
    )
    server = servers.start(table, deferred=str(tmp_path / "deferred"))
    with server.client() as client:
        refused = client.post(
            "/v2/models/m1/infer", json=kit.question(), headers={"prefer": "respond-async", "x-webhook-url": url}
        )
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_header")
    assert not list((tmp_path / "deferred").glob("*/*.request"))
