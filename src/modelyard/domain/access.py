"""Keys and scopes: what a key looks like, what it may do, and how a presented key is checked.

A key is `mdy_live_<id:8><secret:26><checksum:6>` in base62: 154 bits of secret, and the CRC-32 of what stands before as
the last six digits, so that a mistyped key is refused without a look-up. Stored is the id in clear and the HMAC-SHA-256
of the whole key under a server-side pepper; the key itself is shown once. Both planes check keys with this module.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KEY_PREFIX: Final = "mdy_live_"
_ID_CHARS: Final = 8
_SECRET_CHARS: Final = 26
_CHECK_CHARS: Final = 6
KEY_PATTERN: Final = re.compile(r"mdy_live_[0-9A-Za-z]{40}")


class Verb(StrEnum):
    """What a scope allows. `ADMIN` allows everything."""

    INFER = "infer"
    READ = "read"
    UPLOAD = "upload"
    APPROVE = "approve"
    DEPLOY = "deploy"
    METRICS = "metrics"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Scope:
    """A verb, everywhere (`None`), in one project, or on one model or service of it."""

    verb: Verb
    project: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        place = "" if self.project is None else f":{self.project}" + (f"/{self.name}" if self.name else "")
        return self.verb.value + place

    def allows(self, verb: Verb, *, project: str | None, name: str | None) -> bool:
        """Whether this scope covers `verb` on `name` in `project`; None asks for all of them."""
        if self.verb not in (verb, Verb.ADMIN):
            return False
        return self.project is None or (self.project == project and self.name in (None, name))


def parse_scope(text: str) -> Scope:
    """`verb[:project[/name]]` as people write it, or `InvalidRequest`."""
    verb, _, place = text.partition(":")
    project, _, name = place.partition("/")
    try:
        return Scope(Verb(verb), project or None, name or None)
    except ValueError as error:
        verbs = ", ".join(Verb)
        raise InvalidRequest(
            f"{quote(text)} is not a scope", hint=f"VERB[:PROJECT[/NAME]] with one of {verbs}"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Predictions that may be given in one `window`, day or month, of UTC."""

    window: str
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """What a key may take; None and no quota bound nothing."""

    requests_per_s: float | None = None
    max_in_flight: int | None = None
    quotas: tuple[Quota, ...] = ()


NO_LIMITS: Final = KeyLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectQuota:
    """What all callers of a project may take together."""

    project: str
    quotas: tuple[Quota, ...]


def quotas_of(*, per_day: int | None, per_month: int | None) -> tuple[Quota, ...]:
    """Quotas of a day and a month, where they are given."""
    wished = (("day", per_day), ("month", per_month))
    return tuple(Quota(window=window, most=most) for window, most in wished if most is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key as stored and as published to the model servers; `mac` is hex, `expires_at` in Unix seconds."""

    id: str
    mac: str
    name: str
    scopes: tuple[Scope, ...]
    project: str = "default"
    expires_at: float | None = None
    limits: KeyLimits = NO_LIMITS


def make_key() -> str:
    """A new random key."""
    body = KEY_PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_ID_CHARS + _SECRET_CHARS))
    return body + _checksum(body)


def key_id(key: str) -> str | None:
    """The id inside a key, or None when its shape or checksum is wrong (a look-up is then needless)."""
    if not KEY_PATTERN.fullmatch(key) or _checksum(key[:-_CHECK_CHARS]) != key[-_CHECK_CHARS:]:
        return None
    return key[len(KEY_PREFIX) : len(KEY_PREFIX) + _ID_CHARS]


def key_mac(key: str, *, pepper: bytes) -> str:
    """What is stored of a key: hex HMAC-SHA-256."""
    return hmac.new(pepper, key.encode(), hashlib.sha256).hexdigest()


def matches(record: KeyRecord | None, key: str, *, pepper: bytes, now: float) -> bool:
    """Whether `key` is that of `record` and not expired; an unknown id (None) costs the same time."""
    known = record.mac if record is not None else "0" * 64
    same = hmac.compare_digest(known, key_mac(key, pepper=pepper))
    return same and record is not None and (record.expires_at is None or now < record.expires_at)


def allows(scopes: Iterable[Scope], verb: Verb, *, project: str | None = None, name: str | None = None) -> bool:
    """Whether any of `scopes` covers `verb` on `name` in `project`."""
    return any(scope.allows(verb, project=project, name=name) for scope in scopes)


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECK_CHARS):
        value, digit = divmod(value, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
