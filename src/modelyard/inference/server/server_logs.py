"""What this server logs, as the logging extension of the protocol says and sets it (Triton, logging extension).

Lines always go to standard error as JSON with ISO 8601 times: `log_file` is empty and `log_format` fixed, and a wish
for another is refused.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest, NotSupported
from modelyard.domain.routing import LogSettings
from modelyard.foundation.telemetry import choose_severities

FORMAT: Final = "ISO8601"
_FLAGS: Final = ("log_info", "log_warning", "log_error")
_FIXED: Final[Mapping[str, str]] = {"log_file": "", "log_format": FORMAT}
_MOST_VERBOSE: Final = 10
_BY_LEVEL: Final[Mapping[str, LogSettings]] = {
    "debug": LogSettings(log_verbose_level=1),
    "info": LogSettings(),
    "warning": LogSettings(log_info=False),
    "error": LogSettings(log_info=False, log_warning=False),
}


class ServerLogs:
    """The present settings; `level` is the one that the process began with."""

    def __init__(self, level: str) -> None:
        self.current = _BY_LEVEL[level]
        self._began_with = self.current

    def take(self, wanted: LogSettings | None) -> None:
        """Take what the routing table says into effect."""
        chosen = wanted or self._began_with
        if chosen != self.current:
            self.current = chosen
            choose_severities(chosen)

    def document(self) -> dict[str, Any]:
        """All settings by name."""
        return {**_FIXED, **asdict(self.current)}

    def wished(self, document: object) -> LogSettings:
        """The settings after a wish that names some of them.

        Raises:
            InvalidRequest: it names what there is not, or a value that cannot be.
            NotSupported: it wants another file or format.
        """
        if not isinstance(document, Mapping):
            raise InvalidRequest("the body must be an object", hint='send {"log_verbose_level": 1}')
        changes: dict[str, Any] = {}
        for name, value in document.items():
            if name in _FIXED:
                _require_fixed(name, value)
            elif _fits(name, value):
                changes[name] = value
            else:
                raise _unknown(name, value)
        return replace(self.current, **changes)


def _fits(name: object, value: object) -> bool:
    if name in _FLAGS:
        return isinstance(value, bool)
    return name == "log_verbose_level" and type(value) is int and 0 <= value <= _MOST_VERBOSE


def _require_fixed(name: str, value: object) -> None:
    if value != _FIXED[name]:
        raise NotSupported(
            f"{name} cannot be changed over the network",
            hint="redirect standard error where the server is started",
        )


def _unknown(name: object, value: object) -> InvalidRequest:
    known = {**dict.fromkeys(_FLAGS, "true or false"), "log_verbose_level": f"0 to {_MOST_VERBOSE}"}
    if name in known:
        return InvalidRequest(
            f"{name} cannot be {quote(value)}",
            hint=f"send {known[str(name)]}",
            details=[{"field": str(name), "expected": known[str(name)], "received": quote(value)}],
        )
    return InvalidRequest(f"there is no log setting {quote(name)}", hint=f"there are {', '.join(known)}")
