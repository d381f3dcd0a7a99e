"""Bundles of own code in the audit: read, never run, and never approved without a person."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from own_code_kit import CONFIG, DOUBLE

from modelyard.domain.contract import Isolation
from modelyard.domain.errors.uploads import ConfigInvalid, ConfigUnsafe
from modelyard.domain.report import Check, Outcome, Verdict
from modelyard.foundation.documents import read_package
from modelyard.inspection import Inspection, InspectionPolicy, ReceivedFile, inspect_bundle
from modelyard.inspection.code_bundle_lock import read_lock

DIGEST = "0" * 64
HASHED = f"numpy==2.0.0 --hash=sha256:{DIGEST}\n"


def inspect(place: Path, source: str = DOUBLE, *, lock: str = HASHED, **more: Any) -> Inspection:
    files = {"predict.py": source.encode(), "requirements.lock": lock.encode(), **more.get("files", {})}
    if (config := more.get("config", CONFIG)) is not None:
        files["config.json"] = json.dumps(config).encode()
    received = []
    for index, (name, data) in enumerate(files.items()):
        path = place / f"part{index}"
        path.write_bytes(data)
        received.append(ReceivedFile(name, path, len(data), hashlib.sha256(data).hexdigest()))
    workdir = place / "work"
    workdir.mkdir()
    return inspect_bundle(
        received, model_name="m", workdir=workdir, policy=InspectionPolicy(), on_check=lambda check: None
    )


def checks_of(inspection: Inspection) -> Mapping[str, Check]:
    return {check.name: check for check in inspection.report.checks}


def test_own_code_waits_for_a_person_with_what_there_is_to_know(tmp_path: Path) -> None:
    source = DOUBLE + "\nimport os, torch\nos.system('true')\neval('1')\n"
    inspection = inspect(tmp_path, source, files={"weights.npy": b"\x93NUMPY" + bytes(64)})
    found = checks_of(inspection)
    assert inspection.report.verdict is Verdict.NEEDS_REVIEW
    assert found["code.source"].evidence["imports_installed"] == ["numpy", "torch"]
    assert found["code.source"].evidence["imports_standard"] == ["os"]
    calls = found["code.review"].evidence["notable_calls"]
    assert [call.split()[1] for call in calls] == ["os.system", "eval"]
    assert found["code.lock"].outcome is Outcome.PASSED
    assert found["weights.structure"].evidence["files"]["predict.py"] == len(source)
    assert inspection.package_dir is not None
    package = read_package(inspection.package_dir)
    assert (package.runtime, package.isolation, package.entry) == ("python_code", Isolation.PROCESS, "predict.py")
    assert set(package.files) == {"predict.py", "requirements.lock", "config.json", "weights.npy"}
    assert package.contract.max_batch_size == 1


def test_the_audit_does_not_run_the_code(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    inspection = inspect(tmp_path, f"open({str(canary)!r}, 'w')\n{DOUBLE}")
    assert inspection.report.verdict is Verdict.NEEDS_REVIEW
    assert not canary.exists()


def test_packages_without_digest_are_named(tmp_path: Path) -> None:
    lock = checks_of(inspect(tmp_path, lock=f"{HASHED}six==1.16.0\n"))["code.lock"]
    assert lock.outcome is Outcome.NEEDS_REVIEW
    assert lock.evidence["without_digest"] == ["six==1.16.0"]


def test_a_contract_that_is_missing_is_asked_for_with_what_to_add(tmp_path: Path) -> None:
    refusal = inspect(tmp_path, config={"inputs": CONFIG["inputs"]}).report.refusal
    assert refusal is not None
    assert refusal.code == "bundle_mismatch"
    assert "outputs is missing" in refusal.detail
    assert '"outputs": [{"name"' in refusal.hint


def test_rows_of_callers_are_joined_only_on_the_author_s_word(tmp_path: Path) -> None:
    inspection = inspect(tmp_path, config={**CONFIG, "batching": {"max_size": 32}})
    assert inspection.package_dir is not None
    assert read_package(inspection.package_dir).contract.max_batch_size == 32
    assert "up to 32 rows of different callers" in checks_of(inspection)["code.review"].hint


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("def load(path): pass\n", "bundle_mismatch", "the function predict is missing"),
        ("def load(path): pass\nasync def predict(x): pass\n", "bundle_mismatch", "predict is a coroutine"),
        ("def load(): pass\ndef predict(x): pass\n", "bundle_mismatch", "load must be callable with one argument"),
        ("def load(p): pass\ndef predict(a, b): pass\n", "bundle_mismatch", "predict must be callable"),
        ("def load(p:\n", "type_not_allowed", "is not Python"),
        ("x = '\x00'\n", "type_not_allowed", "zero bytes"),
        ("x = " + "-" * 100_000 + "1\n", None, ""),
        ("x = " + "(" * 100_000 + "\n", None, ""),
        ("x = " + "a." * 60_000 + "a\n", None, ""),
    ],
)
def test_sources_that_cannot_be_served_are_refused(tmp_path: Path, source: str, code: str | None, words: str) -> None:
    inspection = inspect(tmp_path, source)
    assert inspection.report.verdict is Verdict.REFUSED
    assert inspection.report.refusal is not None
    assert code in (None, inspection.report.refusal.code)
    assert words in inspection.report.refusal.detail


def test_a_frame_needs_one_column_an_input(tmp_path: Path) -> None:
    refusal = inspect(tmp_path, config={**CONFIG, "inputs_as": "frame"}).report.refusal
    assert refusal is not None
    assert "not one column" in refusal.detail


def test_an_example_asks_the_inputs_of_the_contract(tmp_path: Path) -> None:
    example = {"inputs": [{"name": "z", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    refusal = inspect(tmp_path, config={**CONFIG, "example": example}).report.refusal
    assert refusal is not None
    assert refusal.code == "bundle_mismatch"
    assert "example asks 'z'" in refusal.detail


def test_a_lock_file_is_read_as_pip_and_uv_write_it() -> None:
    text = f"""# made by a tool
numpy==2.0.0 \\
    --hash=sha256:{DIGEST} \\
    --hash=sha256:{"1" * 64}
    # via pandas
Ruamel.yaml[jinja2]==0.18.6 ; python_version >= "3.9" and sys_platform == 'linux'
torch==2.1.0+cpu
"""
    numpy, yaml, torch = read_lock(text)
    assert (numpy.version, len(numpy.hashes)) == ("2.0.0", 2)
    assert yaml.marker == "python_version >= \"3.9\" and sys_platform == 'linux'"
    assert (yaml.extras, torch.version) == ("[jinja2]", "2.1.0+cpu")
    assert read_lock("".join(f"{pin.line}\n" for pin in (numpy, yaml, torch))) == (numpy, yaml, torch)


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "-r other.txt",
        "-e .",
        "numpy @ https://example.org/numpy.whl",
        "git+https://example.org/x.git",
        "./numpy-2.0.0.whl",
        "numpy-2.0.0-py3-none-any.whl",
        "numpy==2.0.0 --config-settings x=y",
        "/etc/passwd",
    ],
)
def test_a_lock_file_names_no_place_and_no_option(line: str) -> None:
    with pytest.raises(ConfigUnsafe):
        read_lock(line)


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "numpy==2.*", "numpy===2.0.0", "nümpy==1", "numpy==1\nNumPy==2"])
def test_a_lock_file_holds_one_exact_version_of_each(line: str) -> None:
    with pytest.raises(ConfigInvalid):
        read_lock(line)
