"""What an upstream may be: addresses that are never asked, URLs that are none, secrets that open with one key."""

from pathlib import Path

import pytest

from modelyard.domain.errors.platform import ArtifactDamaged, InvalidRequest, StartRefused
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.domain.upstreams import (
    Upstream,
    UpstreamAuth,
    UpstreamProtocol,
    forbidden_address,
    origin_of,
    problems_of,
    upstream_digest,
    upstream_version,
)
from modelyard.foundation.sealing import SealingKey

GOOD = Upstream(protocol=UpstreamProtocol.OPENAI, url="https://api.example.com/v1", model="small")


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fe80::1%eth0",
        "100.100.100.200",
        "fd00:ec2::254",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
    ],
)
def test_some_addresses_are_never_asked(address: str) -> None:
    assert forbidden_address(address, allow_private=True)
    assert forbidden_address(address, allow_private=False)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.9.9", "100.64.0.1", "::1", "fd12::1", "::ffff:10.0.0.1"]
)
def test_private_addresses_are_asked_only_where_the_setting_says_so(address: str) -> None:
    assert forbidden_address(address, allow_private=True) is None
    assert "upstreams.allow_private" in str(forbidden_address(address, allow_private=False))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_public_addresses_may_be_asked(address: str) -> None:
    assert forbidden_address(address, allow_private=False) is None


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("https://api.example.com/v1/", "api.example.com", "/v1"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", ""),
        ("http://[::1]:80/a/b", "[::1]", "/a/b"),
        ("HTTPS://Example.COM:443", "example.com", ""),
    ],
)
def test_a_plain_address_is_an_origin(url: str, authority: str, path: str) -> None:
    origin = origin_of(url)
    assert (origin.authority, origin.path) == (authority, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "http://user:pass@example.com",
        "http://user@example.com",
        "http://example.com/v1?x=1",
        "http://example.com/#a",
        "http://example.com/../up",
        "http://example.com\\@evil.com",
        "http://exam ple.com",
        "http://example.com:0",
        "http://example.com:99999",
        "http://ex\u00e4mple.com",
        "http://example.com/a\r\nx: y",
        "http://" + "a" * 3000,
    ],
)
def test_what_is_no_plain_address_is_refused_with_what_would_be_right(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        origin_of(url)
    assert "http://HOST" in refused.value.hint


def test_a_good_specification_has_no_problem() -> None:
    assert list(problems_of(GOOD)) == []


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("url", "nowhere", "url"),
        ("model", "", "model"),
        ("model", "a\nb", "model"),
        ("timeout_ms", 0, "timeout_ms"),
        ("stream_timeout_ms", 10**9, "stream_timeout_ms"),
        ("max_connections", 0, "max_connections"),
        ("check_s", 0.5, "check_s"),
        ("auth", UpstreamAuth(secret="No Name"), "auth.secret"),
        ("auth", UpstreamAuth(secret="s", header="Host"), "auth.header"),
        ("auth", UpstreamAuth(secret="s", header="x: y"), "auth.header"),
        ("auth", UpstreamAuth(secret="s", scheme="Be arer"), "auth.scheme"),
        ("version", "3", "version"),
        ("inputs", (TensorSpec(name="x", datatype=DataType.FP32, shape=(1,)),), "inputs"),
    ],
)
def test_every_problem_names_its_field(field: str, value: object, path: str) -> None:
    from dataclasses import replace

    found = list(problems_of(replace(GOOD, **{field: value})))
    assert [problem[0] for problem in found] == [path]
    assert all(problem[2] for problem in found)


def test_a_revision_of_an_upstream_has_the_digest_of_its_whole_specification() -> None:
    from dataclasses import replace

    assert upstream_digest(GOOD) == upstream_digest(replace(GOOD))
    assert upstream_digest(GOOD) != upstream_digest(replace(GOOD, timeout_ms=1))
    assert upstream_digest(GOOD).removeprefix("sha256:").startswith(upstream_version(GOOD))


def test_a_sealed_secret_opens_with_its_key_and_for_its_purpose_only(tmp_path: Path) -> None:
    key = SealingKey.open(tmp_path / "sealing.key", make=True)
    sealed = key.seal("sk-quite-secret", about="default/llm")
    assert "sk-quite" not in sealed
    assert sealed != key.seal("sk-quite-secret", about="default/llm")
    assert SealingKey.open(tmp_path / "sealing.key").unseal(sealed, about="default/llm") == "sk-quite-secret"
    other = SealingKey.open(tmp_path / "other.key", make=True)
    wrong = [(other, sealed, "default/llm"), (key, sealed, "team/llm"), (key, sealed[:-8] + "AAAAAAA=", "default/llm")]
    for one, text, about in wrong:
        with pytest.raises(ArtifactDamaged) as refused:
            one.unseal(text, about=about)
        assert "sk-quite" not in str(refused.value)


def test_what_an_older_key_sealed_still_opens(tmp_path: Path) -> None:
    path = tmp_path / "sealing.key"
    sealed = SealingKey.open(path, make=True).seal("old", about="a/b")
    path.write_text("ab" * 32 + "\n" + path.read_text())
    both = SealingKey.open(path)
    assert both.unseal(sealed, about="a/b") == "old"
    assert both.seal("old", about="a/b") != sealed


def test_a_sealing_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sealing.key"
    SealingKey.open(path, make=True)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(StartRefused, match="0644"):
        SealingKey.open(path)
    path.chmod(0o600)
    path.write_text("not hex")
    with pytest.raises(StartRefused, match="damaged"):
        SealingKey.open(path)
