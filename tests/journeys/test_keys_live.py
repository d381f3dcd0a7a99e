"""Keys on a live platform: the first one, who may do what, what is foreign is not there, and no key is written down."""

import json
import os
import re
import sqlite3
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from guarded import Guarded, ask, until

from modelyard.control.api.policy import POLICY, Open
from modelyard.domain.access import KEY_PATTERN, Verb, key_id
from modelyard.testing.platform import running_platform

pytestmark = [pytest.mark.platform, pytest.mark.slow]
GOOD = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
INFER = "/v2/models/m1/infer"
REVOKED_WITHIN_S = 5.0
NOT_THERE = {
    "model": "nobody",
    "version": "7",
    "service": "nobody",
    "key": "AAAAAAAA",
    "job": "job_01m8bxtsqpvpx70rzarf4p",
    "project": "nowhere",
    "entry": "01J00000000000000000000000",
    "file": "none.bin",
    "alias": "none",
    "upload": "01J00000000000000000000000",
    "node": "nobody",
    "secret": "nobody",
}


@pytest.fixture(scope="module")
def other(guarded: Guarded) -> str:
    """A project beside the default one, in which nothing is."""
    answer = guarded.control("POST", "/projects", guarded.admin, json={"name": "other"})
    assert answer.status_code in (201, 409), answer.text
    return "other"


def test_the_first_token_is_private_and_works_once(tmp_path: Path) -> None:
    with running_platform(tmp_path, "--auth", "required") as platform:
        file = Path(str(platform.standing["bootstrap_token"]))
        token = file.read_text().strip()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(platform.places.pepper.stat().st_mode) == 0o600
        assert ask("GET", platform.control_url + "/api/v1/models", None).status_code == 401
        assert ask("GET", platform.control_url + "/api/v1/models", token).status_code == 401
        url = platform.control_url + "/api/v1/keys/bootstrap"
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: ask("POST", url, None, json={"token": token}), range(8)))
        assert sorted(answer.status_code for answer in answers)[:2] == [201, 401]
        assert {answer.status_code for answer in answers} <= {201, 401, 429}
        assert not file.exists()
        key = next(answer.json()["key"] for answer in answers if answer.status_code == 201)
        assert KEY_PATTERN.fullmatch(key)
        assert ask("GET", platform.control_url + "/api/v1/keys", key).status_code == 200
        assert platform.stop() == 0
        platform.start()
        assert platform.standing["bootstrap_token"] is None
        assert ask("GET", platform.control_url + "/api/v1/keys", key).status_code == 200


def test_a_token_that_is_too_old_does_not_work(tmp_path: Path) -> None:
    with running_platform(tmp_path, "--auth", "required") as platform:
        with closing(sqlite3.connect(platform.places.database, timeout=20)) as records, records:
            records.execute("UPDATE bootstrap_tokens SET expires_at = created_at")  # as if its minutes were over
        token = Path(str(platform.standing["bootstrap_token"])).read_text().strip()
        answer = ask("POST", platform.control_url + "/api/v1/keys/bootstrap", None, json={"token": token})
        assert answer.status_code == 401
        assert answer.json()["code"] == "auth_required"


def _path(template: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: NOT_THERE[found[1]], template)


def _tried(guarded: Guarded, key: str | None, method: str, template: str) -> httpx.Response:
    body = {} if method in {"POST", "PUT", "PATCH"} else None
    url = guarded.platform.control_url + _path(template)
    if template.endswith("/events"):
        with httpx.stream(
            method, url, headers={} if key is None else {"authorization": f"Bearer {key}"}, trust_env=False
        ) as answer:
            return answer
    return ask(method, url, key, json=body)


OWN_RULES = {("POST", "/api/v1/job-files"): {Verb.INFER, Verb.UPLOAD, Verb.DEPLOY, Verb.ADMIN}}
"""Where the gate lets any key in and the capability says which verbs will do: here, those of any kind of job."""
ROUTES = sorted(row for row in POLICY if row != ("POST", "/api/v1/keys/bootstrap"))


