"""Tokens as RFC 8725 wants them checked: what is accepted, what it may do, and everything that is refused."""

import json
import time

import jwt
import pytest
from token_kit import AUDIENCE, TestIssuer, bad_tokens, hmac_token

from modelyard.domain.access import parse_scope
from modelyard.domain.errors.platform import InvalidRequest, StartRefused, Unauthenticated
from modelyard.foundation.tokens import TokenRefused, TokenVerifier, public_keys
from modelyard.inference.admission import KeyRing

ISSUER = TestIssuer(("ES256", "RS256"))
STRANGER = TestIssuer(("ES256",))
BAD = bad_tokens(ISSUER, STRANGER)


def scopes(bearer) -> list[str]:
    return [str(scope) for scope in bearer.scopes]


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA"])
def test_a_token_of_every_usual_algorithm_is_accepted(algorithm: str) -> None:
    issuer = TestIssuer((algorithm,))
    bearer = TokenVerifier([issuer.record()]).verify(issuer.token(), now=time.time())
    assert (bearer.issuer, bearer.subject, bearer.project) == (issuer.name, "alice", "default")
    assert scopes(bearer) == ["infer"]


@pytest.mark.parametrize("what", BAD)
def test_a_token_that_is_not_right_is_refused(what: str) -> None:
    with pytest.raises(TokenRefused):
        TokenVerifier([ISSUER.record()]).verify(BAD[what], now=time.time())


def test_clocks_may_differ_by_the_leeway_and_never_by_more_than_a_minute() -> None:
    now = time.time()
    late = ISSUER.token(exp=now - 20)
    early = ISSUER.token(nbf=now + 20, iat=now + 20)
    ok = TokenVerifier([ISSUER.record(leeway_s=30.0)])
    assert ok.verify(late, now=now)
    assert ok.verify(early, now=now)
    strict = TokenVerifier([ISSUER.record(leeway_s=0.0)])
    for token in (late, early):
        with pytest.raises(TokenRefused):
            strict.verify(token, now=now)
    with pytest.raises(TokenRefused):
        TokenVerifier([ISSUER.record(leeway_s=3600.0)]).verify(ISSUER.token(exp=now - 90), now=now)


def test_a_shared_secret_works_where_it_is_configured_and_nowhere_else(tmp_path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 32 + b"\n")
    secret.chmod(0o600)
    record = ISSUER.record(algorithms=("HS256",), secret_file=str(secret), keys='{"keys":[]}')
    token = jwt.encode(ISSUER.claims(), b"s" * 32, algorithm="HS256", headers={"typ": "JWT"})
    assert TokenVerifier([record]).verify(token, now=time.time()).subject == "alice"
    with pytest.raises(TokenRefused):
        TokenVerifier([ISSUER.record()]).verify(token, now=time.time())
    with pytest.raises(TokenRefused):
        TokenVerifier([record]).verify(ISSUER.token(), now=time.time())
    secret.chmod(0o644)
    with pytest.raises(StartRefused):
        TokenVerifier([record])


def test_what_a_token_may_do_comes_from_words_groups_and_the_issuer_within_its_ceiling() -> None:
    verifier = TokenVerifier([ISSUER.record(scopes=(parse_scope("read:default"),))])

    def given(**claims) -> list[str]:
        return scopes(verifier.verify(ISSUER.token(**claims), now=time.time()))

    assert given(scope=...) == ["read:default"]
    assert given(scope="modelyard:infer:team/iris modelyard:nonsense infer") == ["read:default", "infer:team/iris"]
    assert given(scope=["modelyard:infer"]) == ["read:default", "infer"]
    assert given(scope=..., groups=["science", "art", 7]) == ["read:default", "infer:default/m1"]
    assert given(scope=..., modelyard={"scopes": ["infer:default"]}) == ["read:default", "infer:default"]
    assert given(scope="modelyard:admin modelyard:deploy modelyard:upload:default") == ["read:default"]


def test_a_token_names_a_project_only_within_the_issuers_ceiling() -> None:
    token = ISSUER.token(modelyard={"project": "team"})
    assert TokenVerifier([ISSUER.record()]).verify(token, now=time.time()).project == "team"
    bound = TokenVerifier([ISSUER.record(ceiling=(parse_scope("infer:default"),))])
    with pytest.raises(TokenRefused):
        bound.verify(token, now=time.time())


def test_a_published_set_holds_public_keys_for_signatures_only() -> None:
    private = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(ISSUER.keys["ES256"]))
    assert "d" in private
    kept = json.loads(public_keys({"keys": [private | {"x5u": "https://evil.example"}]}, what="it"))["keys"][0]
    assert set(kept) == {"kty", "crv", "x", "y"}
    small = {"kty": "RSA", "n": "AQAB" * 40, "e": "AQAB"}
    for wrong in (
        {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]},
        {"keys": [private | {"use": "enc"}]},
        {"keys": [small]},
        {"keys": {}},
        {"keys": []},
        [],
        None,
    ):
        with pytest.raises(InvalidRequest):
            public_keys(wrong, what="it")


def test_a_key_without_a_name_is_found_when_it_is_the_only_one() -> None:
    unnamed = {"keys": [{name: value for name, value in key.items() if name != "kid"} for key in ISSUER.jwks()["keys"]]}
    record = ISSUER.record(keys=public_keys(unnamed, what="it"))
    assert TokenVerifier([record]).verify(ISSUER.token(), now=time.time())
    two = {"keys": unnamed["keys"] + STRANGER.jwks()["keys"]}
    ambiguous = TokenVerifier([ISSUER.record(keys=public_keys(two, what="it"))])
    with pytest.raises(TokenRefused):
        ambiguous.verify(ISSUER.signed_as_it_stands({"alg": "ES256", "typ": "JWT"}), now=time.time())


def test_the_server_remembers_a_token_until_it_ends_and_only_for_its_table() -> None:
    now = [time.time()]
    ring = KeyRing((), pepper=b"p", required=True, issuers=(ISSUER.record(leeway_s=0.0),), clock=lambda: now[0])
    header = b"Bearer " + ISSUER.token(exp=now[0] + 30).encode()
    first = ring.identify(header)
    assert ring.identify(header) is first, "checked once"
    assert first.project == "default"
    now[0] += 31
    with pytest.raises(Unauthenticated):
        ring.identify(header)
    now[0] -= 31
    other = KeyRing((), pepper=b"p", required=True, issuers=(STRANGER.record(),), clock=lambda: now[0])
    with pytest.raises(Unauthenticated):
        other.identify(header)


def test_what_is_remembered_of_tokens_is_bounded_and_refusals_cost_no_signature(monkeypatch) -> None:
    ring = KeyRing((), pepper=b"p", required=True, issuers=(ISSUER.record(),))
    desk = ring._tokens
    forged = [b"Bearer " + hmac_token({"alg": "ES256"}, {"n": n}, b"x").encode() for n in range(5000)]
    for header in forged:
        with pytest.raises(Unauthenticated):
            ring.identify(header)
    assert len(desk._seen) <= 4096
    asked = []
    monkeypatch.setattr(desk, "_verified", lambda *a: asked.append(a))
    with pytest.raises(Unauthenticated):
        ring.identify(forged[-1])
    assert asked == []


def test_the_audience_may_be_one_of_a_list() -> None:
    assert TokenVerifier([ISSUER.record()]).verify(ISSUER.token(aud=["other", AUDIENCE]), now=time.time())
