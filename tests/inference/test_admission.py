"""Keys, scopes, rates and bounds on the path."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelyard.domain.access import KeyRecord, Scope, Verb, key_id, key_mac, make_key
from modelyard.domain.errors.platform import Unauthenticated
from modelyard.inference.admission import KeyRing, SharedLimits

PEPPER = b"p" * 32


def record(key: str, *scopes: Scope, **more) -> KeyRecord:
    identity = key_id(key)
    assert identity is not None
    return KeyRecord(id=identity, mac=key_mac(key, pepper=PEPPER), name="k", scopes=scopes, **more)


def ring(*records: KeyRecord) -> KeyRing:
    return KeyRing(records, pepper=PEPPER, required=True)


def bearer(key: str) -> bytes:
    return f"Bearer {key}".encode()


def test_a_good_key_is_its_caller_with_its_scopes() -> None:
    key = make_key()
    keys = ring(record(key, Scope(Verb.INFER, "team", "iris"), project="team"))
    for _ in range(2):
        caller = keys.identify(bearer(key))
        assert caller.project == "team"
        assert caller.may(Verb.INFER, "team", "iris")
        assert not caller.may(Verb.INFER, "team", "other")
        assert caller.sees("team", "other")
        assert not caller.sees("rivals", "iris")


def test_whatever_is_not_a_good_key_is_refused_alike() -> None:
    good, other = make_key(), make_key()
    keys = ring(record(good, Scope(Verb.INFER)))
    headers = [None, b"", bearer(other), bearer(good[:-1] + "0"), b"Basic abc", good.encode(), b"Bearer \xff\xfe"]
    headers.append(bearer("eyJhbGciOiJub25lIn0.e30."))
    texts = set()
    for header in headers:
        with pytest.raises(Unauthenticated) as refused:
            keys.identify(header)
        texts.add(refused.value.detail)
    assert texts == {"this address asks for a key", "the key is not valid"}


def test_an_expired_key_is_refused_also_when_it_was_good_before() -> None:
    key = make_key()
    keys = ring(record(key, Scope(Verb.INFER), expires_at=time.time() + 0.2))
    keys.identify(bearer(key))
    time.sleep(0.25)
    with pytest.raises(Unauthenticated):
        keys.identify(bearer(key))


def test_guesses_are_not_remembered() -> None:
    keys = ring(record(make_key(), Scope(Verb.INFER)))
    for _ in range(100):
        with pytest.raises(Unauthenticated):
            keys.identify(bearer(make_key()))
    assert not keys._good


def test_a_bucket_gives_its_rate_and_says_when_to_come_back(tmp_path: Path) -> None:
    bucket = SharedLimits(tmp_path / "limits").bucket("s", 10.0)
    now = 1000.0
    assert [bucket.take(now) for _ in range(10)] == [0.0] * 10
    assert bucket.take(now) == pytest.approx(0.1)
    assert bucket.take(now + 0.11) == 0.0
    assert bucket.take(now + 0.11) > 0
    assert [bucket.take(now + 100) for _ in range(11)].count(0.0) == 10, "an idle bucket holds one second's worth"


def test_a_high_rate_is_taken_in_shares_and_never_exceeded(tmp_path: Path) -> None:
    limits = SharedLimits(tmp_path / "limits")
    one, other = (limits.bucket("s", 20_000.0) for _ in range(2))  # as two processes hold them
    passed = sum((one if turn % 3 else other).take(1000.0) == 0.0 for turn in range(60_000))
    assert passed == 20_000, "a second's worth, to the last token"


def test_a_share_that_was_not_used_is_not_spent_later(tmp_path: Path) -> None:
    bucket = SharedLimits(tmp_path / "limits").bucket("s", 20_000.0)
    assert bucket.take(1000.0) == 0.0
    passed = sum(bucket.take(1010.0) == 0.0 for _ in range(30_000))
    assert passed == 20_000, "an idle bucket holds one second's worth, and nothing beside it"


def test_a_clock_that_went_back_fills_the_bucket(tmp_path: Path) -> None:
    bucket = SharedLimits(tmp_path / "limits").bucket("s", 2.0)
    assert bucket.take(5000.0) == 0.0
    assert bucket.take(3.0) == 0.0, "the machine was started again"


PROGRAM = """
import sys, pathlib
from modelyard.inference.admission import SharedLimits
limits = SharedLimits(pathlib.Path(sys.argv[1]))
bucket, gate = limits.bucket("rate", 200.0), limits.gate("bound", 50)
sys.stdin.readline()
print(sum(bucket.take(2000.0) == 0.0 for _ in range(150)), sum(gate.enter() for _ in range(40)), flush=True)
sys.stdin.readline()
"""


def test_limits_hold_for_all_processes_together_and_the_dead_give_back(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        for process in started:
            process.stdin.write("go\n")
            process.stdin.flush()
        taken = [tuple(map(int, process.stdout.readline().split())) for process in started]
        assert sum(rate for rate, _ in taken) == 200
        assert sum(bound for _, bound in taken) == 50
        gate = SharedLimits(path).gate("bound", 50)
        assert not gate.enter()
        victim = max(range(3), key=lambda index: taken[index][1])
        started[victim].kill()
        started[victim].wait()
        assert sum(gate.enter() for _ in range(60)) == taken[victim][1]
        gate.leave()
        assert gate.enter()
    finally:
        for process in started:
            process.kill()
            process.communicate()