@pytest.mark.parametrize("route", ROUTES, ids=lambda row: f"{row[0]} {row[1]}")
def test_a_route_asks_for_its_scope_and_no_other_will_do(guarded: Guarded, route: tuple[str, str]) -> None:
    needs = POLICY[route].needs
    anonymous = _tried(guarded, None, *route)
    if needs is Open.PUBLIC:
        assert anonymous.status_code == 200
        assert anonymous.content == b""
        return
    assert anonymous.status_code == 401, anonymous.text
    for bad in ("nonsense", "mdy_live_" + "A" * 40, guarded.admin[:-1] + "!", guarded.admin.swapcase()):
        assert _tried(guarded, bad, *route).status_code in (401, 429)  # 429: many wrong ones came from here
    for verb in Verb:
        answer = _tried(guarded, guarded.key(verb.value), *route)
        allowed = (
            verb in OWN_RULES[route] if route in OWN_RULES else needs is Open.ANY_KEY or verb in (needs, Verb.ADMIN)
        )
        refused = answer.status_code == 403
        assert refused != allowed, (verb, answer.status_code)
        assert answer.status_code < 500


@pytest.mark.parametrize("page", ["", "/ready", "/config", "/stats", "/infer"])
def test_a_service_answers_only_keys_that_reach_it(guarded: Guarded, other: str, page: str) -> None:
    method = "POST" if page == "/infer" else "GET"

    def status(key: str | None, model: str = "m1") -> int:
        body = {"json": GOOD} if page == "/infer" else {}
        return guarded.infer(f"/v2/models/{model}{page}", key, method, **body).status_code

    assert status(None) == 401
    reads = 200 if page != "/infer" else 403
    wanted = {
        ("infer",): 200,
        ("read",): reads,
        ("admin",): 200,
        ("upload",): 403,
        ("infer:default",): 200,
        ("infer:default/m1",): 200,
        ("read:default/m1",): reads,
    }
    for scopes, right in wanted.items():
        key = guarded.key(*scopes)
        until(lambda key=key: _known(guarded, key), limit_s=5, what="the key at the model servers")
        assert status(key) == right, scopes
    foreign = guarded.key(f"admin:{other}", project=other)
    until(lambda: _known(guarded, foreign), limit_s=5, what="the key at the model servers")
    assert status(foreign) == 404
    narrow = guarded.key("infer:default/m_two")
    until(lambda: _known(guarded, narrow), limit_s=5, what="the key at the model servers")
    assert status(narrow, "m1") in (403, 404)


def test_what_is_foreign_looks_like_what_is_not_there(guarded: Guarded, other: str) -> None:
    key = guarded.key(f"admin:{other}", project=other)
    until(lambda: _known(guarded, key), limit_s=5, what="the key at the model servers")
    for template, method in (
        ("/models/{}?project=default", "GET"),
        ("/models/{}/versions?project=default", "GET"),
        ("/models/{}/versions/1?project=default", "GET"),
        ("/models/{}/versions/1/files/m1.onnx?project=default", "GET"),
        ("/models/{}/versions/1/archive?project=default", "POST"),
        ("/models/{}/versions/1?project=default", "DELETE"),
        ("/services/{}?project=default", "GET"),
        ("/services/{}?project=default", "DELETE"),
        ("/services/{}/revisions?project=default", "GET"),
        ("/services/{}/rollback?project=default", "POST"),
    ):
        body = {"json": {}} if method == "POST" else {}
        there = guarded.control(method, template.format("m1"), key, **body)
        missing = guarded.control(method, template.format("zz"), key, **body)
        assert there.status_code == missing.status_code == 404, (template, there.text, missing.text)
        assert _plain(there, "m1") == _plain(missing, "zz"), template
    for page in ("", "/ready", "/config", "/stats", "/infer"):
        method = "POST" if page == "/infer" else "GET"
        there = guarded.infer(f"/p/default/v2/models/m1{page}", key, method)
        missing = guarded.infer(f"/p/default/v2/models/zz{page}", key, method)
        assert there.status_code == missing.status_code == 404, page
        assert _plain(there, "m1") == _plain(missing, "zz"), page
    for listing in ("/models", "/models?project=default", "/services", "/services?project=default", "/reviews"):
        answer = guarded.control("GET", listing, key)
        assert answer.status_code in (200, 404), answer.text
        assert "m1" not in answer.text, listing
    assert guarded.infer("/v2/models", key, "GET").json() == {"models": []}
    assert guarded.infer("/p/default/v2/models", key, "GET").json() == {"models": []}
    assert "m1" not in guarded.infer("/v2/models/stats", key, "GET").text
    assert guarded.infer("/v2/repository/index", key, "POST", json={}).json() == []
    ids = [row["id"] for row in guarded.control("GET", "/keys?limit=200", key).json()["items"]]
    assert ids == [key_id(key)]
    history = guarded.control("GET", "/history?limit=200", key)
    assert history.status_code in (200, 403)
    assert '"m1"' not in history.text


