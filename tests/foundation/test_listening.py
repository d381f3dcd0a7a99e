"""Ports that are taken, free or given."""

import os
import socket

import pytest

from modelyard.domain.errors.platform import StartRefused
from modelyard.foundation.listening import bind, is_loopback, url_host


def test_a_given_port_that_is_taken_is_refused_by_the_name_of_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(
            StartRefused, match=rf"port {port} on 127.0.0.1 is in use by process {os.getpid()}"
        ) as caught:
            bind("127.0.0.1", port, given=True, option="--port")
    assert "--port" in caught.value.hint


def test_a_port_that_nobody_gave_moves_to_the_next_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with bind("127.0.0.1", port, given=False, option="--port") as listener:
            assert port < listener.getsockname()[1] < port + 100


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StartRefused, match=r"cannot listen on 192\.0\.2\.1"):
        bind("192.0.2.1", 0, given=True, option="--port")


@pytest.mark.parametrize(
    ("host", "inside"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_loopback_is_known(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside


def test_a_wildcard_is_shown_as_an_address_that_can_be_called() -> None:
    assert url_host("0.0.0.0") == "127.0.0.1"
    assert url_host("::1") == "[::1]"
