"""Upstreams as services of a real platform: asked for, made live, changed, gone back from, and kept secret."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from small_servers import Upstream

from modelyard.client import Client
from modelyard.client.errors import RemoteError
from modelyard.testing.platform import Platform, running_platform, wait_until

pytestmark = [pytest.mark.platform, pytest.mark.slow]
KEY = "sk-of-the-provider-and-nobody-else"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_platform(tmp_path_factory.mktemp("upstreams")) as running:
        yield running


@pytest.fixture
def client(platform: Platform) -> Iterator[Client]:
    with platform.client() as opened:
        yield opened


def ask(platform: Platform, service: str, **more: Any) -> httpx.Response:
    body = {"model": service, "messages": [{"role": "user", "content": "Hello"}], **more}
    return httpx.post(f"{platform.inference_url}/v1/chat/completions", json=body, timeout=60, trust_env=False)


def deploy(client: Client, name: str, upstream: dict[str, Any], **more: Any) -> Any:
    from modelyard.client import calls

    info = client.send(calls.deploy({"name": name, "upstream": upstream, **more}))
    return client.wait(info)


def put_secret(client: Client, name: str, value: str) -> None:
    from modelyard.client import calls

    client.send(calls.change("secrets", name, body={"value": value}, method="PUT"))


def test_an_upstream_becomes_a_service_with_revisions_history_and_a_way_back(
    platform: Platform, client: Client, make_upstream: Callable[..., Upstream]
) -> None:
    old, new = make_upstream(), make_upstream()
    first = deploy(client, "chat", {"protocol": "openai", "url": f"{old.url()}/v1", "model": "small"}, why="a trial")
    assert first.document["url"] == f"{platform.inference_url}/v1"
    assert first.document["spec"]["upstream"]["url"] == f"{old.url()}/v1"
    assert first.document["digest"].startswith("sha256:")
    answer = ask(platform, "chat")
    assert (answer.status_code, answer.headers["x-revision"]) == (200, "1")
    assert answer.headers["x-model-digest"] == first.document["digest"]
    second = deploy(client, "chat", {"protocol": "openai", "url": f"{new.url()}/v1", "model": "small"})
    assert second.document["revision"] == 2
    wait_until(lambda: ask(platform, "chat").headers["x-revision"] == "2", what="the new upstream answers")
    assert new.asked[-1][2]["model"] == "small"
    rolled = client.request("POST", f"{platform.control_url}/api/v1/services/chat/rollback", json={}).json()
    assert rolled["goal"] == 3
    wait_until(lambda: ask(platform, "chat").headers["x-revision"] == "3", what="the old upstream answers again")
    entries = client.request("GET", f"{platform.control_url}/api/v1/history", params={"subject": "service/chat"}).json()
    created = next(entry for entry in entries["items"] if entry["action"] == "service.created")
    assert created["payload"]["why"] == "a trial"
    assert created["payload"]["spec"]["upstream"]["protocol"] == "openai"
    assert created["actor"]["kind"] == "local"


def test_the_providers_key_is_used_and_is_nowhere_in_the_data_directory(
    platform: Platform, client: Client, make_upstream: Callable[..., Upstream]
) -> None:
    upstream = make_upstream()
    upstream.key = KEY
    wanted = {"protocol": "openai", "url": f"{upstream.url()}/v1", "model": "small", "auth": {"secret": "provider"}}
    with pytest.raises(RemoteError, match="provider"):
        deploy(client, "keyed", wanted)
    put_secret(client, "provider", KEY)
    deploy(client, "keyed", wanted)
    assert ask(platform, "keyed").status_code == 200
    assert upstream.asked[-1][1]["Authorization"] == f"Bearer {KEY}"
    data = platform.places.data
    clear = [str(p.relative_to(data)) for p in data.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert clear == []
    with pytest.raises(RemoteError, match="service keyed"):
        client.request("DELETE", f"{platform.control_url}/api/v1/secrets/provider")
    upstream.key = KEY + "-renewed"
    assert ask(platform, "keyed").json()["error"]["code"] == "upstream_refused"
    put_secret(client, "provider", upstream.key)
    wait_until(lambda: ask(platform, "keyed").status_code == 200, what="the new key is used")
    assert client.service("keyed").info.document["revision"] == 1


def test_a_stream_of_a_service_arrives_whole(
    platform: Platform, client: Client, make_upstream: Callable[..., Upstream]
) -> None:
    upstream = make_upstream()
    deploy(client, "streams", {"protocol": "openai", "url": f"{upstream.url()}/v1", "model": "small"})
    text = ask(platform, "streams", stream=True).text
    events = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
    assert "".join(event["choices"][0]["delta"]["content"] for event in events) == "Hello world"


def test_a_v2_upstream_is_a_service_like_any_other(
    platform: Platform, client: Client, make_upstream: Callable[..., Upstream]
) -> None:
    upstream = make_upstream()
    deploy(client, "twice", {"protocol": "v2", "url": upstream.url(), "model": "double"})
    answer = client.service("twice").ask([[1.0, 2.0]])
    assert answer.outputs["y"].tolist() == [[2.0, 4.0]]


def test_an_upstream_that_nobody_answers_at_is_said_to_be_so_and_the_one_before_goes_on(
    platform: Platform, client: Client, make_upstream: Callable[..., Upstream]
) -> None:
    upstream = make_upstream()
    deploy(client, "steady", {"protocol": "openai", "url": f"{upstream.url()}/v1", "model": "small"})
    with pytest.raises(RemoteError, match="refuses connections"):
        deploy(client, "steady", {"protocol": "openai", "url": "http://127.0.0.1:9/v1", "model": "small"})
    assert ask(platform, "steady").headers["x-revision"] == "1"


@pytest.mark.parametrize(
    ("upstream", "more", "field"),
    [
        ({"protocol": "openai", "url": "nowhere"}, {}, "upstream.url"),
        ({"protocol": "openai", "url": "http://169.254.169.254/v1"}, {}, "upstream.url"),
        ({"protocol": "openai", "url": "http://127.0.0.1/v1", "version": "1"}, {}, "upstream.version"),
        ({"protocol": "openai", "url": "http://127.0.0.1/v1"}, {"isolation": "process"}, "isolation"),
        ({"protocol": "openai", "url": "http://127.0.0.1/v1"}, {"model": "m"}, "model"),
    ],
)
def test_an_upstream_that_cannot_be_is_refused_with_its_field(
    client: Client, platform: Platform, upstream: dict[str, Any], more: dict[str, Any], field: str
) -> None:
    answer = httpx.post(
        f"{platform.control_url}/api/v1/services",
        json={"name": "wrong", "upstream": upstream, **more},
        timeout=60,
        trust_env=False,
    )
    assert answer.status_code == 422, answer.text
    assert [detail["field"] for detail in answer.json()["details"]] == [field]
    assert answer.json()["hint"]


def test_a_service_does_not_change_its_dialect_under_its_callers(
    client: Client, make_upstream: Callable[..., Upstream]
) -> None:
    upstream = make_upstream()
    deploy(client, "dialect", {"protocol": "v2", "url": upstream.url(), "model": "double"})
    with pytest.raises(RemoteError, match="tensors"):
        deploy(client, "dialect", {"protocol": "openai", "url": f"{upstream.url()}/v1", "model": "small"})


def test_the_command_line_sets_lists_and_deletes_secrets(platform: Platform, tmp_path: Path) -> None:
    import subprocess
    import sys

    def run(*arguments: str, text: str = "") -> str:
        command = [sys.executable, "-m", "modelyard.cli", *arguments, "--url", platform.control_url]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout + done.stderr

    (tmp_path / "key.txt").write_text("from a file\n")
    assert "aside  set" in run("secrets", "set", "aside", "--from-file", str(tmp_path / "key.txt"))
    assert "from-stdin  set" in run("secrets", "set", "from-stdin", "--stdin", text="typed\n")
    listed = run("secrets", "list")
    assert "aside" in listed
    assert "typed" not in listed
    assert "aside  deleted" in run("secrets", "delete", "aside")
    assert "aside" not in run("secrets", "list")
