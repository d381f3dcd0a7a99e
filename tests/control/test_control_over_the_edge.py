"""The application behind the real listener: a socket, a stream that lives, a drain that ends."""

import asyncio
import json
import os
import re
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from modelyard.control.api import create_app, end_streams
from modelyard.foundation.http import AsgiHandler, EdgeSettings, problem_errors, serve

DOCS = Path(__file__).parents[2] / "docs"
FAIL_ON_REFUSAL = 'set -eo pipefail; curl() { command curl --fail-with-body "$@"; echo; }\n'


@asynccontextmanager
async def listening(parts):
    app = create_app(parts)
    handler = AsgiHandler(app)
    await handler.start()
    listener = await serve(handler, address=("127.0.0.1", 0), settings=EdgeSettings(errors=problem_errors))
    try:
        yield app, listener, f"http://{listener.addresses[0]}".replace("http://http://", "http://")
    finally:
        end_streams(app)
        await listener.close(5.0)
        await handler.stop()


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/openapi.json", "/api/v1/models", "/api/v1/history"])
async def test_the_api_answers_over_a_socket(parts, path):
    async with listening(parts) as (_, _, url), httpx.AsyncClient(base_url=url) as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"]
    assert len(answer.headers.get_list("x-request-id")) == 1


async def test_a_browser_that_lies_about_its_host_is_refused(parts):
    async with listening(parts) as (_, _, url), httpx.AsyncClient(base_url=url) as client:
        answer = await client.get("/api/v1/models", headers={"host": "evil.example"})
    assert answer.status_code in (400, 403, 421)
    assert answer.json()["code"] == "bad_host"


async def test_a_stream_follows_changes_and_ends_with_the_listener(parts, add_version):
    async with (
        listening(parts) as (app, _, url),
        httpx.AsyncClient(base_url=url, timeout=10) as client,
        client.stream("GET", "/api/v1/events") as answer,
        asyncio.timeout(20),
    ):
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith(":")
        await asyncio.to_thread(add_version, parts)
        seen = [await anext(lines) for _ in range(5)]
        assert "event: model.version_added" in seen
        end_streams(app)
        async for _ in lines:
            pass


def commands_of(page: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


async def run_command(command: str, **environment: str) -> str:
    child = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        FAIL_ON_REFUSAL + command,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await child.communicate()
    assert child.returncode == 0, (command, out, err)
    return out.decode()


async def test_the_documented_key_commands_work(guarded, add_version):
    async with listening(guarded) as (_, _, url):
        key, number, ran = "", "", 0
        for block in commands_of("how-to/keys.md"):
            command = block.replace("http://127.0.0.1:8700", url).replace("DATA/", f"{guarded.places.data}/")
            command = command.replace("/keys/ID", f"/keys/{number}")
            answer = json.loads(await run_command(command, MODELYARD_KEY=key))
            key, number = key or answer["key"], answer["id"]
            ran += 1
    assert ran == 3
    assert answer["state"] == "revoked"


async def test_the_documented_history_commands_work(parts, add_version):
    add_version(parts)
    async with listening(parts) as (_, _, url):
        (block,) = commands_of("explanation/history.md")
        out = await run_command(block.replace("http://127.0.0.1:8700", url))
    answers = [json.loads(line) for line in out.splitlines()]
    assert [bool(answer["items"]) for answer in answers[:2]] == [True, False]
    assert answers[2]["live"] == []