def _plain(answer: httpx.Response, name: str) -> str:
    """The body without what differs between any two requests."""
    document = answer.json()
    document.pop("request_id")
    return json.dumps(document).replace(f"'{name}'", "'NAME'").replace(f"/{name}", "/NAME")


def _known(guarded: Guarded, key: str) -> bool:
    """Whether every model server has heard of the key."""
    return all(guarded.infer("/v2", key, "GET").status_code == 200 for _ in range(6))


def test_nobody_gives_away_more_than_they_have(guarded: Guarded, other: str) -> None:
    key = guarded.key(f"admin:{other}", project=other)
    for scope in ("admin", "infer", "read:default", "infer:default/m1"):
        answer = guarded.control("POST", "/keys", key, json={"name": "more", "scopes": [scope]})
        assert answer.status_code in (403, 404), (scope, answer.text)


def test_a_revoked_key_ends_at_the_model_servers_within_five_seconds(guarded: Guarded) -> None:
    made = guarded.control("POST", "/keys", guarded.admin, json={"name": "short", "scopes": ["infer"]}).json()
    key = made["key"]
    until(lambda: _known(guarded, key), limit_s=5, what="the key at the model servers")
    assert guarded.infer(INFER, key, json=GOOD).status_code == 200
    assert guarded.control("DELETE", f"/keys/{made['id']}", guarded.admin).status_code == 200
    began = time.monotonic()
    assert guarded.control("GET", "/me", key).status_code in (401, 429)
    until(
        lambda: all(guarded.infer(INFER, key, json=GOOD).status_code == 401 for _ in range(8)),
        limit_s=REVOKED_WITHIN_S,
        what="the end of the key",
    )
    assert time.monotonic() - began < REVOKED_WITHIN_S


def test_an_expired_key_ends_by_itself(guarded: Guarded) -> None:
    body: dict[str, Any] = {"name": "brief", "scopes": ["infer", "read"], "expires_days": 3 / 86400}
    key = guarded.control("POST", "/keys", guarded.admin, json=body).json()["key"]
    until(lambda: _known(guarded, key), limit_s=3, what="the key at the model servers")
    until(lambda: guarded.infer(INFER, key, json=GOOD).status_code == 401, limit_s=5, what="the key's end")
    assert guarded.control("GET", "/me", key).status_code in (401, 429)


def test_tokens_of_other_kinds_are_no_keys(guarded: Guarded) -> None:
    def part(value: dict) -> str:
        import base64

        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    unsigned = f"{part({'alg': 'none', 'typ': 'JWT'})}.{part({'sub': 'admin', 'exp': 4102444800})}."
    for value in (f"Bearer {unsigned}", f"Basic {guarded.admin}", guarded.admin, "Bearer", f"Bearer {guarded.admin}x"):
        answer = httpx.post(
            guarded.platform.inference_url + INFER, json=GOOD, headers={"authorization": value}, trust_env=False
        )
        assert answer.status_code == 401, value[:12]
        assert answer.json()["code"] == "auth_required"
    assert guarded.infer(f"{INFER}?key={guarded.admin}", None, json=GOOD).status_code == 401
    cookie = {"cookie": f"key={guarded.admin}; authorization=Bearer {guarded.admin}"}
    assert guarded.infer(INFER, None, json=GOOD, headers=cookie).status_code == 401


def test_no_key_is_written_down_anywhere(guarded: Guarded) -> None:
    for key in [guarded.admin, guarded.key("infer")]:
        guarded.infer(INFER, key, json=GOOD)
        guarded.infer(INFER, key, content=b"{")
        guarded.control("GET", "/models", key)
    secrets = [key[len("mdy_live_") + 8 :] for key in [guarded.admin, *guarded.keys.values()]]
    data = guarded.platform.places.data
    found = [
        str(path)
        for place in (data, guarded.platform.places.run, guarded.platform.directory)
        for path in place.rglob("*")
        if path.is_file() and _holds(path, secrets)
    ]
    assert not found
    assert not (data / "bootstrap.token").exists()


def _holds(path: Path, secrets: list[str]) -> bool:
    if not os.access(path, os.R_OK):
        return False
    content = path.read_bytes()
    return any(secret.encode() in content for secret in secrets)


def test_no_key_is_seen_among_processes(guarded: Guarded) -> None:
    import psutil

    names = ["control-plane", "model-server-0", "model-server-1"]
    for process in (psutil.Process(guarded.platform.pid_of(name)) for name in names):
        seen = " ".join(process.cmdline()) + json.dumps(process.environ())
        assert guarded.admin not in seen
