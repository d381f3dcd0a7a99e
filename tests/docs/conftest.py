"""The files that the documentation speaks of, made once a test run by the libraries that users use."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def documented_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits.joblib, labels.json, sample.csv, rows.csv (two held-out digits), the bundle digits/, and examples/."""
    sys.path.insert(0, str(ROOT / "examples" / "digits"))
    try:
        from train import train
    finally:
        sys.path.pop(0)
    place = tmp_path_factory.mktemp("documented")
    images, _, _ = train(place / "digits")
    for name, shown in (
        ("model.joblib", "digits.joblib"),
        ("labels.json", "labels.json"),
        ("sample.csv", "sample.csv"),
    ):
        (place / shown).write_bytes((place / "digits" / name).read_bytes())
    header = ",".join(f"pixel_{i}" for i in range(64))
    np.savetxt(place / "rows.csv", images[:2], delimiter=",", fmt="%g", header=header, comments="")
    shutil.copytree(ROOT / "examples", place / "examples", ignore=shutil.ignore_patterns("model", "__pycache__"))
    return place
