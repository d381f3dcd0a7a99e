"""Bundles as a stranger would send them, and the inspection over them."""

import hashlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.domain.report import Check
from modelyard.inspection import Inspection, InspectionPolicy, ReceivedFile, inspect_bundle

CORPUS = Path(__file__).parents[1] / "corpora" / "bad_uploads.yaml"


def receive(directory: Path, files: Mapping[str, bytes]) -> list[ReceivedFile]:
    """Write `files` under names of our own, as the upload centre does."""
    directory.mkdir(exist_ok=True)
    found = []
    for index, (name, data) in enumerate(files.items()):
        path = directory / f"part{index}"
        path.write_bytes(data)
        found.append(ReceivedFile(name, path, len(data), hashlib.sha256(data).hexdigest()))
    return found


@pytest.fixture
def inspect(tmp_path: Path) -> Callable[..., Inspection]:
    """`inspect({name: bytes}, **policy)`; the checks that were heard are those of the report."""

    def run(
        files: Mapping[str, bytes],
        *,
        labels: Path | None = None,
        config: Path | None = None,
        **policy: Any,
    ) -> Inspection:
        work = tmp_path / f"work{sum(1 for _ in tmp_path.iterdir())}"
        work.mkdir()
        heard: list[Check] = []
        done = inspect_bundle(
            receive(tmp_path / "incoming", files),
            model_name="m",
            workdir=work,
            policy=InspectionPolicy(**policy),
            on_check=heard.append,
            labels=labels,
            config=config,
        )
        assert tuple(heard) == done.report.checks
        return done

    return run


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """`corpus(expression)` evaluates in the corpus's own prelude; its canaries point at `tmp_path/canary`."""
    canary = tmp_path / "canary"
    canary.mkdir()
    monkeypatch.setenv("CANARY_DIR", str(canary))
    names: dict[str, Any] = {}
    exec(yaml.safe_load(CORPUS.read_text())["prelude"], names)

    def build(expression: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the overlap case writes a name twice on purpose
            return eval(expression, names)

    return build
