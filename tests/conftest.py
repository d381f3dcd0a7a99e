"""What tests of several areas share: real models, made once a run by the libraries that users use."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """The example's bundle directory (model.joblib, labels.json, sample.csv) and held-out images."""
    sys.path.insert(0, str(ROOT / "examples" / "digits"))
    try:
        from train import train
    finally:
        sys.path.pop(0)
    place = tmp_path_factory.mktemp("digits")
    images, _, _ = train(place)
    return place, images


@pytest.fixture(scope="session")
def digits_bundle(digits: tuple[Path, np.ndarray]) -> Path:
    """The example's bundle directory."""
    return digits[0]


@pytest.fixture(scope="session")
def digits_images(digits: tuple[Path, np.ndarray]) -> np.ndarray:
    """Held-out images, one a row of 64."""
    return digits[1]


@pytest.fixture(scope="session")
def digits_platform(tmp_path_factory: pytest.TempPathFactory, digits_bundle: Path) -> Iterator["object"]:
    """A platform on which the digits are deployed; tests leave it serving."""
    from modelyard.testing.platform import running_platform

    with running_platform(tmp_path_factory.mktemp("platform")) as platform:
        with platform.client() as client:
            client.upload(digits_bundle, name="digits", alias="champion")
            client.deploy("digits")
        yield platform
