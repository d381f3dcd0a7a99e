"""Who asks: the principal of a request, and the actor that history names."""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Protocol, cast

from modelyard.domain.access import Scope, Verb, allows
from modelyard.domain.names import DEFAULT_PROJECT

_LONGEST_OWNER: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who did something. `kind` is key, token, local (open mode on loopback) or system.

    `id` is a key's id, never a key, or a token's issuer and subject.
    """

    kind: str
    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller of a request, with what it may do. `project` is its own: meant when none is named."""

    key_id: str | None
    name: str
    scopes: tuple[Scope, ...] = field(repr=False)
    project: str = DEFAULT_PROJECT
    kind: str = "key"

    @property
    def actor(self) -> Actor:
        """As history names it."""
        if self.key_id is None:
            return Actor(kind="local", id=self.name, name=self.name)
        return Actor(kind=self.kind, id=self.key_id, name=self.name)

    @property
    def owner(self) -> str:
        """A text that stands for this caller alone, for idempotency keys and limits."""
        text = f"{self.actor.kind}:{self.actor.id}"
        return text if len(text) <= _LONGEST_OWNER else f"{self.actor.kind}:{sha256(text.encode()).hexdigest()}"

    def may(self, verb: Verb, *, project: str | None = None, name: str | None = None) -> bool:
        """Whether a scope covers `verb` on `name` in `project`; None asks for all of them."""
        return allows(self.scopes, verb, project=project, name=name)

    def may_anywhere(self, verb: Verb) -> bool:
        """Whether any scope gives `verb` on anything."""
        return any(scope.verb in (verb, Verb.ADMIN) for scope in self.scopes)


LOCAL: Final = Principal(key_id=None, name="local", scopes=(Scope(Verb.ADMIN),))
"""Everybody on this machine while no keys are asked for."""


def system_actor(name: str) -> Actor:
    """The platform itself: `system_actor("reconciler")`."""
    return Actor(kind="system", id=name, name=name)


class HasState(Protocol):
    """A request of the web framework, as far as it concerns us."""

    @property
    def state(self) -> Any:  # noqa: ANN401  (the framework's own object)
        """What was attached to the request."""


def caller(request: HasState) -> Principal:
    """The principal of a request that came through the application's gate."""
    return cast("Principal", request.state.principal)
