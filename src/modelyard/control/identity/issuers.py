"""Whose tokens are accepted: read from the file that the setting `tokens.issuers` names, with their public keys.

Keys stand in the file, lie in a file beside it, or come from an address that the operator named; only the control plane
asks there. What came last is kept in the data directory and goes on being used while the issuer is away, also after a
restart. Model servers get issuers and keys with the routing table.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import yaml

from modelyard.domain.access import Scope, Verb, parse_scope
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest, MissingExtra, StartRefused, Unavailable
from modelyard.domain.issuers import ALGORITHMS, NO_KEYS, Bearer, GroupGrant, Issuer, is_symmetric
from modelyard.domain.names import DEFAULT_PROJECT
from modelyard.foundation.key_files import write_private
from modelyard.foundation.settings import TokenSettings
from modelyard.foundation.strict_json import StrictJsonError, loads
from modelyard.foundation.tokens import TokenVerifier, public_keys, read_secret

_LOG: Final = logging.getLogger(__name__)
_MAX_SET_BYTES: Final = 1 << 20
_OK: Final = 200
Fetch = Callable[[str, float], bytes]
"""Body of what stands at an address, within that many seconds; raises `Unavailable`."""


class IssuerEntry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One entry of the file. Of `jwks`, `jwks_file`, `jwks_url` and `secret_file` exactly one is given."""

    issuer: str
    audience: str | list[str]
    algorithms: list[str]
    jwks: dict[str, Any] | None = None
    jwks_file: str | None = None
    jwks_url: str | None = None
    secret_file: str | None = None
    types: list[str] = msgspec.field(default_factory=lambda: ["JWT", "at+jwt"])
    leeway_s: float = 30.0
    project: str = DEFAULT_PROJECT
    scopes: list[str] = msgspec.field(default_factory=list)
    scope_claim: str = "scope"
    groups_claim: str = "groups"
    groups: dict[str, list[str]] = msgspec.field(default_factory=dict)
    at_most: list[str] = msgspec.field(default_factory=lambda: [Verb.INFER.value, Verb.READ.value])


class IssuersFile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    issuers: list[IssuerEntry]


class IssuerBook:
    """The configured issuers and the newest of their keys. Threads may read it at the same time.

    `kept` is the directory in which fetched keys survive a restart.
    """

    def __init__(self, settings: TokenSettings, *, kept: Path, fetch: Fetch | None = None) -> None:
        self._settings = settings
        self._kept = kept
        self._fetch = fetch or fetch_document
        self._urls: dict[str, str] = {}
        self._away: set[str] = set()
        self._verifier: tuple[tuple[Issuer, ...], TokenVerifier] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._issuers = self._read(Path(settings.issuers)) if settings.issuers else ()
        self._recall()

    @property
    def current(self) -> tuple[Issuer, ...]:
        """As they are published; an issuer whose keys were never had has none, and its tokens are refused."""
        return self._issuers

    def verify(self, token: str, *, now: float) -> Bearer:
        """Who `token` speaks for; see `TokenVerifier.verify`."""
        issuers, kept = self._issuers, self._verifier
        if kept is None or kept[0] is not issuers:
            kept = self._verifier = (issuers, TokenVerifier(issuers))
        return kept[1].verify(token, now=now)

    def refresh(self) -> None:
        """Ask every address once. One that does not answer, or with nonsense, changes nothing. Blocks."""
        for issuer in self._issuers:
            url = self._urls.get(issuer.issuer)
            if url is not None:
                self._refresh_one(issuer, url)

    def start(self) -> None:
        """Ask now, and then as often as the settings say, in a thread."""
        if self._urls and self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="issuers", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop asking. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        while not self._stop.is_set():
            self.refresh()
            self._stop.wait(self._settings.refresh_s)

    def _refresh_one(self, issuer: Issuer, url: str) -> None:
        try:
            keys = public_keys(loads(self._fetch(url, self._settings.timeout_s)), what="the answer")
        except (Unavailable, InvalidRequest, StrictJsonError) as error:
            if issuer.issuer not in self._away:
                _LOG.warning("an issuer's keys cannot be had: %s", error, extra={"issuer": issuer.issuer})
            self._away.add(issuer.issuer)
            return
        self._away.discard(issuer.issuer)
        if keys != issuer.keys:
            _LOG.info("an issuer has new keys", extra={"issuer": issuer.issuer})
            write_private(self._place(url), keys)
            self._take(issuer.issuer, keys)

    def _recall(self) -> None:
        """Take up what was fetched before a restart."""
        if self._urls:
            self._kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, url in self._urls.items():
            try:
                self._take(name, public_keys(loads(self._place(url).read_bytes()), what="the kept set"))
            except FileNotFoundError:
                continue
            except (OSError, InvalidRequest, StrictJsonError) as error:
                _LOG.warning("kept keys cannot be read: %s", error, extra={"issuer": name})

    def _take(self, name: str, keys: str) -> None:
        self._issuers = tuple(replace(each, keys=keys) if each.issuer == name else each for each in self._issuers)

    def _place(self, url: str) -> Path:
        return self._kept / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"

    def _read(self, path: Path) -> tuple[Issuer, ...]:
        entries = _entries(path)
        issuers = tuple(self._issuer(entry, path) for entry in entries)
        if len({issuer.issuer for issuer in issuers}) != len(issuers):
            raise StartRefused(f"{path.name} names an issuer twice", hint="one entry an issuer; audience may be a list")
        try:
            TokenVerifier(issuers)
        except MissingExtra as error:
            raise StartRefused(error.detail, hint=error.hint) from error
        return issuers

    def _issuer(self, entry: IssuerEntry, path: Path) -> Issuer:
        audiences = [entry.audience] if isinstance(entry.audience, str) else entry.audience
        _check(entry, audiences, path)
        keys = NO_KEYS if (found := _pinned(entry, path)) is None else found
        if entry.jwks_url is not None:
            self._urls[entry.issuer] = _safe_url(entry.jwks_url, path)
        secret = None if entry.secret_file is None else path.parent / entry.secret_file
        if secret is not None:
            read_secret(secret)
        return Issuer(
            issuer=entry.issuer,
            audiences=tuple(audiences),
            algorithms=tuple(entry.algorithms),
            keys=keys,
            secret_file=None if secret is None else str(secret.resolve()),
            types=tuple("" if kind == "none" else kind.lower().removeprefix("application/") for kind in entry.types),
            leeway_s=entry.leeway_s,
            project=entry.project,
            scopes=_scopes(entry.scopes),
            scope_claim=entry.scope_claim,
            groups_claim=entry.groups_claim,
            groups=tuple(GroupGrant(group=name, scopes=_scopes(words)) for name, words in entry.groups.items()),
            ceiling=_scopes(entry.at_most),
        )


