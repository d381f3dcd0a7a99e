"""Listening sockets: bound once, by the process that supervises, and handed to those that serve.

A port that a person gave is taken or refused, by name of the process that holds it. A port that nobody gave moves to
the next free one.
"""

import errno
import ipaddress
import socket
from contextlib import suppress
from typing import Final

import psutil

from modelyard.domain.errors.platform import StartRefused

_TRIES: Final = 100
_BACKLOG: Final = 4096


def bind(host: str, port: int, *, given: bool, option: str) -> socket.socket:
    """A listening TCP socket on `host`. `option` is the flag that chooses the port, for the error's hint.

    Raises:
        StartRefused: the port was given and is taken, the host is not one of this machine's, or no port is free.
    """
    candidates = [port] if given or port == 0 else range(port, min(port + _TRIES, 65536))
    for candidate in candidates:
        try:
            return _listen(host, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise StartRefused(
                    f"cannot listen on {host} port {candidate}: {error.strerror}",
                    hint="choose another address with --host",
                ) from error
    if given:
        raise StartRefused(
            f"port {port} on {host} is in use by {holder_of(port)}",
            hint=f"ask it to give the port up, or choose another with {option}",
        )
    raise StartRefused(
        f"no port from {port} to {port + _TRIES - 1} is free on {host}", hint=f"choose one with {option}"
    )


def bind_or_next(host: str, port: int | None, default: int, *, option: str) -> socket.socket:
    """`bind` to a port that a person gave, or to `default` or the next free one when None was.

    Raises:
        StartRefused: as `bind`.
    """
    return bind(host, default if port is None else port, given=port is not None, option=option)


def holder_of(port: int) -> str:
    """Who listens on `port`, in words; another user's process cannot always be seen."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                command = " ".join(psutil.Process(connection.pid).cmdline()).strip()[:80]
                return f"process {connection.pid} ({command})"
    return "another process"


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine can reach `host`."""
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def url_host(host: str) -> str:
    """`host` as it stands in a URL: a reachable name for wildcard addresses, brackets around IPv6."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (a comparison, not a bind)
    return f"[{shown}]" if ":" in shown else shown


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)  # noqa: FBT003  (the socket module's own signature)
    except BaseException:
        listener.close()
        raise
    return listener
