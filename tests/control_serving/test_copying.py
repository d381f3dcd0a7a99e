"""Versions copied from one control plane to another: the same bytes, audited anew, with where they come from."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import bundle
from click.testing import CliRunner
from control_driver import Control

from modelyard.cli.main import commands
from modelyard.client import Client
from modelyard.client.copying import copy_version
from modelyard.domain.errors.platform import ArtifactDamaged, Conflict


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    yield from _platform(tmp_path_factory.mktemp("here") / "data")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    yield from _platform(tmp_path_factory.mktemp("there") / "data")


def _platform(data: Path) -> Iterator[Client]:
    control = Control(data).start()
    try:
        with Client(control.url) as client:
            yield client
    finally:
        control.stop()


def put(client: Client, name: str, bias: float) -> None:
    url = f"{client.connection.url}/api/v1/models/{name}/versions"
    client.request("POST", url, files=bundle(bias=bias))


def test_a_copy_has_the_same_bytes_its_own_audit_and_says_where_it_comes_from(here: Client, there: Client) -> None:
    put(here, "m", 1.0)
    done = copy_version(here, there, ("m", "1"))
    assert done.is_new
    assert done.there.digest == done.here.digest
    assert [each["sha256"] for each in done.there.document["files"]] == [
        each["sha256"] for each in done.here.document["files"]
    ]
    assert done.there.state == "approved"
    assert done.there.document["audit"]["verdict"] == "approved"
    source = done.there.document["source"]
    assert (source["kind"], source["platform"], source["digest"]) == ("copy", here.connection.url, done.here.digest)
    assert source["verdict"] == "approved"
    assert {each["outcome"] for each in source["checks"]} <= {"passed", "warning", "skipped"}
    entries = there.request("GET", f"{there.connection.url}/api/v1/history").json()["items"]
    kept = next(each for each in entries if each["action"] == "model.version_added")
    assert kept["payload"]["source"]["platform"] == here.connection.url


def test_copying_twice_is_copying_once(here: Client, there: Client) -> None:
    put(here, "twice", 2.0)
    first = copy_version(here, there, ("twice", "1"), name="other-name")
    again = copy_version(here, there, ("twice", "1"), name="other-name")
    assert (first.is_new, again.is_new) == (True, False)
    assert again.there.version == first.there.version
    assert len(there.versions("other-name")) == 1


def test_only_what_is_approved_is_copied(here: Client, there: Client) -> None:
    put(here, "archived", 3.0)
    here.request("POST", f"{here.connection.url}/api/v1/models/archived/versions/1/archive", json={})
    with pytest.raises(Conflict, match="is archived here"):
        copy_version(here, there, ("archived", "1"))
    assert not [model for model in there.models("archived") if model["name"] == "archived"]


def test_bytes_that_did_not_come_whole_are_not_sent_on(
    here: Client, there: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(here, "torn", 4.0)
    whole = Client.file
    monkeypatch.setattr(Client, "file", lambda *given, **more: [*list(whole(*given, **more))[:-1], b"x"])
    with pytest.raises(ArtifactDamaged, match="did not come"):
        copy_version(here, there, ("torn", "1"))
    assert not [model for model in there.models("torn") if model["name"] == "torn"]


def test_the_command_copies_and_never_sends_the_key_of_this_platform(
    here: Client, there: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(here, "typed", 5.0)
    monkeypatch.setenv("MODELYARD_URL", here.connection.url)
    monkeypatch.setenv("MODELYARD_KEY", "mdy_live_ours")
    sent: list[str | None] = []
    ask = Client.request

    def listen(self: Client, method: str, url: str, **options: object) -> object:
        if url.startswith(there.connection.url):
            sent.append(self.connection.key)
        return ask(self, method, url, **options)

    monkeypatch.setattr(Client, "request", listen)
    done = CliRunner().invoke(commands, ["copy", "typed:1", "--to", there.connection.url], catch_exceptions=False)
    assert done.exit_code == 0
    assert "typed:1  approved  sha256:" in done.output
    assert sent
    assert set(sent) == {None}
