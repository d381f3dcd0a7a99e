"""The application's own rules: policy, problems, headers, documents, events."""

import asyncio
import importlib
import json
import pkgutil
import re

import pytest

from modelyard.control.api.policy import POLICY, Body, Open, PolicyTable
from modelyard.control.api.problems import STATUS, problem, status_of
from modelyard.domain import errors
from modelyard.domain.access import Verb
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import NotFound


def every_error() -> list[type[ModelyardError]]:
    for module in pkgutil.iter_modules(errors.__path__):
        importlib.import_module(f"{errors.__name__}.{module.name}")
    found, waiting = [], [ModelyardError]
    while waiting:
        kind = waiting.pop()
        waiting.extend(kind.__subclasses__())
        if kind.__module__.startswith(errors.__name__):
            found.append(kind)
    return found


def bare(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)


def operations(app) -> set[tuple[str, str]]:
    paths = app.openapi()["paths"]
    found = {(method.upper(), bare(path)) for path, items in paths.items() for method in items}
    return found | {("GET", "/docs"), ("GET", "/docs/style.css"), ("GET", "/openapi.json")}


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_row_of_its_own(kind):
    assert kind in STATUS
    assert re.fullmatch(r"[a-z0-9_]+", kind.code)
    assert kind.title


def test_a_plugins_error_takes_its_parents_status():
    class Lost(NotFound):
        code = "lost"

    assert status_of(Lost("gone")) == 404
    assert problem(Lost("gone", hint="look"), request_id="r")["code"] == "lost"


async def test_every_route_has_a_row_and_every_row_a_route(parts, serving):
    async with serving(parts) as client:
        mounted = operations(client.app)
    rows = {(method, bare(path)) for method, path in POLICY}
    assert mounted == rows


def concrete(path: str) -> str:
    return re.sub(r"\{\w+\}", "x", path)


async def test_each_route_takes_exactly_the_scopes_of_its_row(guarded, serving, make_key):
    """Route by scope: a key with another verb is refused at the gate, one with the verb passes it, none gets 401."""
    keys = {verb: make_key(guarded, verb.value) for verb in Verb}
    async with serving(guarded) as client:
        for (method, path), rule in POLICY.items():
            if path.endswith("/events") or rule.body is Body.STREAM:
                continue
            nobody = await client.request(method, concrete(path))
            assert (nobody.status_code == 401) is (rule.needs is not Open.PUBLIC), (method, path)
            if rule.needs is Open.PUBLIC:
                continue
            for verb, key in keys.items():
                answer = await client.request(method, concrete(path), headers={"authorization": f"Bearer {key}"})
                fits = rule.needs is Open.ANY_KEY or verb in (rule.needs, Verb.ADMIN)
                refused = answer.status_code == 403
                assert refused is not fits, (method, path, verb, answer.text)
                assert answer.status_code != 401


async def test_streams_are_refused_before_a_byte_is_read(guarded, serving, make_key):
    async def body():
        raise AssertionError("read")
        yield b""

    key = make_key(guarded, "read")
    async with serving(guarded) as client:
        for headers, status in (({}, 401), ({"authorization": f"Bearer {key}"}, 403)):
            answer = await client.post("/api/v1/models/x/versions", content=body(), headers=headers)
            assert answer.status_code == status


async def test_probes_answer_without_a_body_where_keys_are_asked_for(guarded, serving):
    async with serving(guarded) as client:
        for path in ("/healthz", "/readyz"):
            answer = await client.get(path)
            assert (answer.status_code, answer.content) == (200, b"")
        assert (await client.get("/nothing")).status_code == 401


async def test_open_mode_names_the_local_principal(parts, serving):
    async with serving(parts) as client:
        assert (await client.get("/api/v1/me")).json()["name"] == "local"
        assert (await client.get("/healthz")).text == "ok\n"


async def test_an_unknown_path_and_a_wrong_method_are_problems(parts, serving):
    async with serving(parts) as client:
        missing = await client.get("/api/v1/nothing")
        wrong = await client.put("/api/v1/models")
    assert (missing.status_code, missing.json()["code"]) == (404, "route_not_found")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")
    assert missing.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/", "//api/v1/models", "/api/v1/models/", "/api/v1/../v1/models", "/API/v1/models"])
async def test_other_spellings_of_a_path_are_other_paths(parts, serving, path):
    async with serving(parts) as client:
        answer = await client.request("GET", f"http://127.0.0.1:8700{path}")
    assert answer.status_code in (404, 200)
    if answer.status_code == 200:  # the client itself resolves dots before it sends
        assert ".." in path


