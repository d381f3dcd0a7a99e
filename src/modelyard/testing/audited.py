"""Packages as the audit makes them, for tests that begin where an upload has been approved."""

import hashlib
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
