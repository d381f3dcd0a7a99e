"""What a caller can reach on the board, and what it hears of the rest (safety.md, AZ-09). One place for every protocol.

A caller that may not know of a service hears that there is none; one that may, which scope is missing.
"""

from collections.abc import Iterator
from typing import Final

from modelyard.domain.access import Verb
from modelyard.domain.errors.base import ModelyardError, quote
from modelyard.domain.errors.inference import ModelNotFound
from modelyard.domain.errors.platform import Forbidden, NotSupported
from modelyard.inference.admission import Caller
from modelyard.inference.routing import ServedBackend, Service, Switchboard

_MOST_NAMES: Final = 32


def may_read(caller: Caller, service: Service) -> bool:
    """Whether `caller` may see what the service is."""
    return any(caller.may(verb, service.project, service.name) for verb in (Verb.READ, Verb.INFER))


def readable_services(board: Switchboard, caller: Caller, project: str | None) -> Iterator[Service]:
    """The services of `project` (None: the caller's own) that `caller` may see."""
    chosen = project or caller.project
    for service in board.services.values():
        if service.project == chosen and may_read(caller, service):
            yield service


def service_to_read(board: Switchboard, caller: Caller, project: str | None, name: str) -> Service:
    """The service of this name, to look at.

    Raises:
        ModelNotFound: there is none, or the caller may not know of it.
        Forbidden: the key lacks the scope.
    """
    service = board.find(project or caller.project, name)
    if service is None or not caller.sees(service.project, service.name):
        raise _nothing(board, caller, project, name)
    if not may_read(caller, service):
        raise Forbidden("the key does not have the scope read", hint="ask for a key with the scope")
    return service


def service_to_ask(
    board: Switchboard, caller: Caller, project: str | None, name: str, *, relayed: bool = False
) -> Service:
    """The service of this name, for a prediction, or for a question that is `relayed` as it is.

    Raises:
        ModelNotFound: there is none, or the caller may not know of it.
        Forbidden: the key lacks the scope infer.
        NotSupported: it speaks the other dialect.
    """
    service = board.find(project or caller.project, name)
    if service is None or not caller.may(Verb.INFER, service.project, service.name):
        raise unreachable(board, caller, project, name)
    if service.is_relayed is not relayed:
        raise NotSupported(
            "this service takes tensors" if relayed else "this service speaks the OpenAI dialect",
            hint="POST /v2/models/NAME/infer" if relayed else "POST /v1/chat/completions with its name as the model",
        )
    return service


def service_to_change(board: Switchboard, caller: Caller, project: str | None, name: str) -> Service:
    """The service of this name, to load or unload.

    Raises:
        ModelNotFound: there is none, or the caller may not know of it.
        Forbidden: the key lacks the scope deploy.
    """
    service = board.find(project or caller.project, name)
    if service is None or not caller.sees(service.project, service.name):
        raise _nothing(board, caller, project, name)
    require_deploy(caller, service)
    return service


def require_deploy(caller: Caller, service: Service) -> None:
    """Refuse a caller that may not change what is served.

    Raises:
        Forbidden: the key lacks the scope deploy.
    """
    if not caller.may(Verb.DEPLOY, service.project, service.name):
        raise Forbidden("the key does not have the scope deploy", hint="ask for a key with the scope")


def backend_of(service: Service, version: str | None) -> ServedBackend:
    """Who answers: of `version`, or whoever's turn it is."""
    return service.pick() if version is None else service.at_version(version)


def unreachable(board: Switchboard, caller: Caller, project: str | None, name: str) -> ModelyardError:
    """What a caller hears of a service that it may not ask: nothing, unless it may know of it."""
    service = board.find(project or caller.project, name)
    if service is not None and caller.sees(service.project, service.name):
        return Forbidden("the key does not have the scope infer for this service", hint="ask for a key with the scope")
    return _nothing(board, caller, project, name)


def _nothing(board: Switchboard, caller: Caller, project: str | None, name: str) -> ModelNotFound:
    """The same for what is not there and for what the caller may not know of; it names what the caller may see."""
    there = sorted(service.name for service in readable_services(board, caller, project))
    return ModelNotFound(
        "no service of this name is there",
        hint="GET /v2/models lists what is served",
        details=[{"field": "model", "expected": there[:_MOST_NAMES], "received": quote(name)}],
    )
