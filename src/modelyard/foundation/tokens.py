"""Tokens (JWT, RFC 7519) as RFC 8725 wants them checked: by configured issuers, with pinned algorithms and keys.

A token decides nothing about how it is checked. The issuer's configuration names the algorithms; `kid` only picks one
of its keys; `jku`, `x5u`, `jwk` and `crit` refuse the token. Everything that can be known without a signature is
checked first, so that refusing is cheap. The signatures themselves are PyJWT's and cryptography's work, which are
loaded with the first token.
"""

import base64
import binascii
import json
import math
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from modelyard.domain.access import Scope, parse_scope
from modelyard.domain.errors.platform import InvalidRequest, MissingExtra, StartRefused
from modelyard.domain.issuers import SCOPE_PREFIX, Bearer, Issuer, is_symmetric
from modelyard.foundation.strict_json import StrictJsonError, loads

MAX_TOKEN_BYTES: Final = 16 << 10
MIN_RSA_BITS: Final = 2048
MIN_SECRET_BYTES: Final = 32
MAX_LEEWAY_S: Final = 60.0
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}")
_FAR: Final = frozenset({"jku", "x5u", "jwk", "crit", "b64", "zip"})
_KINDS: Final[Mapping[str, str]] = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_CURVES: Final[Mapping[str, frozenset[str]]] = {
    "ES256": frozenset({"P-256"}),
    "ES384": frozenset({"P-384"}),
    "ES512": frozenset({"P-521"}),
    "EdDSA": frozenset({"Ed25519", "Ed448"}),
}
_PUBLIC: Final[Mapping[str, tuple[str, ...]]] = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_MAX_SCOPES: Final = 64
_MAX_SUBJECT: Final = 255


class TokenRefused(ValueError):
    """The token is not accepted; the text is for the operator's log, never for the caller."""


def looks_like_token(text: str) -> bool:
    """Whether `text` has the shape of a signed token: three parts of base64url."""
    return len(text) <= MAX_TOKEN_BYTES and _SHAPE.fullmatch(text) is not None


class TokenVerifier:
    """Checks tokens against `issuers`. Threads may call it at the same time.

    Raises:
        MissingExtra: PyJWT or cryptography is not installed.
    """

    def __init__(self, issuers: Iterable[Issuer]) -> None:
        self._crypto = _library()
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._keys = {name: _Keys(issuer, self._crypto) for name, issuer in self._issuers.items()}

    def verify(self, token: str, *, now: float) -> Bearer:
        """Who `token` speaks for. `now` in Unix seconds.

        Raises:
            TokenRefused: it is malformed, unsigned, of somebody else, for somebody else, early, late or forged.
        """
        if not looks_like_token(token):
            raise TokenRefused("not a signed token")
        head, body, signature = token.split(".")
        header, claims = _object(head), _object(body)
        issuer = self._issuers.get(_text(claims, "iss"))
        if issuer is None:
            raise TokenRefused("the issuer is not configured")
        algorithm = _check_header(header, issuer)
        bearer = _bearer(claims, issuer, now=now)
        key = self._keys[issuer.issuer].find(algorithm, header.get("kid"))
        signed = f"{head}.{body}".encode("ascii")
        if not self._crypto.get_algorithm_by_name(algorithm).verify(signed, key, _decoded(signature)):
            raise TokenRefused("the signature is wrong")
        return bearer


class _Keys:
    """The keys of one issuer, made ready. A key is only ever used with an algorithm that is pinned and fits it."""

    def __init__(self, issuer: Issuer, crypto: Any) -> None:  # noqa: ANN401  (PyJWT's module)
        self._found: list[tuple[str | None, str, Any]] = []  # kid, algorithm, key
        for algorithm in issuer.algorithms:
            maker = crypto.get_algorithm_by_name(algorithm)
            if is_symmetric(algorithm):
                if issuer.secret_file is not None:
                    self._found.append((None, algorithm, maker.prepare_key(read_secret(Path(issuer.secret_file)))))
                continue
            for jwk in json.loads(issuer.keys)["keys"]:
                if _fits(jwk, algorithm):
                    self._found.append((jwk.get("kid"), algorithm, maker.from_jwk(json.dumps(jwk))))

    def find(self, algorithm: str, kid: object) -> Any:  # noqa: ANN401  (a key of cryptography)
        """The key of this algorithm and id; without an id, the only one there is."""
        if kid is not None and not isinstance(kid, str):
            raise TokenRefused("kid is not a text")
        usable = [key for name, of, key in self._found if of == algorithm and (kid is None or name in (kid, None))]
        if len(usable) != 1:
            raise TokenRefused("the issuer has no such key" if not usable else "the token does not say which key")
        return usable[0]


def public_keys(document: object, *, what: str) -> str:
    """The public signing keys of a JWK set, as canonical JSON. Private members and other uses are left out.

    Raises:
        InvalidRequest: it is no JWK set, or none of its keys can check a signature.
    """
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise InvalidRequest(f"{what} is not a JWK set", hint='a JWK set is {"keys": [...]} (RFC 7517, section 5)')
    kept = [public for jwk in keys if (public := _public_part(jwk)) is not None]
    if not kept:
        raise InvalidRequest(
            f"{what} has no key that can be used",
            hint=f"RSA of at least {MIN_RSA_BITS} bits, EC or OKP, for signatures",
        )
    return json.dumps({"keys": kept}, sort_keys=True, separators=(",", ":"))


