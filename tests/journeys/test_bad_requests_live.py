"""The corpus of bad requests against a live platform that asks for keys, on both listeners.

The cases and their bytes come from the corpus's own program; only the conversation is held here, so that all cases can
run at the same time and a connection that is closed after a late answer is seen.
"""

import importlib.util
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
from guarded import Guarded, loading_service

pytestmark = [pytest.mark.platform, pytest.mark.slow]
PROGRAM = Path(__file__).parent.parent / "corpora" / "check_corpora.py"
AT_ONCE = 24
LIMIT_S = 15.0
PROMISED_5XX = {501, 503, 504, 505, 507}


def _program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_corpora", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DOCUMENT, NAMES = _program().load("bad_requests.yaml")
CASES = [case for case in DOCUMENT["cases"] if case["kind"] != "scenario"]


@dataclass
class Talk:
    """One conversation, and what the server did in it."""

    client: socket.socket
    received: bytes = b""
    closed: bool = False
    seconds: float = 0.0
    _answered: float | None = None

    @property
    def statuses(self) -> list[int]:
        """Of every answer that came."""
        return [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d{3})[ \r]", self.received)]

    def say(self, data: bytes) -> None:
        """Send; a server that does not listen any more has closed."""
        self.client.settimeout(10)
        try:
            self.client.sendall(data)
        except OSError:
            self.listen(time.monotonic() + 1.0)
            self.closed = True

    def listen(self, until: float) -> None:
        """Until that moment, the connection's end, or a second of silence after an answer."""
        self.client.settimeout(0.05)
        while not self.closed and time.monotonic() < until:
            with suppress(TimeoutError):
                self._take()
            if self._answered is not None and time.monotonic() > self._answered + 1.0:
                return

    def _take(self) -> None:
        try:
            part = self.client.recv(65536)
        except ConnectionError:
            part = b""
        self.closed = not part
        self.received += part
        if part and self._answered is None:
            self._answered = time.monotonic()


def talk(address: tuple[str, int], steps: list[tuple[bytes, float]]) -> Talk:
    """Send the steps on one connection, and listen until it is closed or nothing more can come."""
    began = time.monotonic()
    with socket.create_connection(address, timeout=5) as client:
        held = Talk(client)
        for data, pause in steps:
            held.say(data)
            held.listen(min(time.monotonic() + pause, began + LIMIT_S))
            if held.closed or time.monotonic() > began + LIMIT_S:
                break
        held.listen(began + LIMIT_S)
    held.seconds = time.monotonic() - began
    return held


def _all(url: str, key: str, cases: list[dict[str, Any]]) -> dict[str, Talk]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    address = (parts.hostname, parts.port)

    def one(case: dict[str, Any]) -> Talk:
        built = eval(case["construct"], dict(NAMES))
        steps = built if isinstance(built, list) else [(built, 0)]
        return talk(address, [(data.replace(b"%%KEY%%", key.encode()), pause) for data, pause in steps])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip([case["id"] for case in cases], pool.map(one, cases), strict=True))


@pytest.fixture(scope="module")
def on_inference(guarded: Guarded) -> Iterator[dict[str, Talk]]:
    """What the inference listener did with every case."""
    with loading_service(guarded):
        yield _all(guarded.platform.inference_url, guarded.key("infer"), CASES)


@pytest.fixture(scope="module")
def on_control(guarded: Guarded) -> dict[str, Talk]:
    """What the control listener did with the cases that are about HTTP itself."""
    cases = [case for case in CASES if case["group"] in {"transport", "smuggling"}]
    return _all(guarded.platform.control_url, guarded.key("infer"), cases)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_inference_listener_answers_a_bad_request_as_listed(
    on_inference: dict[str, Talk], case: dict[str, Any]
) -> None:
    found = on_inference[case["id"]]
    wanted = case["expect"]["http"]
    if wanted:
        assert found.statuses, "no answer"
        assert found.statuses[0] in wanted, found.received[:300]
    _check_always(case, found)
    if case["expect"]["connection"] == "close":
        assert found.closed, "the connection was left open"


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["group"] in {"transport", "smuggling"}], ids=lambda case: case["id"]
)
def test_the_control_listener_is_no_softer(on_control: dict[str, Talk], case: dict[str, Any]) -> None:
    found = on_control[case["id"]]
    _check_always(case, found)
    assert found.statuses or not case["expect"]["http"], "no answer"
    if case["id"] != "D18":
        assert found.statuses[:1] != [200], "a route that is not there"
    if case["expect"]["connection"] == "close" and case["group"] == "smuggling":
        assert found.closed, "the connection was left open"


def test_the_platform_serves_on_after_all_of_it(on_inference: dict[str, Talk], guarded: Guarded) -> None:
    cases = [case for case in CASES if case["group"] == "control"]
    again = _all(guarded.platform.inference_url, guarded.key("infer"), cases)
    assert {found.statuses[0] for found in again.values()} == {200}


def _check_always(case: dict[str, Any], found: Talk) -> None:
    assert not [status for status in found.statuses if status >= 500 and status not in PROMISED_5XX], found.statuses
    assert b"smuggled" not in found.received
    if case["group"] == "smuggling" and case["id"] != "D18":
        assert len(found.statuses) <= 1, "the second request was answered"
    assert found.seconds < 13, f"took {found.seconds:.1f} s"
    for secret in (b"Traceback", b"/src/modelyard", b"site-packages"):
        assert secret not in found.received
