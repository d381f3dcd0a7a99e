"""A short run of the fuzzer on every target; the long one is `python -m tests.fuzz`, with its counts in the docs."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # the fuzzer is a package of the folder tests

from tests.fuzz import targets
from tests.fuzz.__main__ import NAMES, fuzz
from tests.fuzz.transport import feed


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_strangers_send_breaks_a_promise(name: str) -> None:
    count, broken = fuzz(name, runs=3000, seconds=120.0, seed=3)
    assert broken is None, broken
    assert count >= 256


def test_a_broken_promise_is_found_and_shown(monkeypatch, capsys) -> None:
    def breaks(data: bytes) -> None:
        assert b"\\u" not in data, "it reads escapes wrongly"

    monkeypatch.setitem(targets.TARGETS, "json", lambda: breaks)
    _, broken = fuzz("json", runs=3000, seconds=60.0, seed=3)
    assert broken is not None
    assert b"\\u" in broken
    assert "it reads escapes wrongly" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_inputs() -> None:
    from itertools import islice

    from tests.fuzz.mutation import inputs

    one, same, other = (list(islice(inputs([b"abc", b"def"], [b"X"], seed=s), 200)) for s in (1, 1, 2))
    assert one == same
    assert one != other


def test_writing_after_the_end_would_be_noticed() -> None:
    class Bad:
        def connection_made(self, transport) -> None:
            transport.close()
            transport.write(b"x")

    with pytest.raises(AssertionError, match="after the connection was closed"):
        feed(Bad(), b"a", 1)
