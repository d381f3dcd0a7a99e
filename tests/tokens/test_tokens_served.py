"""Tokens against a real model server, over HTTP and gRPC: everything bad is 401, what is good does what it may."""

import time

import grpc
import pytest
from token_kit import TestIssuer, bad_tokens

from modelyard.domain.routing import RoutingTable

ISSUER = TestIssuer(("ES256", "RS256"))
BAD = bad_tokens(ISSUER, TestIssuer(("ES256",)))
INFER = "/v2/models/m1/infer"


@pytest.fixture(scope="module")
def server(started, kit):
    routes = [kit.service(name, kit.backend(started.packages.linear(name))) for name in ("m1", "m2")]
    table = RoutingTable(revision=1, services=tuple(routes), issuers=(ISSUER.record(),), auth_required=True)
    return started.start(table, grpc_port=0)


@pytest.fixture(scope="module")
def client(server):
    with server.client() as opened:
        yield opened


def headers(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_good_token_predicts_and_is_named_nowhere(client, kit, server) -> None:
    token = ISSUER.token()
    for _ in range(3):
        answer = client.post(INFER, json=kit.question(), headers=headers(token))
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"][0]["data"] == [1.0, 2.0]
    assert token not in server.log.read_text()


@pytest.mark.parametrize("what", BAD)
def test_a_bad_token_is_401_and_says_no_more_than_that(what, client, kit) -> None:
    if not BAD[what].isascii() or " " in BAD[what]:
        return  # cannot stand in a header as one word; the parser's own test has it
    answer = client.post(INFER, json=kit.question(), headers=headers(BAD[what]))
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["code"] == "auth_required"
    assert answer.json()["error"] == "the key is not valid"


def test_a_token_without_the_scope_is_403_and_a_service_it_may_not_know_of_is_404(client, kit) -> None:
    of_group = headers(ISSUER.token(scope=..., groups=["science"]))
    assert client.post(INFER, json=kit.question(), headers=of_group).status_code == 200
    assert client.post("/v2/models/m2/infer", json=kit.question(), headers=of_group).status_code == 403
    elsewhere = headers(ISSUER.token(scope="modelyard:infer:team", modelyard={"project": "team"}))
    path = "/p/default/v2/models/m1/infer"
    assert client.post(path, json=kit.question(), headers=elsewhere).status_code == 404


def test_a_token_works_over_grpc_and_a_bad_one_does_not(server, grpc_kit) -> None:
    with grpc.insecure_channel(grpc_kit.grpc_address(server)) as channel:
        caller = grpc_kit.Grpc(channel)
        answer = caller.ask("ModelInfer", grpc_kit.make_request(), key=ISSUER.token())
        assert answer.model_name == "m1"
        for what in ("alg none with a signature", "signed by somebody else", "claims: expired", "header: its own key"):
            refused = caller.refusal("ModelInfer", grpc_kit.make_request(), key=BAD[what])
            assert refused.code() is grpc.StatusCode.UNAUTHENTICATED, what


def test_a_token_ends_also_while_it_is_remembered(started, kit) -> None:
    route = kit.service("m1", kit.backend(started.packages.linear("short")))
    table = RoutingTable(revision=1, services=(route,), issuers=(ISSUER.record(leeway_s=0.0),), auth_required=True)
    server = started.start(table)
    with server.client(headers=headers(ISSUER.token(exp=time.time() + 2.0))) as client:

        def status() -> int:
            return client.post(INFER, json=kit.question()).status_code

        assert status() == 200
        assert kit.until(lambda: status() == 401)
