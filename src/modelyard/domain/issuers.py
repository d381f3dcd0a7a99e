"""Issuers of tokens: who may vouch for a caller, with which keys, and how far their word goes.

An issuer is configured by an operator and published to the model servers with its public keys. What a token may do
follows from three things together: the scopes every token of the issuer has, those its claims name, and those of its
groups; and never goes beyond the issuer's own ceiling.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from modelyard.domain.access import Scope, Verb, allows
from modelyard.domain.names import DEFAULT_PROJECT

NO_KEYS: Final = '{"keys":[]}'
SCOPE_PREFIX: Final = "modelyard:"
ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"),
)


def is_symmetric(algorithm: str) -> bool:
    """Whether whoever can check a token can also make one."""
    return algorithm.startswith("HS")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupGrant:
    """What members of a group, as the issuer names it, may do."""

    group: str
    scopes: tuple[Scope, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One issuer. `keys` is a JWK set (RFC 7517) as JSON, public keys only; `secret_file` holds the key of HS*.

    `types` are accepted values of the header's `typ` (without `application/`, lower case; "" is a token that names
    none). `ceiling` bounds whatever a token claims.
    """

    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    keys: str = NO_KEYS
    secret_file: str | None = None
    types: tuple[str, ...] = ("jwt", "at+jwt")
    leeway_s: float = 30.0
    project: str = DEFAULT_PROJECT
    scopes: tuple[Scope, ...] = ()
    scope_claim: str = "scope"
    groups_claim: str = "groups"
    groups: tuple[GroupGrant, ...] = ()
    ceiling: tuple[Scope, ...] = (Scope(Verb.INFER), Scope(Verb.READ))

    def within_ceiling(self, scopes: Iterable[Scope]) -> tuple[Scope, ...]:
        """Those of `scopes` that this issuer may give."""
        wanted = dict.fromkeys(scopes)
        return tuple(s for s in wanted if allows(self.ceiling, s.verb, project=s.project, name=s.name))

    def may_speak_for(self, project: str) -> bool:
        """Whether tokens of this issuer may belong to `project`."""
        return project == self.project or any(scope.project in (None, project) for scope in self.ceiling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """Who a good token speaks for, what it may do, and until when (Unix seconds)."""

    issuer: str
    subject: str
    project: str
    scopes: tuple[Scope, ...]
    expires_at: float

    @property
    def id(self) -> str:
        """A text that stands for this caller alone."""
        return f"{self.issuer}#{self.subject}"
