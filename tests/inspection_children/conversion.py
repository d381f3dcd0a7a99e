"""Convert and probe in this process: what the child programs do behind their walls, without their start."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib

from modelyard.domain.contract import ModelFormat, ServingPackage
from modelyard.domain.errors.uploads import UploadRefused
from modelyard.domain.report import Check, Outcome
from modelyard.foundation.documents import from_plain, write_package
from modelyard.inspection.children import convert
from modelyard.inspection.children.packaging import Work
from modelyard.inspection.children.program import Request


@dataclass
class Recorder:
    """A channel that keeps what is said."""

    checks: list[Check] = field(default_factory=list)
    result: Mapping[str, Any] | None = None

    def check(self, check: Check) -> None:
        self.checks.append(check)

    def done(self, result: Mapping[str, Any]) -> None:
        self.result = result

    def named(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    def outcomes(self) -> set[Outcome]:
        return {check.outcome for check in self.checks}


@dataclass
class Converted:
    """A package, where it lies, and what was said on the way."""

    package: ServingPackage
    directory: Path
    said: Recorder


def convert_file(path: Path, kind: ModelFormat, out: Path, **body: Any) -> Converted:
    """The package made of one file; raises the refusal."""
    out.mkdir(exist_ok=True)
    said = Recorder()
    request = {
        "directory": str(path.parent),
        "out": str(out),
        "name": "model",
        "format": kind.value,
        "weights": path.name,
        "config": {},
        "labels": [],
        "sample": None,
        **body,
    }
    convert.work(Request(body=request, read=(), write=()), said)  # type: ignore[arg-type]
    assert said.result is not None
    package = from_plain(said.result["package"], ServingPackage)
    write_package(out, package)
    return Converted(package, out, said)


def convert_estimator(estimator: object, place: Path, **body: Any) -> Converted:
    """The package made of a fitted estimator, saved as a stranger would."""
    place.mkdir(exist_ok=True)
    path = place / "model.joblib"
    joblib.dump(estimator, path)
    return convert_file(path, ModelFormat.SKLEARN, place / "out", **body)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


__all__ = ["Converted", "Recorder", "UploadRefused", "Work", "convert_estimator", "convert_file", "sha256"]
