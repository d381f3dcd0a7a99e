"""Control planes for the tests of this folder."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from control_driver import Control
from serving_driver import Serving, serving_in


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def records(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The environment that names the records' database: these tests run on each of the two."""
    if request.param == "sqlite":
        yield {}
        return
    server = request.getfixturevalue("postgres_server")
    url = server.make(request.getfixturevalue("migrated_postgres"))
    yield {"MODELYARD_RECORDS_URL": url}
    server.drop(url)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    running = Control(tmp_path / "data").start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def shared_control(tmp_path_factory: pytest.TempPathFactory, records: dict[str, str]) -> Iterator[Control]:
    running = Control(tmp_path_factory.mktemp("control") / "data", environment=records).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, records: dict[str, str]) -> Iterator[Serving]:
    with serving_in(tmp_path_factory.mktemp("serving"), environment=records) as running:
        yield running
