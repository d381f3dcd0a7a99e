"""Issuers as an operator configures them, their keys fetched and kept, and tokens on the control listener."""

import json
import time

import httpx
import pytest
from token_kit import AUDIENCE, NAME, TestIssuer, issuers_file

from modelyard.control.api import create_app, open_parts
from modelyard.control.identity import IssuerBook
from modelyard.domain.errors.platform import StartRefused, Unavailable
from modelyard.foundation.clock import SetClock
from modelyard.foundation.places import Places
from modelyard.foundation.settings import TokenSettings
from modelyard.foundation.tokens import TokenRefused
from modelyard.inference.admission import KeyRing
from modelyard.integrations.artifact_stores.files import FileArtifactStore

ISSUER = TestIssuer(("ES256", "RS256"))
ENTRY = {"issuer": NAME, "audience": AUDIENCE, "algorithms": ["ES256"]}


def book(tmp_path, entry: dict, **more) -> IssuerBook:
    settings = TokenSettings(issuers=str(issuers_file(tmp_path, entry)), refresh_s=1.0)
    return IssuerBook(settings, kept=tmp_path / "kept", **more)


def test_keys_may_stand_in_the_file_or_beside_it(tmp_path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps(ISSUER.jwks()))
    for source in ({"jwks": ISSUER.jwks()}, {"jwks_file": "keys.json"}):
        issuers = book(tmp_path, ENTRY | source)
        assert issuers.verify(ISSUER.token(), now=time.time()).subject == "alice"
        assert '"d"' not in issuers.current[0].keys


@pytest.mark.parametrize(
    "wrong",
    [
        {"algorithms": ["none"], "jwks": ISSUER.jwks()},
        {"algorithms": [], "jwks": ISSUER.jwks()},
        {"algorithms": ["HS256"], "jwks": ISSUER.jwks()},
        {"algorithms": ["ES256"]},
        {"jwks": ISSUER.jwks(), "jwks_url": "https://login.example/keys"},
        {"jwks_url": "http://login.example/keys"},
        {"jwks_url": "file:///etc/passwd"},
        {"jwks_file": "not-there.json"},
        {"jwks": {"keys": []}},
        {"jwks": ISSUER.jwks(), "leeway_s": 61},
        {"jwks": ISSUER.jwks(), "audience": []},
        {"jwks": ISSUER.jwks(), "at_most": ["everything"]},
        {"jwks": ISSUER.jwks(), "verify": False},
    ],
)
def test_a_configuration_that_would_not_be_safe_does_not_start(tmp_path, wrong) -> None:
    with pytest.raises(StartRefused) as refused:
        book(tmp_path, ENTRY | wrong)
    assert refused.value.detail


def test_an_issuer_that_is_away_for_an_hour_changes_nothing_also_not_after_a_restart(tmp_path) -> None:
    clock = [1_800_000_000.0]
    is_there = [True]

    def fetch(url: str, timeout_s: float) -> bytes:
        if not is_there[0]:
            raise Unavailable("nobody answers there")
        return json.dumps(ISSUER.jwks()).encode()

    issuers = book(tmp_path, ENTRY | {"jwks_url": "https://login.example/keys"}, fetch=fetch)
    issuers.refresh()
    is_there[0] = False
    for _ in range(60):  # a minute each
        clock[0] += 60
        issuers.refresh()
    token = ISSUER.token(exp=clock[0] + 300, iat=clock[0] - 10, nbf=clock[0] - 10)
    assert issuers.verify(token, now=clock[0]).subject == "alice"
    restarted = book(tmp_path, ENTRY | {"jwks_url": "https://login.example/keys"}, fetch=fetch)
    restarted.refresh()
    assert restarted.verify(token, now=clock[0]).subject == "alice"
    ring = KeyRing((), pepper=b"p", required=True, issuers=restarted.current, clock=lambda: clock[0])
    assert ring.identify(b"Bearer " + token.encode()).key == f"{NAME}#alice"


def test_keys_are_fetched_over_http_turned_over_and_never_replaced_by_nonsense(tmp_path, key_server) -> None:
    issuers = book(tmp_path, ENTRY | {"jwks_url": key_server.url})
    old, new = ISSUER, TestIssuer(("ES256",))
    key_server.answer = json.dumps(old.jwks()).encode()
    issuers.refresh()
    assert issuers.verify(old.token(), now=time.time())
    for nonsense in (None, b"", b"[]", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AA"}]}', b"x" * (2 << 20)):
        key_server.answer = nonsense
        issuers.refresh()
        assert issuers.verify(old.token(), now=time.time())
    key_server.answer = json.dumps(new.jwks()).encode()
    issuers.refresh()
    assert issuers.verify(new.token(), now=time.time())
    with pytest.raises(TokenRefused):
        issuers.verify(old.token(), now=time.time())


def test_nobody_is_asked_unless_an_address_is_configured(tmp_path) -> None:
    asked = []
    issuers = book(tmp_path, ENTRY | {"jwks": ISSUER.jwks()}, fetch=lambda url, _: asked.append(url) or b"")
    issuers.start()
    issuers.refresh()
    issuers.stop()
    assert asked == []


async def test_a_token_is_a_caller_of_the_control_api(tmp_path) -> None:
    places = Places(tmp_path / "data")
    places.create()
    entry = ENTRY | {"jwks": ISSUER.jwks(), "groups": {"ops": ["admin"]}, "at_most": ["admin", "read", "infer"]}
    with open_parts(
        places, artifacts=FileArtifactStore(places.artifacts), auth_required=True, clock=SetClock()
    ) as parts:
        parts.put(IssuerBook, book(tmp_path, entry))
        app = create_app(parts)
        now = parts.clock.now().timestamp()
        fresh = {"exp": now + 600, "iat": now, "nbf": now}
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 1), raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8700") as client,
        ):

            async def ask(method: str, path: str, token: str, **more) -> httpx.Response:
                return await client.request(method, path, headers={"authorization": f"Bearer {token}"}, **more)

            ops = ISSUER.token(groups=["ops"], **fresh)
            who = (await ask("GET", "/api/v1/me", ops)).json()
            assert (who["key_id"], who["name"]) == (f"{NAME}#alice", "alice")
            made = await ask("POST", "/api/v1/keys", ops, json={"name": "k", "scopes": ["read"]})
            assert made.status_code == 201, made.text
            entries = (await ask("GET", "/api/v1/history", ops)).json()["items"]
            assert entries[0]["actor"] == {"kind": "token", "id": f"{NAME}#alice", "name": "alice"}
            plain = ISSUER.token(**fresh)
            refused = await ask("POST", "/api/v1/keys", plain, json={"name": "k", "scopes": ["read"]})
            assert refused.status_code == 403
            for bad in (ISSUER.token(exp=now - 61), ISSUER.token(aud="x", **fresh), "a.b.c"):
                assert (await ask("GET", "/api/v1/me", bad)).status_code == 401
            for _ in range(40):
                last = await ask("GET", "/api/v1/me", "a.b.c")
            assert last.status_code == 429, "many wrong ones are slowed down"
            assert (await ask("GET", "/api/v1/me", ops)).status_code == 200, "and right ones are not"