async def test_every_answer_has_an_id_and_the_security_headers(parts, serving):
    async with serving(parts) as client:
        for path in ("/healthz", "/docs", "/api/v1/models", "/api/v1/none"):
            answer = await client.get(path, headers={"x-request-id": "my-id-1"})
            assert answer.headers["x-request-id"] == "my-id-1"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        forged = await client.get("/healthz", headers={"x-request-id": "a b\tc"})
        assert re.fullmatch("[0-9a-f]{16}", forged.headers["x-request-id"])


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_a_page_of_another_site_changes_nothing(parts, serving, headers):
    async with serving(parts) as client:
        answer = await client.post("/api/v1/projects", json={"name": "stolen"}, headers=headers)
        own = await client.post("/api/v1/projects", json={"name": "own"}, headers={"origin": "http://127.0.0.1:8700"})
        names = [item["name"] for item in (await client.get("/api/v1/projects")).json()["items"]]
    assert (answer.status_code, own.status_code) == (403, 201)
    assert names == ["default", "own"]


async def test_a_plain_form_is_not_taken(parts, serving):
    async with serving(parts) as client:
        answer = await client.post("/api/v1/projects", content=b'{"name":"x"}', headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_type")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"name":"a","name":"b"}', 400, "bad_json"),
        (b'{"name":' + b"[" * 40 + b"]" * 40 + b"}", 400, "bad_json"),
        (b'{"name":NaN}', 400, "bad_json"),
        (b'{"name":', 400, "bad_json"),
        (b'{"name":"a","nmae":1}', 422, "invalid_request"),
        (b"{}", 422, "invalid_request"),
        (b'{"name":"A B"}', 422, "invalid_request"),
        (b'{"name":"' + b"x" * 9_000_000 + b'"}', 413, "body_too_large"),
    ],
)
async def test_a_bad_body_is_told_what_is_wrong(parts, serving, body, status, code):
    async with serving(parts) as client:
        answer = await client.post("/api/v1/projects", content=body, headers={"content-type": "application/json"})
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, code)
    assert set(document) >= {"type", "title", "status", "detail", "hint", "request_id"}
    assert document["status"] == status


async def test_no_error_text_names_a_place_of_ours(parts, serving):
    async with serving(parts) as client:
        for path in ("/api/v1/models/none", "/api/v1/keys/none", "/api/v1/models?cursor=x", "/api/v1/history?limit=a"):
            text = (await client.request("GET", path)).text
            assert not re.search(r"Traceback|site-packages|\.py|/tmp|sqlite", text), text


async def test_an_unexpected_failure_is_one_problem_without_its_text(parts, serving, monkeypatch):
    from modelyard.control.identity import projects

    def broken(*_):
        raise ZeroDivisionError("inner secret")

    monkeypatch.setattr(projects, "list_projects", broken)
    async with serving(parts) as client:
        answer = await client.get("/api/v1/projects")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text


async def test_openapi_says_what_every_operation_is(parts, serving):
    async with serving(parts) as client:
        document = (await client.get("/openapi.json")).json()
    ids = []
    for path, items in document["paths"].items():
        for method, operation in items.items():
            place = f"{method} {path}"
            assert operation.get("summary"), place
            assert operation.get("tags"), place
            assert {"4XX", "5XX"} <= set(operation["responses"]), place
            assert any(status.startswith("2") for status in operation["responses"]), place
            assert ("security" in operation) is (
                PolicyTable(POLICY).match(method.upper(), path).rule.needs is not Open.PUBLIC
            )
            ids.append(operation["operationId"])
    assert len(ids) == len(set(ids))
    text = json.dumps(document)
    for reference in set(re.findall(r'"#/components/(\w+)/(\w+)"', text)):
        assert reference[1] in document["components"][reference[0]], reference


async def test_the_docs_page_loads_nothing_from_elsewhere(parts, serving):
    async with serving(parts) as client:
        page = (await client.get("/docs")).text
        assert (await client.get("/docs/style.css")).headers["content-type"].startswith("text/css")
    assert re.findall(r'(?:src|href)="([^"]+)"', page) == ["/docs/style.css", "/openapi.json"]
    assert "<script" not in page
    assert "/api/v1/models/{model}" in page


async def test_a_creation_sent_twice_happens_once(parts, serving):
    headers = {"idempotency-key": "once"}
    async with serving(parts) as client:
        first = await client.post("/api/v1/projects", json={"name": "a"}, headers=headers)
        second = await client.post("/api/v1/projects", json={"name": "a"}, headers=headers)
        other = await client.post("/api/v1/projects", json={"name": "b"}, headers=headers)
        entries = (await client.get("/api/v1/history?action=project.created")).json()["items"]
    assert (first.status_code, second.status_code, other.status_code) == (201, 201, 409)
    assert first.json() == second.json()
    assert len(entries) == 1


