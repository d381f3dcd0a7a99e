"""What the journeys share: builders importable by name, and one platform that asks for keys."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from guarded import Guarded, bootstrap, corpus_models

from modelyard.testing.platform import running_platform


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A platform that asks for keys, with two model servers and the corpus's models; tests leave it serving."""
    place = tmp_path_factory.mktemp("guarded")
    with running_platform(place, "--auth", "required", "--servers", "2") as platform:
        guarded = Guarded(platform, bootstrap(platform))
        with guarded.client() as client:
            for model in corpus_models(place / "models"):
                client.upload(model, name=model.stem)
                client.deploy(model.stem)
        yield guarded
