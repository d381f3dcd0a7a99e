"""Keys and tokens as a model server checks them: against the published table, with no look-up anywhere else.

A header that was found good is remembered byte for byte until the next table, so that the HMAC is paid once a key and
table. What is remembered is bounded, and only good keys are: guesses cost the guesser, not us. Tokens are remembered by
their digest, good and refused ones, for a short while: a signature costs more than a prediction.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from time import time
from typing import Final

from modelyard.domain.access import KeyRecord, Scope, Verb, allows, key_id, matches
from modelyard.domain.errors.platform import Unauthenticated
from modelyard.domain.issuers import Issuer
from modelyard.domain.names import DEFAULT_PROJECT
from modelyard.foundation.tokens import TokenRefused, TokenVerifier, looks_like_token
from modelyard.inference.admission.allowance import Allowance, Allowances

_REMEMBERED: Final = 4096
_TOKEN_KEPT_S: Final = 60.0
_log = logging.getLogger(__name__)
_SCHEME: Final = b"bearer "
_HINT: Final = "send the header Authorization: Bearer KEY"
Digest = bytes


class Caller:
    """Who asks, and what it may take (`allowance`, None where nothing limits it).

    Verdicts by verb and place are kept as long as the table stands.
    """

    __slots__ = ("_scopes", "_verdicts", "allowance", "expires_at", "key", "project")

    def __init__(
        self,
        *,
        key: str,
        project: str,
        scopes: Iterable[Scope],
        expires_at: float | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        self.key = key
        self.allowance = allowance
        self.project = project
        self.expires_at = expires_at
        self._scopes = tuple(scopes)
        self._verdicts: dict[tuple[Verb, str | None, str | None], bool] = {}

    def may(self, verb: Verb, project: str | None, name: str | None) -> bool:
        """Whether the caller may do this to `name` in `project`; None asks for everything."""
        place = (verb, project, name)
        verdict = self._verdicts.get(place)
        if verdict is None:
            verdict = self._verdicts[place] = allows(self._scopes, verb, project=project, name=name)
        return verdict

    def sees(self, project: str, name: str) -> bool:
        """Whether the caller may know that this service exists: it is of the own project, or a scope covers it."""
        return project == self.project or any(self.may(verb, project, name) for verb in Verb)


ANYONE: Final = Caller(key="", project=DEFAULT_PROJECT, scopes=[Scope(Verb.ADMIN)])
"""The caller where no keys are asked for."""


class TokenDesk:
    """The tokens of one table's issuers. What a token was found to be is remembered for at most a minute."""

    def __init__(self, issuers: Sequence[Issuer], allowances: Allowances | None = None) -> None:
        self._issuers = issuers
        self._allowances = allowances
        self._verifier: TokenVerifier | None = None
        self._seen: dict[Digest, tuple[float, Caller | None]] = {}

    def caller(self, token: str, *, now: float) -> Caller | None:
        """Who the token speaks for; None when it is refused.

        Raises:
            MissingExtra: what checks signatures is not installed.
        """
        digest = hashlib.blake2b(token.encode("latin-1"), digest_size=16).digest()
        until, caller = self._seen.get(digest, (0.0, None))
        if now < until:
            return caller
        caller = self._verified(token, now)
        until = now + _TOKEN_KEPT_S
        if caller is not None and caller.expires_at is not None:
            until = min(until, caller.expires_at)
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen[digest] = (until, caller)
        return caller

    def _verified(self, token: str, now: float) -> Caller | None:
        if self._verifier is None:
            self._verifier = TokenVerifier(self._issuers)
        try:
            bearer = self._verifier.verify(token, now=now)
        except TokenRefused as error:
            _log.info("a token was refused", extra={"reason": str(error)})
            return None
        allowance = None if self._allowances is None else self._allowances.of_project(bearer.project)
        return Caller(
            key=bearer.id,
            project=bearer.project,
            scopes=bearer.scopes,
            expires_at=bearer.expires_at,
            allowance=allowance,
        )


class KeyRing:
    """The keys of one table, and the tokens of its issuers. `clock` gives Unix seconds."""

    def __init__(
        self,
        keys: Iterable[KeyRecord],
        *,
        pepper: bytes,
        required: bool,
        issuers: Sequence[Issuer] = (),
        allowances: Allowances | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        self.required = required
        self._pepper = pepper
        self._clock = clock
        self._by_id = {record.id: record for record in keys}
        self._good: dict[bytes, Caller] = {}
        self._allowances = allowances
        self._tokens = TokenDesk(issuers, allowances) if issuers else None

    def identify(self, authorization: bytes | None) -> Caller:
        """The caller behind the value of an Authorization header (RFC 6750, section 2.1).

        Raises:
            Unauthenticated: a key is required, and there is none, or it is malformed, unknown, wrong or expired.
        """
        if not self.required:
            return ANYONE
        if authorization is None:
            raise Unauthenticated("this address asks for a key", hint=_HINT)
        caller = self._good.get(authorization)
        if caller is None:
            caller = self._check(authorization)
        elif caller.expires_at is not None and caller.expires_at <= self._clock():
            raise _refused()
        return caller

    def has(self, identity: str) -> bool:
        """Whether this is the id of a key of ours, and not of a token's bearer."""
        return identity in self._by_id

    def accepted(self, identity: str, project: str, *, has_key: bool) -> Caller:
        """Who an accepted request is from, when it is run; its rate was counted when it was accepted.

        Raises:
            Unauthenticated: the key was revoked meanwhile, or has expired.
        """
        if not self.required:
            return ANYONE
        allowances = self._allowances
        if not has_key:
            allowance = None if allowances is None else allowances.of_project(project)
            scopes: Iterable[Scope] = [Scope(Verb.INFER, project)]
        else:
            record = self._by_id.get(identity)
            if record is None or (record.expires_at is not None and record.expires_at <= self._clock()):
                raise _refused()
            allowance = None if allowances is None else allowances.of_key(record)
            project, scopes = record.project, record.scopes
        return Caller(
            key=identity,
            project=project,
            scopes=scopes,
            allowance=None if allowance is None else allowance.unhurried(),
        )

    def _check(self, authorization: bytes) -> Caller:
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise _refused()
        key = authorization[len(_SCHEME) :].strip().decode("latin-1")
        if self._tokens is not None and looks_like_token(key):
            bearer = self._tokens.caller(key, now=self._clock())
            if bearer is None:
                raise _refused()
            return bearer
        identity = key_id(key)
        if identity is None:
            raise _refused()
        record = self._by_id.get(identity)
        if not matches(record, key, pepper=self._pepper, now=self._clock()) or record is None:
            raise _refused()
        caller = Caller(
            key=record.id,
            project=record.project,
            scopes=record.scopes,
            expires_at=record.expires_at,
            allowance=None if self._allowances is None else self._allowances.of_key(record),
        )
        if len(self._good) >= _REMEMBERED:
            self._good.clear()
        self._good[authorization] = caller
        return caller


def _refused() -> Unauthenticated:
    return Unauthenticated("the key is not valid", hint=_HINT)