def fetch_document(url: str, timeout_s: float) -> bytes:
    """Ask once: no redirect, bounded size, one deadline for each step.

    Raises:
        Unavailable: nobody answers, or not with 200, or with too much.
    """
    import httpx

    body = bytearray()
    try:
        with (
            httpx.Client(timeout=timeout_s, follow_redirects=False, trust_env=False) as client,
            client.stream("GET", url, headers={"accept": "application/json"}) as answer,
        ):
            if answer.status_code != _OK:
                raise Unavailable(f"it answered {answer.status_code}")
            for part in answer.iter_bytes():
                body += part
                if len(body) > _MAX_SET_BYTES:
                    raise Unavailable(f"it answered more than {_MAX_SET_BYTES} bytes")
    except httpx.HTTPError as error:
        raise Unavailable(f"nobody answers there: {type(error).__name__}") from error
    return bytes(body)


def _entries(path: Path) -> Sequence[IssuerEntry]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return msgspec.convert(document, IssuersFile).issuers
    except OSError as error:
        raise StartRefused(f"tokens.issuers: {quote(path.name)} cannot be read", hint=error.strerror or "") from error
    except (yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise StartRefused(
            f"tokens.issuers: {quote(path.name)} cannot be understood: {error}",
            hint="docs/how-to/tokens.md shows such a file",
        ) from error


def _check(entry: IssuerEntry, audiences: Sequence[str], path: Path) -> None:
    where = f"{path.name}, issuer {quote(entry.issuer)}"
    sources = [entry.jwks, entry.jwks_file, entry.jwks_url, entry.secret_file]
    if sum(source is not None for source in sources) != 1:
        raise StartRefused(f"{where}: its keys must come from one place", hint="jwks, jwks_file, jwks_url, secret_file")
    unknown = sorted(set(entry.algorithms) - set(ALGORITHMS))
    if unknown or not entry.algorithms:
        raise StartRefused(
            f"{where}: algorithms cannot be {quote(unknown)}", hint=f"pin what the issuer uses: {', '.join(ALGORITHMS)}"
        )
    if any(is_symmetric(name) != (entry.secret_file is not None) for name in entry.algorithms):
        raise StartRefused(f"{where}: HS algorithms go with secret_file, and only they do", hint="use ES256 or RS256")
    if not entry.issuer or not audiences or not all(audiences):
        raise StartRefused(f"{where}: issuer and audience must say something", hint="aud must be this platform's name")
    if not 0 <= entry.leeway_s <= 60:  # noqa: PLR2004  (AZ-10)
        raise StartRefused(f"{where}: leeway_s must be 0 to 60", hint="set the clocks right instead")


def _pinned(entry: IssuerEntry, path: Path) -> str | None:
    """Keys that stand in the configuration itself."""
    if entry.jwks is not None:
        document: object = entry.jwks
    elif entry.jwks_file is not None:
        try:
            document = loads((path.parent / entry.jwks_file).read_bytes(), max_bytes=_MAX_SET_BYTES)
        except (OSError, StrictJsonError) as error:
            raise StartRefused(f"{path.name}: jwks_file {quote(entry.jwks_file)} cannot be read: {error}") from error
    else:
        return None
    try:
        return public_keys(document, what=f"the set of {quote(entry.issuer)}")
    except InvalidRequest as error:
        raise StartRefused(error.detail, hint=error.hint) from error


def _safe_url(url: str, path: Path) -> str:
    """Keys decide who gets in, so they come over TLS, or from this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        return url
    raise StartRefused(f"{path.name}: jwks_url must be https", hint="or http to this machine")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _scopes(words: Sequence[str]) -> tuple[Scope, ...]:
    try:
        return tuple(parse_scope(word) for word in words)
    except InvalidRequest as error:
        raise StartRefused(error.detail, hint=error.hint) from error