def read_secret(path: Path) -> bytes:
    """The shared secret in `path`, without a newline at its end.

    Raises:
        StartRefused: it cannot be read, others may read it, or it is short enough to be guessed.
    """
    try:
        mode, secret = stat.S_IMODE(path.stat().st_mode), path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise StartRefused(f"the secret file {path.name} cannot be read", hint=error.strerror or "") from error
    if mode & 0o077:
        raise StartRefused(f"the secret file {path.name} can be read by others", hint=f"chmod 600 {path.name}")
    if len(secret) < MIN_SECRET_BYTES:
        raise StartRefused(f"the secret in {path.name} is too short", hint=f"at least {MIN_SECRET_BYTES} random bytes")
    return secret


def _library() -> Any:  # noqa: ANN401  (PyJWT's module)
    try:
        import cryptography  # noqa: F401  (without it PyJWT knows HMAC only)
        import jwt
    except ImportError as error:
        raise MissingExtra(
            "tokens cannot be checked: PyJWT or cryptography is not installed", hint="pip install 'modelyard[jwt]'"
        ) from error
    return jwt.PyJWS()


def _public_part(jwk: object) -> dict[str, str] | None:
    if not isinstance(jwk, dict):
        return None
    members = _PUBLIC.get(str(jwk.get("kty")))
    if members is None or jwk.get("use", "sig") != "sig":
        return None
    if not all(isinstance(jwk.get(name), str) for name in members):
        return None
    if jwk["kty"] == "RSA" and _bits(jwk["n"]) < MIN_RSA_BITS:
        return None
    named = [name for name in ("kid", "alg") if isinstance(jwk.get(name), str)]
    return {name: jwk[name] for name in ("kty", *members, *named)}


def _bits(number: str) -> int:
    try:
        return int.from_bytes(_decoded(number)).bit_length()
    except TokenRefused:
        return 0


def _fits(jwk: Mapping[str, str], algorithm: str) -> bool:
    if jwk["kty"] != _KINDS[algorithm[:2]] or jwk.get("alg", algorithm) != algorithm:
        return False
    curves = _CURVES.get(algorithm)
    return curves is None or jwk["crv"] in curves


def _check_header(header: Mapping[str, Any], issuer: Issuer) -> str:
    if not _FAR.isdisjoint(header):
        raise TokenRefused("the header asks for what is not done here")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        raise TokenRefused("the algorithm is not the issuer's")
    kind = header.get("typ", "")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in issuer.types:
        raise TokenRefused("the type is not the issuer's")
    return algorithm


def _bearer(claims: Mapping[str, Any], issuer: Issuer, *, now: float) -> Bearer:
    leeway = min(issuer.leeway_s, MAX_LEEWAY_S)
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(name, str) and name in issuer.audiences for name in named):
        raise TokenRefused("the token is for somebody else")
    expires = _moment(claims, "exp")
    if expires is None:
        raise TokenRefused("the token never expires")
    if now >= expires + leeway:
        raise TokenRefused("the token has expired")
    for name in ("nbf", "iat"):
        begins = _moment(claims, name)
        if begins is not None and now < begins - leeway:
            raise TokenRefused("the token is not valid yet")
    subject = _text(claims, "sub")
    if not subject or len(subject) > _MAX_SUBJECT or not subject.isprintable():
        raise TokenRefused("the token does not say who it speaks for")
    own = claims.get("modelyard")
    project = own.get("project", issuer.project) if isinstance(own, dict) else issuer.project
    if not isinstance(project, str) or not issuer.may_speak_for(project):
        raise TokenRefused("the issuer may not speak for that project")
    scopes = issuer.within_ceiling(_scopes(claims, issuer))
    return Bearer(issuer=issuer.issuer, subject=subject, project=project, scopes=scopes, expires_at=expires + leeway)


def _scopes(claims: Mapping[str, Any], issuer: Issuer) -> Iterable[Scope]:
    """Of every token of the issuer, of its groups, of the word list, and of our own claim, in this order."""
    yield from issuer.scopes
    groups = claims.get(issuer.groups_claim)
    members = frozenset(name for name in groups if isinstance(name, str)) if isinstance(groups, list) else frozenset()
    for grant in issuer.groups:
        if grant.group in members:
            yield from grant.scopes
    words = [word.removeprefix(SCOPE_PREFIX) for word in _words(claims.get(issuer.scope_claim)) if _is_ours(word)]
    own = claims.get("modelyard")
    words += _words(own.get("scopes")) if isinstance(own, dict) else []
    for word in words[:_MAX_SCOPES]:
        try:
            yield parse_scope(word)
        except InvalidRequest:
            continue  # a word that means nothing here gives nothing


def _is_ours(word: str) -> bool:
    return word.startswith(SCOPE_PREFIX)


def _words(value: object) -> list[str]:
    """A claim of words: separated by spaces (RFC 8693, section 4.2), or a list."""
    if isinstance(value, str):
        return value.split()
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _object(part: str) -> Mapping[str, Any]:
    try:
        found = loads(_decoded(part))
    except StrictJsonError as error:
        raise TokenRefused("a part is not JSON") from error
    if not isinstance(found, dict):
        raise TokenRefused("a part is not an object")
    return found


def _decoded(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise TokenRefused("a part is not base64url") from error


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519, section 2); None when the claim is not there."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TokenRefused(f"{name} is not a date")
    return float(value)
