"""Keys as a model server checks them: against the published table, with no look-up anywhere else.

A header that was found good is remembered byte for byte until the next table, so that the HMAC is paid once a key and
table. What is remembered is bounded, and only good keys are: guesses cost the guesser, not us.
"""

from collections.abc import Iterable
from time import time
from typing import Final

from modelyard.domain.access import KeyRecord, Scope, Verb, allows, key_id, matches
from modelyard.domain.errors.platform import Unauthenticated
from modelyard.domain.names import DEFAULT_PROJECT

_REMEMBERED: Final = 4096
_SCHEME: Final = b"bearer "
_HINT: Final = "send the header Authorization: Bearer KEY"


class Caller:
    """Who asks. `allowed` keeps verdicts, by verb and place, as long as the table stands."""

    __slots__ = ("_scopes", "_verdicts", "expires_at", "key", "project")

    def __init__(self, *, key: str, project: str, scopes: Iterable[Scope], expires_at: float | None = None) -> None:
        self.key = key
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


class KeyRing:
    """The keys of one table."""

    def __init__(self, keys: Iterable[KeyRecord], *, pepper: bytes, required: bool) -> None:
        self.required = required
        self._pepper = pepper
        self._by_id = {record.id: record for record in keys}
        self._good: dict[bytes, Caller] = {}

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
        elif caller.expires_at is not None and caller.expires_at <= time():
            raise _refused()
        return caller

    def _check(self, authorization: bytes) -> Caller:
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise _refused()
        key = authorization[len(_SCHEME) :].strip().decode("latin-1")
        identity = key_id(key)
        if identity is None:
            raise _refused()
        record = self._by_id.get(identity)
        if not matches(record, key, pepper=self._pepper, now=time()) or record is None:
            raise _refused()
        caller = Caller(key=record.id, project=record.project, scopes=record.scopes, expires_at=record.expires_at)
        if len(self._good) >= _REMEMBERED:
            self._good.clear()
        self._good[authorization] = caller
        return caller


def _refused() -> Unauthenticated:
    return Unauthenticated("the key is not valid", hint=_HINT)
