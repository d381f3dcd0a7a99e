"""Packages as the audit makes them, for tests that begin where an upload has been approved."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

from modelyard.inspection import InspectionPolicy, ReceivedFile, inspect_bundle


def audited(place: Path, files: Mapping[str, bytes], *, name: str = "m") -> Path:
    """The directory of the package that the inspection makes of a bundle; refused bundles are an `AssertionError`."""
    incoming, work = place / "incoming", place / "work"
    received = []
    for each in (incoming, work):
        each.mkdir(parents=True)
    for file, data in files.items():
        (incoming / file).write_bytes(data)
        received.append(ReceivedFile(file, incoming / file, len(data), hashlib.sha256(data).hexdigest()))
    done = inspect_bundle(received, model_name=name, workdir=work, policy=InspectionPolicy(), on_check=lambda _: None)
    assert done.package_dir is not None, done.report.refusal
    return done.package_dir


def given_model(place: Path, model: object, *, name: str = "model") -> Path:
    """A fitted scikit-learn model as a job is given a version of it: a directory with its `package`."""
    import joblib

    stream = io.BytesIO()
    joblib.dump(model, stream)
    package = audited(place / "audit", {f"{name}.joblib": stream.getvalue()}, name=name)
    given = place / "given"
    given.mkdir()
    (given / "package").symlink_to(package)
    return given
