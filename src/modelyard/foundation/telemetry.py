"""Logs that a machine can read and that hold no secret: one JSON line an event, with the request it belongs to.

Whatever looks like a key, a bearer token or a password in a URL is blacked out on the way, wherever it came from.
"""

import json
import logging
import re
import secrets
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from modelyard.domain.routing import LogSettings

REQUEST_ID: Final[ContextVar[str]] = ContextVar("modelyard_request_id", default="")
"""The id of the request that is being answered; empty outside one."""

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECRETS: Final = (
    (re.compile(r"mdy_live_([0-9A-Za-z]{8})[0-9A-Za-z]{8,40}"), r"mdy_live_\1***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 ***"),
    (re.compile(r"(?i)(\w+://[^/\s:@]+):[^/\s@]+@"), r"\1:***@"),
    (
        re.compile(r"(?i)\b(password|passwd|secret|token|api_key|pepper)\b(['\"]?\s*[=:]\s*['\"]?)[^\s'\",;&]+"),
        r"\1\2***",
    ),
)
_STANDARD: Final = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {
    "message",
    "asctime",
    "taskName",
}


def redact(text: str) -> str:
    """`text` with everything that looks like a secret blacked out."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def request_id(given: str | None) -> str:
    """The caller's id when it is a plain one (1 to 64 of letters, digits, `.`, `_`, `-`), else a new one."""
    if given is not None and _ID.fullmatch(given):
        return given
    return secrets.token_hex(8)


class JsonLines(logging.Formatter):
    """One record a line: `at`, `level`, `logger`, `text`, `request_id`, and what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "text": redact(record.getMessage()),
        }
        if current := REQUEST_ID.get():
            line["request_id"] = current
        for name, value in record.__dict__.items():
            if name not in _STANDARD:
                line[name] = redact(value) if isinstance(value, str) else value
        if record.exc_info:
            line["error"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, default=lambda value: redact(str(value)), ensure_ascii=False)


def set_up_logging(*, level: str = "info", stream: TextIO | None = None) -> None:
    """Send this process's log to `stream` (stderr unless told), as JSON lines. Replaces what was set up before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)  # one line a revision says nothing to an operator


class Severities(logging.Filter):
    """Lets through only the severities that are wanted, each by itself."""

    def __init__(self, wanted: LogSettings) -> None:
        super().__init__()
        self._wanted = wanted

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this record is wanted."""
        wanted = self._wanted
        if record.levelno >= logging.ERROR:
            return wanted.log_error
        if record.levelno >= logging.WARNING:
            return wanted.log_warning
        return wanted.log_info if record.levelno >= logging.INFO else wanted.log_verbose_level > 0


def choose_severities(wanted: LogSettings) -> None:
    """Log these severities from now on, whatever the level was that this process began with."""
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if wanted.log_verbose_level > 0 else logging.INFO)
    for handler in root.handlers:
        handler.filters[:] = [Severities(wanted)]
