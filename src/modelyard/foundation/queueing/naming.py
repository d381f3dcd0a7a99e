"""Names and addresses of queues: what may be one, and how an address is shown without its password."""

import importlib
import re
import ssl
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from modelyard.domain.errors.base import quote as shown
from modelyard.domain.errors.platform import InvalidRequest, MissingExtra, Unavailable

TOPIC_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*"
_LONGEST_TOPIC: Final = 150
SECURE: Final = {"amqps": "amqp", "kafkas": "kafka", "natss": "nats", "rediss": "redis"}
"""Schemes over TLS, and what each is without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueAddress:
    """Where a broker is. `options` are those of the URL's query; the password is never part of a text."""

    scheme: str
    host: str
    port: int | None
    path: str
    user: str = ""
    password: str = field(default="", repr=False)
    options: tuple[tuple[str, str], ...] = ()
    more: tuple[str, ...] = ()
    """Further brokers of the same cluster, `HOST` or `HOST:PORT`."""
    ca: str = ""
    """A file with the certificates that sign the broker's; the system's where it is empty."""

    @property
    def kind(self) -> str:
        """The scheme without TLS."""
        return SECURE.get(self.scheme, self.scheme)

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted and the broker has to prove its name."""
        return self.scheme in SECURE

    def context(self) -> ssl.SSLContext | None:
        """What a library of Python's checks the broker with; None without TLS.

        Raises:
            InvalidRequest: the file of certificates cannot be read.
        """
        if not self.tls:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca or None)
        except OSError as error:
            raise InvalidRequest(
                f"no certificates can be read in {self.ca}", hint="a PEM file: --broker-ca FILE"
            ) from error

    def __str__(self) -> str:
        """As it is shown to people."""
        who = f"{self.user}{':***' if self.password else ''}@" if self.user or self.password else ""
        return f"{self.scheme}://{who}{','.join([self._place, *self.more])}{self.path}"

    def url(self, scheme: str = "") -> str:
        """With its password, for the broker's library alone."""
        word = f":{quote(self.password, safe='')}" if self.password else ""
        who = f"{quote(self.user, safe='')}{word}@" if self.user or word else ""
        return f"{scheme or self.scheme}://{who}{self._place}{self.path}"

    def option(self, name: str, default: str) -> str:
        """One of the URL's options."""
        return dict(self.options).get(name, default)

    def whole_option(self, name: str, default: int, *, least: int) -> int:
        """One of the URL's options that is a whole number.

        Raises:
            InvalidRequest: it is none, or less than `least`.
        """
        text = self.option(name, str(default))
        if not text.isdecimal() or int(text) < least:
            raise InvalidRequest(f"{name}={shown(text)} in the url of a queue", hint=f"a whole number from {least}")
        return int(text)

    def places(self, port: int) -> list[str]:
        """All brokers that are named, `HOST:PORT`; `port` where none is given."""
        named = [self._place, *self.more]
        return [place if re.search(r":\d+$", place) else f"{place}:{port}" for place in named]

    @property
    def _place(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def read_address(url: str, *, password: str = "", ca: str = "") -> QueueAddress:
    """The parts of a queue's URL; `password` goes before one that is written in it, `ca` says who signs certificates.

    Raises:
        InvalidRequest: it is no URL of a broker.
    """
    first, more = _several(url)
    try:
        parts = urlsplit(first)
        port = parts.port
    except ValueError as error:
        raise InvalidRequest("the url of a queue cannot be read", hint="amqp://USER@HOST:5672/VHOST") from error
    if not parts.scheme or (not parts.hostname and parts.scheme != "embedded"):
        raise InvalidRequest("the url of a queue needs a scheme and a host", hint="amqp://USER@HOST:5672/VHOST")
    if ca and parts.scheme.lower() not in SECURE:
        raise InvalidRequest(
            f"{parts.scheme}:// is not encrypted, so certificates prove nothing", hint=f"with TLS: {', '.join(SECURE)}"
        )
    return QueueAddress(
        ca=ca,
        scheme=parts.scheme.lower(),
        host=parts.hostname or "",
        port=port,
        path=parts.path,
        user=unquote(parts.username or ""),
        password=password or unquote(parts.password or ""),
        options=tuple(parse_qsl(parts.query)),
        more=more,
    )


def _several(url: str) -> tuple[str, tuple[str, ...]]:
    """The URL with its first host alone, and the other hosts: `kafka://a:9092,b:9092/` names two."""
    found = re.match(r"(?P<head>[^/?#]*//(?:[^/?#]*@)?)(?P<hosts>[^/?#]*)(?P<tail>.*)", url, re.DOTALL)
    if found is None:
        return url, ()
    first, *more = found["hosts"].split(",")
    for each in more:
        if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?", each):
            raise InvalidRequest(f"{shown(each)} in the url of a queue is no host", hint="kafka://HOST:9092,HOST:9092")
    return f"{found['head']}{first}{found['tail']}", tuple(more)


def check_topic(name: str) -> str:
    """`name`, if a topic or group may be called so with every broker.

    Raises:
        InvalidRequest: it may not.
    """
    if len(name) > _LONGEST_TOPIC or not re.fullmatch(TOPIC_PATTERN, name):
        raise InvalidRequest(
            f"{shown(name)} is no name for a topic", hint=f"1 to {_LONGEST_TOPIC} of A-Z a-z 0-9 _ - with dots between"
        )
    return name


def require_library(library: str, need: str, *, extra: str) -> None:
    """See to it that a broker's library is there; `need` says what for.

    Raises:
        MissingExtra: it is not, with the extra that brings it.
    """
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise MissingExtra(need, hint=f"pip install 'modelyard[{extra}]'") from error


def not_let_in(address: QueueAddress) -> Unavailable:
    """The broker does not take who we say we are."""
    return Unavailable(f"{address} does not take the user or password", hint="look at the queue's settings")


def no_answer(address: QueueAddress, error: BaseException, *, hint: str = "is the broker running?") -> Unavailable:
    """The broker was not reached, or was lost; only the kind of error is told, for its words may hold the password."""
    if address.tls:
        hint = f"{hint.removesuffix('?')}, with a certificate for this name that --broker-ca or the system trusts?"
    return Unavailable(f"{address} does not answer ({type(error).__name__})", hint=hint)
