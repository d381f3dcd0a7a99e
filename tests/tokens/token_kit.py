"""Issuers made in the test: keys, sets of public keys, and tokens, good ones and such as attackers send."""

import base64
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from modelyard.domain.access import parse_scope
from modelyard.domain.issuers import GroupGrant, Issuer
from modelyard.foundation.tokens import public_keys

NAME = "https://login.example"
AUDIENCE = "modelyard"
MAKERS = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "PS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


@dataclass
class TestIssuer:
    """An issuer with one private key an algorithm; `kid` is the algorithm's name with -1 behind it."""

    __test__ = False
    algorithms: tuple[str, ...] = ("ES256",)
    name: str = NAME
    keys: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = {algorithm: MAKERS[algorithm]() for algorithm in self.algorithms}

    def jwks(self) -> dict:
        found = []
        for algorithm, key in self.keys.items():
            maker = jwt.get_algorithm_by_name(algorithm)
            found.append(json.loads(maker.to_jwk(key.public_key())) | {"kid": f"{algorithm}-1", "alg": algorithm})
        return {"keys": found}

    def record(self, **more: Any) -> Issuer:
        given = {
            "issuer": self.name,
            "audiences": (AUDIENCE,),
            "algorithms": self.algorithms,
            "keys": public_keys(self.jwks(), what="the test's"),
            "ceiling": (parse_scope("infer"), parse_scope("read")),
            "groups": (GroupGrant(group="science", scopes=(parse_scope("infer:default/m1"),)),),
        }
        return Issuer(**(given | more))

    def claims(self, **changes: Any) -> dict:
        now = time.time()
        plain = {
            "iss": self.name,
            "aud": AUDIENCE,
            "sub": "alice",
            "exp": now + 86_400,
            "iat": now - 5,
            "nbf": now - 5,
            "scope": "openid modelyard:infer profile",
        }
        return {name: value for name, value in (plain | changes).items() if value is not ...}

    def token(self, algorithm: str | None = None, *, headers: dict | None = None, **changes: Any) -> str:
        algorithm = algorithm or self.algorithms[0]
        head = {"kid": f"{algorithm}-1", "typ": "at+jwt"} | (headers or {})
        return jwt.encode(self.claims(**changes), self.keys[algorithm], algorithm=algorithm, headers=head)

    def signed_as_it_stands(self, header: dict, claims: dict | None = None) -> str:
        """Header and claims signed with ES256, whatever the header says."""
        signing = f"{b64(header)}.{b64(claims or self.claims())}"
        signature = jwt.get_algorithm_by_name("ES256").sign(signing.encode(), self.keys["ES256"])
        return f"{signing}.{b64(signature)}"

    def pem(self, algorithm: str) -> bytes:
        return self.keys[algorithm].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def b64(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hmac_token(header: dict, claims: dict, secret: bytes) -> str:
    """Signed with HMAC as PyJWT refuses to: with a public key as the secret."""
    import hashlib
    import hmac

    signing = f"{b64(header)}.{b64(claims)}"
    return f"{signing}.{b64(hmac.new(secret, signing.encode(), hashlib.sha256).digest())}"


def bad_tokens(issuer: TestIssuer, stranger: TestIssuer) -> dict[str, str]:
    """What RFC 8725 warns of, by what is wrong with it. `issuer` signs with ES256 and RS256."""
    now = time.time()
    good = {"alg": "ES256", "typ": "at+jwt", "kid": "ES256-1"}
    stolen = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(stranger.keys["ES256"].public_key()))
    public = json.dumps(issuer.jwks()["keys"][0]).encode()
    whole = issuer.token()
    head, body, signature = whole.split(".")
    twice = f'{{"aud":"{AUDIENCE}","iss":"{NAME}","sub":"alice","exp":1,"exp":{now + 86_400}}}'.encode()
    unsigned = {
        f"alg {name}": f"{b64(good | {'alg': name})}.{b64(issuer.claims())}." for name in ("none", "None", "nOnE")
    }
    claims = {
        "another audience": {"aud": "somebody-else"},
        "a list of other audiences": {"aud": ["a", "b"]},
        "no audience": {"aud": ...},
        "an audience that is no text": {"aud": {AUDIENCE: 1}},
        "another issuer": {"iss": "https://evil.example"},
        "no issuer": {"iss": ...},
        "an issuer that begins alike": {"iss": NAME + "/"},
        "expired": {"exp": now - 61},
        "no end": {"exp": ...},
        "an end that is a text": {"exp": str(now + 86_400)},
        "an end that is true": {"exp": True},
        "not yet": {"nbf": now + 7200},
        "made in the future": {"iat": now + 7200},
        "no subject": {"sub": ...},
        "an empty subject": {"sub": ""},
        "a subject with a line end": {"sub": "alice\nadmin"},
        "a foreign project": {"modelyard": {"project": 7}},
    }
    headers = {
        "a key that is not there": {"kid": "other"},
        "a key by path": {"kid": "../../../../dev/null"},
        "a key by query": {"kid": "x' UNION SELECT 'secret"},
        "a key by number": {"kid": 7},
        "its own key": {"jwk": stolen},
        "keys from elsewhere": {"jku": "https://evil.example/keys"},
        "a certificate from elsewhere": {"x5u": "https://evil.example/cert"},
        "something critical": {"crit": ["exp"], "exp": 1},
        "an unencoded payload": {"b64": False, "crit": ["b64"]},
        "another type": {"typ": "secevent+jwt"},
        "no type": {"typ": ""},
    }
    return {
        **unsigned,
        "alg none with a signature": f"{b64(good | {'alg': 'none'})}.{body}.{signature}",
        "HMAC with the public key": hmac_token(good | {"alg": "HS256"}, issuer.claims(), issuer.pem("ES256")),
        "HMAC with the public set": hmac_token(good | {"alg": "HS256"}, issuer.claims(), public),
        "another algorithm's name": issuer.signed_as_it_stands(good | {"alg": "ES384"}),
        "a fitting name for another key": issuer.signed_as_it_stands(good | {"alg": "RS256", "kid": "RS256-1"}),
        "no algorithm": issuer.signed_as_it_stands({"typ": "at+jwt", "kid": "ES256-1"}),
        "signed by somebody else": stranger.token(),
        "claims of another token": f"{head}.{b64(issuer.claims(sub='mallory'))}.{signature}",
        "half a signature": f"{head}.{body}.{signature[:40]}",
        "a zero signature": f"{head}.{body}.{b64(bytes(64))}",
        "a claim twice": issuer.signed_as_it_stands(good).split(".")[0] + f".{b64(twice)}.{signature}",
        "claims that are a list": f"{head}.{b64([1])}.{signature}",
        "no JSON": f"{head}.{b64(b'{{{')}.{signature}",
        "five parts": f"{whole}.x.y",
        "white space": f"{head}.{body} .{signature}",
        "padding": f"{head}=.{body}.{signature}",
        **{f"claims: {what}": issuer.token(**changes) for what, changes in claims.items()},
        **{f"header: {what}": issuer.signed_as_it_stands(good | changes) for what, changes in headers.items()},
    }


def issuers_file(folder: Path, *entries: dict) -> Path:
    import yaml

    path = folder / "issuers.yaml"
    path.write_text(yaml.safe_dump({"issuers": list(entries)}))
    return path


class KeyServer:
    """A small HTTP server that gives out one document, or nothing when `answer` is None; counts how often."""

    def __init__(self) -> None:
        self.answer: bytes | None = b"{}"
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                body = outer.answer
                self.send_response(503 if body is None else 200)
                self.send_header("content-length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/keys"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