async def test_a_change_of_what_has_changed_is_refused(parts, serving, add_version):
    add_version(parts)
    async with serving(parts) as client:
        etag = (await client.get("/api/v1/models/digits")).headers["etag"]
        headers = {"if-match": etag}
        first = await client.patch("/api/v1/models/digits", json={"description": "one"}, headers=headers)
        second = await client.patch("/api/v1/models/digits", json={"description": "two"}, headers=headers)
        third = await client.patch("/api/v1/models/digits", json={"description": "3"}, headers={"if-match": "*"})
    assert [answer.status_code for answer in (first, second, third)] == [200, 412, 200]
    assert first.headers["etag"] != etag


async def test_settings_and_plugins_are_shown_without_secrets(parts, serving):
    async with serving(parts) as client:
        settings = (await client.get("/api/v1/settings")).json()
        plugins = (await client.get("/api/v1/plugins")).json()
    names = {item["name"]: item for item in settings["settings"]}
    assert names["keys.expires_days"]["variable"] == "MODELYARD_KEYS_EXPIRES_DAYS"
    assert parts.pepper.hex() not in json.dumps(settings)
    assert isinstance(plugins["items"], list)


async def test_metrics_are_those_of_the_process(parts, serving):
    async with serving(parts) as client:
        assert (await client.get("/metrics")).status_code == 501
    parts.metrics = lambda: b"up 1\n"
    async with serving(parts) as client:
        assert (await client.get("/metrics")).text == "up 1\n"


class Stream:
    """Drives one request of an application by hand, since the client's transport waits for the end of an answer."""

    def __init__(self, app, path: str, query: str = "", headers=()) -> None:
        self.chunks: asyncio.Queue[dict] = asyncio.Queue()
        self.gone = asyncio.Event()
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": [(b"host", b"127.0.0.1:8700"), *headers], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1),
        }  # fmt: skip
        self._first = True
        self.task = asyncio.create_task(app(scope, self._receive, self.chunks.put))

    async def _receive(self):
        if self._first:
            self._first = False
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def until(self, text: str) -> str:
        seen = ""
        async with asyncio.timeout(10):
            while text not in seen:
                seen += (await self.chunks.get()).get("body", b"").decode()
        return seen

    async def close(self) -> None:
        self.gone.set()
        async with asyncio.timeout(10):
            await self.task


async def test_events_arrive_as_they_happen_and_after_a_break(parts, serving, add_version):
    async with serving(parts) as client:
        stream = Stream(client.app, "/api/v1/events")
        await stream.until(": events after")
        await asyncio.to_thread(add_version, parts)
        seen = await stream.until("model.version_added")
        await stream.close()
        assert '"subject": "model/digits"' in seen + await later(client, after=0)


async def later(client, *, after: int) -> str:
    stream = Stream(client.app, "/api/v1/events", headers=[(b"last-event-id", str(after).encode())])
    seen = await stream.until("model/digits")
    await stream.close()
    return seen


async def test_events_of_other_projects_are_not_shown(guarded, serving, make_key, add_version):
    key = make_key(guarded, "read:default")
    from modelyard.control.history import append
    from modelyard.control.identity import LOCAL, create_project

    with guarded.database.begin() as tx:
        create_project(tx, LOCAL, name="team-a", description="", two_person_review=False, journal=append)
    async with serving(guarded, key) as client:
        headers = [(b"authorization", f"Bearer {key}".encode())]
        stream = Stream(client.app, "/api/v1/events", query="after=0", headers=headers)
        await asyncio.to_thread(add_version, guarded, "hidden", project="team-a")
        await asyncio.to_thread(add_version, guarded, "digits")
        seen = await stream.until("model/digits")
        await stream.close()
    assert "hidden" not in seen
    assert "key.created" not in seen or '"project": "default"' in seen


async def test_streams_end_with_the_application(parts, serving):
    async with serving(parts) as client:
        stream = Stream(client.app, "/api/v1/events")
        await stream.until(": events after")
    async with asyncio.timeout(10):
        await stream.task


@pytest.mark.parametrize("name", ["authorization", "content-type", "origin", "if-match", "idempotency-key"])
async def test_a_header_that_decides_may_be_there_once(parts, serving, name):
    async with serving(parts) as client:
        answer = await client.post("/api/v1/projects", json={"name": "a"}, headers=[(name, "x"), (name, "y")])
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_header")
