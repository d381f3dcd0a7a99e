"""Environments from lock files: whole or not at all, once a lock file, from where the operator says."""

import hashlib
import subprocess
import threading
from pathlib import Path

import pytest
from own_code_kit import make_wheel

from modelyard.domain.errors.platform import NotFound, StartRefused
from modelyard.foundation.environments import BuildSettings, Environments, base_interpreter

BUILDERS = ["uv", "pip"]


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    return tmp_path / "wheels"


@pytest.fixture
def line(wheels: Path) -> str:
    return make_wheel(wheels, "tiny_thing", "1.0", {"tiny_thing.py": b"answer = 42\n"})


def lock_file(place: Path, text: str) -> tuple[Path, str]:
    path = place / "requirements.lock"
    path.write_text(text)
    return path, hashlib.sha256(text.encode()).hexdigest()


def environments(place: Path, builder: str, wheels: Path | None) -> Environments:
    return Environments(place / "environments", BuildSettings(builder=builder, wheels=wheels))


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_lock_file_becomes_an_environment_once(tmp_path: Path, wheels: Path, line: str, builder: str) -> None:
    lock, digest = lock_file(tmp_path, line)
    said: list[str] = []
    built = environments(tmp_path, builder, wheels)
    with pytest.raises(NotFound):
        built.find(digest)
    first = built.ensure(lock, digest, say=said.append)
    again = environments(tmp_path, builder, None).ensure(lock, digest, say=said.append)
    assert first == again == built.find(digest)
    assert len(said) == 1
    code = f"import site; site.addsitedir({first.site!r}); import tiny_thing; print(tiny_thing.answer)"
    asked = subprocess.run([first.python, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout == "42\n"
    assert first.python == base_interpreter()


@pytest.mark.parametrize("builder", BUILDERS)
def test_another_digest_than_the_lock_s_is_refused(tmp_path: Path, wheels: Path, line: str, builder: str) -> None:
    lock, digest = lock_file(tmp_path, line[:-2] + ("0" if line[-2] != "0" else "1") + "\n")
    with pytest.raises(StartRefused) as refused:
        environments(tmp_path, builder, wheels).ensure(lock, digest, say=print)
    assert "digest in requirements.lock" in refused.value.detail
    assert not (tmp_path / "environments" / digest).exists()
    assert not list((tmp_path / "environments").glob("*.building*"))


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_package_that_is_nowhere_is_said_with_the_installer_s_words(
    tmp_path: Path, wheels: Path, line: str, builder: str
) -> None:
    lock, digest = lock_file(tmp_path, line + "not-there-at-all==3.1\n")
    with pytest.raises(StartRefused) as refused:
        environments(tmp_path, builder, wheels).ensure(lock, digest, say=print)
    assert "not where it was looked for" in refused.value.detail
    assert "not-there-at-all" in refused.value.detail


@pytest.mark.parametrize("builder", BUILDERS)
def test_source_distributions_are_not_built(tmp_path: Path, wheels: Path, builder: str) -> None:
    canary, source = tmp_path / "canary", tmp_path / "source_thing-1.0"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(canary)!r}, 'w')\nfrom setuptools import setup\nsetup(name='x')\n")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: source-thing\nVersion: 1.0\n")
    wheels.mkdir()
    archive = wheels / "source_thing-1.0.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", tmp_path, source.name], check=True)
    lock, digest = lock_file(tmp_path, "source-thing==1.0\n")
    with pytest.raises(StartRefused):
        environments(tmp_path, builder, wheels).ensure(lock, digest, say=print)
    assert not canary.exists()


def test_nothing_is_asked_for_packages_unless_somebody_says_where(tmp_path: Path) -> None:
    lock, digest = lock_file(tmp_path, "tiny_thing==1.0\n")
    with pytest.raises(StartRefused, match="nothing says where"):
        environments(tmp_path, "auto", None).ensure(lock, digest, say=print)


def test_a_lock_file_without_packages_needs_nothing(tmp_path: Path) -> None:
    lock, digest = lock_file(tmp_path, "# standard library only\n")
    assert environments(tmp_path, "auto", None).ensure(lock, digest, say=print).python


def test_two_who_want_the_same_build_it_once(tmp_path: Path, wheels: Path, line: str) -> None:
    lock, digest = lock_file(tmp_path, line)
    said: list[str] = []
    threads = [
        threading.Thread(
            target=environments(tmp_path, "uv", wheels).ensure, args=(lock, digest), kwargs={"say": said.append}
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 1
