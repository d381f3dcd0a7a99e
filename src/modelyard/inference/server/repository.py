"""The model repository extension (Triton): what is asked of it, read strictly, and handed to whoever decides."""

from collections.abc import Mapping
from typing import Final

from modelyard.domain.access import Verb
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.inference import BadJson
from modelyard.domain.errors.platform import Forbidden, InvalidRequest, NotSupported, Unavailable
from modelyard.inference.admission import Caller
from modelyard.inference.protocol.strict import load_strict
from modelyard.inference.routing import Changes, Service
from modelyard.inference.server.reach import require_deploy
from modelyard.inference.server.server_logs import ServerLogs

_UNLOAD_ONLY: Final = "unload_dependents"


class Repository:
    """Loads and unloads services, and sets what is logged, on behalf of callers that may."""

    def __init__(self, changes: Changes | None, logs: ServerLogs) -> None:
        self._changes = changes
        self.logs = logs

    async def set_loaded(self, service: Service, caller: Caller, authorization: bytes | None, *, loaded: bool) -> None:
        """Load or unload, on all servers.

        Raises:
            Forbidden: the key lacks the scope deploy.
            ModelyardError: it is refused, or cannot be done.
        """
        require_deploy(caller, service)
        await self._decider().set_loaded(authorization, service, loaded=loaded)

    async def set_logging(self, document: object, caller: Caller, authorization: bytes | None) -> None:
        """Set what all servers log. Raises as `set_loaded`."""
        if not caller.may(Verb.DEPLOY, None, None):
            raise Forbidden("the key does not have the scope deploy everywhere", hint="ask for a key with the scope")
        wish = self.logs.wished(document)
        if document:
            await self._decider().set_logging(authorization, wish)

    def _decider(self) -> Changes:
        if self._changes is None:
            raise Unavailable("nobody is there who could decide that", hint="start it with modelyard up or serve")
        return self._changes


def read_parameters(body: bytes) -> Mapping[str, object]:
    """The parameters in the body of a load or unload, which may be empty.

    Raises:
        InvalidRequest: it is no JSON object with `parameters` alone.
    """
    if not body.strip():
        return {}
    try:
        document = load_strict(body)
    except BadJson as error:
        raise InvalidRequest(error.detail, hint="send an empty body") from error
    if not isinstance(document, dict) or document.keys() - {"parameters"}:
        raise InvalidRequest("the body may have `parameters` and nothing else", hint="send an empty body")
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequest("`parameters` must be an object", hint="send an empty body")
    return parameters


def check_parameters(parameters: Mapping[str, object], *, loaded: bool) -> None:
    """Refuse what would bring another model or configuration than the one that was examined.

    Raises:
        NotSupported: `config` and `file:` overrides.
        InvalidRequest: parameters that there are not.
    """
    for name, value in parameters.items():
        if loaded and (name == "config" or name.startswith("file:")):
            raise NotSupported(
                "only what the library examined and approved is loaded; overrides are not taken",
                hint="modelyard upload brings a new version, modelyard deploy serves it",
            )
        if loaded or name != _UNLOAD_ONLY or not isinstance(value, bool):
            raise InvalidRequest(f"there is no parameter {quote(name)} here", hint="send an empty body")
