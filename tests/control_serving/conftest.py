"""Control planes for the tests of this folder."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from control_driver import Control
from serving_driver import Serving, serving_in


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    running = Control(tmp_path / "data").start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def shared_control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    running = Control(tmp_path_factory.mktemp("control") / "data").start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving_in(tmp_path_factory.mktemp("serving")) as running:
        yield running
