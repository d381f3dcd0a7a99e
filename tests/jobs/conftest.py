"""Jobs on real records and real files, with a clock that the test moves."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from job_kit import Desk, need_service, no_model

from modelyard.control.api import open_parts
from modelyard.control.history import append
from modelyard.control.identity import LOCAL, create_project
from modelyard.control.jobs import Claims, JobFiles, JobKeeper, Jobs, ServiceKeys
from modelyard.foundation.clock import SetClock
from modelyard.foundation.places import Places
from modelyard.foundation.settings import JobSettings
from modelyard.integrations.artifact_stores.files import FileArtifactStore


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    clock, places = SetClock(), Places(tmp_path / "data")
    places.create()
    with open_parts(places, artifacts=FileArtifactStore(places.artifacts), clock=clock) as parts:
        settings = JobSettings(per_project=20)
        files = JobFiles(
            parts.database, FileArtifactStore(places.job_files), drafts=places.incoming, most_bytes=1 << 20
        )
        jobs = Jobs(parts.database, files, settings, find_model=no_model, need_service=need_service)
        keys = ServiceKeys(url=lambda project, name: f"http://x/{project}/{name}", pepper=parts.pepper)
        keeper = JobKeeper(parts.database, files, settings, places=places.jobs)
        with parts.database.begin() as tx:
            create_project(tx, LOCAL, name="other", description="", two_person_review=False, journal=append)
        drafts = tmp_path / "drafts"
        drafts.mkdir()
        yield Desk(parts, clock, jobs, Claims(parts.database, files, keys=keys), keeper, files, drafts)
