"""A platform is copied while it works, restored somewhere else, and answers as before, bit for bit."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from guarded import bootstrap, corpus_models

from modelyard.testing.platform import Platform, running_platform, wait_until

pytestmark = [pytest.mark.platform, pytest.mark.slow]


def answer(platform: Platform, name: str, key: str, body: dict) -> tuple[bytes, dict[str, str]]:
    response = httpx.post(
        f"{platform.inference_url}/v2/models/{name}/infer",
        json=body,
        headers={"authorization": f"Bearer {key}"},
        trust_env=False,
        timeout=60,
    )
    named = {name: response.headers.get(name, "") for name in ("x-model-version", "x-model-digest", "x-revision")}
    return response.content, named


def command(*arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "modelyard.cli", *arguments]
    return subprocess.run(run, cwd=cwd, capture_output=True, text=True, timeout=300, check=check)


def facts(platform: Platform, key: str) -> dict[str, object]:
    with platform.client(key) as client:
        services = {info.name: (info.version, info.document["digest"], info.revision) for info in client.services()}
        models = {model["name"]: client.versions(model["name"]) for model in client.models()}
    return {"services": services, "models": models}


def test_a_restored_platform_is_the_one_that_was_copied(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    file = tmp_path / "monday.modelyard"
    with running_platform(first, "--auth", "required") as platform:
        key = bootstrap(platform)
        with platform.client(key) as client:
            for model in corpus_models(tmp_path / "models"):
                client.upload(model, name=model.stem)
                client.deploy(model.stem)
            client.deploy(model.stem, service="alone", isolation="process")
            names = sorted(info.name for info in client.services())
            bodies = {name: client.service(name).info.document["example"] for name in names}
            client.backup(file)
        before = {name: answer(platform, name, key, bodies[name]) for name in names}
        known = facts(platform, key)
    assert file.stat().st_mode & 0o077 == 0

    told = command("restore", str(file), "--data", str(second / "data"), cwd=tmp_path)
    assert "restored" in told.stdout
    with running_platform(second, "--auth", "required") as again:
        for name in names:
            wait_until(lambda name=name: answer(again, name, key, bodies[name]) == before[name], limit_s=60)
        assert facts(again, key) == known
        with again.client(key) as client:
            actions = [entry["action"] for entry in client.send(_history())]
    assert actions.count("platform.restored") == 1
    refused = command("restore", str(file), "--data", str(second / "data"), cwd=tmp_path, check=False)
    assert (refused.returncode, "not empty" in refused.stderr) == (1, True)


def _history():
    from modelyard.client import calls

    return calls.listing("history", limit=200)
