"""What strict JSON refuses, what it lets through, and that it agrees with a slow and simple reader."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.foundation.strict_json import StrictJsonError, guard, loads


@pytest.mark.parametrize(
    "document",
    [
        b'{"a":1,"a":2}',
        b'{"a":1, "b":2, "a" : 3}',
        b'[{"x":{"a":1,"b":[{"a":1}],"a":2}}]',
        b'{"a":1,"\\u0061":2}',
        b'{"\\n":1,"\\u000a":2}',
        b'{"":1,"":2}',
        b'{"a\\\\":1,"a\\\\":2}',
        b'{"a\\"":1,"a\\"":2}',
        '{"ä":1,"\\u00e4":2}'.encode(),
        b"[NaN]",
        b"Infinity",
        b"[-Infinity]",
        b"[" * 33 + b"]" * 33,
        b'{"a":' * 33 + b"1" + b"}" * 33,
        b'[{"a":' * 17 + b"1" + b"}]" * 17,
        b"[" * 100_000,
        b"12345678901234567890",
        b"-12345678901234567890",
        b"[1, 10000000000000000000000]",
        b"12345678901234567890.5",
        b"1." + b"0" * 100_000,
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\ud800\\u0041"',
        b'{"\\ud800":1}',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\xaf"',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"",
        b"{",
        b"[1] 2",
        b"[1,]",
        b"{'a':1}",
        b"[01]",
        b'["\x01"]',
        b'["a\\"]',
    ],
)
def test_it_is_refused(document):
    with pytest.raises(StrictJsonError) as refusal:
        loads(document)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    "document",
    [
        b'{"a":{"a":1},"b":[{"a":1},{"a":2}]}',
        b'{"n":1,"\\n":2}',
        b'{"a":"NaN","b":"{\\"a\\":1,\\"a\\":2}"}',
        b'["\\\\",":","{","\\\\\\"a"]',
        b"[" * 32 + b"]" * 32,
        b"[" + b"[]," * 1000 + b"[]]",
        b"1234567890123456789",
        b"0.12345678901234567890123",
        b"[1e300, -0.0, 1E-7]",
        b'"\\ud83d\\ude00"',
        b'"\\\\ud800"',
        '{"ä":"日本"}'.encode(),
        b" null ",
    ],
)
def test_it_is_let_through_as_it_is(document):
    assert loads(document) == json.loads(document)


def test_the_place_and_the_limits_are_told():
    with pytest.raises(StrictJsonError) as refusal:
        guard(b'{"a":1,"a":2}')
    assert refusal.value.position == 8
    with pytest.raises(StrictJsonError) as refusal:
        guard(b'{"b":[1,"c",{"a":1}],"a":[2],"x":0, "a":2}')
    assert refusal.value.position == 37
    with pytest.raises(StrictJsonError, match="larger than 3"):
        loads(b"[1,2]", max_bytes=3)
    assert loads(b"[[1]]", max_depth=2) == [[1]]
    with pytest.raises(StrictJsonError, match="deeper than 1"):
        loads(b"[[1]]", max_depth=1)
    assert loads(b"[Infinity]", allow_nan=True) == [float("inf")]


class Twice(Exception):
    pass


def distinct(pairs):
    if len(dict(pairs)) != len(pairs):
        raise Twice
    return dict(pairs)


class Pairs(list):
    """An object that may have a key twice."""


KEYS = st.sampled_from(["a", "b", "name", "é", 'q"', "\\", "\n", ":", "{"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | KEYS,
    lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(KEYS, inner), max_size=4).map(Pairs),
    max_leaves=20,
)


def written(value, *, ascii_only):
    if isinstance(value, Pairs):
        inner = (f"{json.dumps(k, ensure_ascii=ascii_only)}: {written(v, ascii_only=ascii_only)}" for k, v in value)
        return "{" + ",".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(each, ascii_only=ascii_only) for each in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


@given(value=VALUES, ascii_only=st.booleans())
def test_it_agrees_with_a_slow_reader_on_keys(value, ascii_only):
    document = written(value, ascii_only=ascii_only).encode()
    try:
        expected = json.loads(document, object_pairs_hook=distinct)
    except Twice:
        with pytest.raises(StrictJsonError):
            loads(document)
        return
    assert loads(document) == expected


@given(st.binary(max_size=60))
def test_whatever_comes_it_is_read_or_refused(data):
    try:
        value = loads(data)
    except StrictJsonError:
        return
    assert value == json.loads(data)
