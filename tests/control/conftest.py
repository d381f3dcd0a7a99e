"""A control plane's core on real databases of both kinds, with a clock that the test moves and no socket."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from modelyard.control.api import create_app, open_parts
from modelyard.control.catalog import NewVersion, StoredFile, register_version
from modelyard.control.history import append
from modelyard.control.identity import LOCAL, Actor, NewKey, create_key
from modelyard.control.records import ControlParts
from modelyard.domain.access import parse_scope
from modelyard.domain.contract import ModelFormat, Task
from modelyard.domain.digests import bundle_digest
from modelyard.domain.report import AuditReport, Check, Outcome, Verdict
from modelyard.foundation.clock import SetClock
from modelyard.foundation.places import Places
from modelyard.foundation.settings import RecordSettings, Settings
from modelyard.integrations.artifact_stores.files import FileArtifactStore

ALICE = Actor(kind="key", id="alice000", name="alice")
Clients = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "data")


@pytest.fixture
def open_control(places: Places, clock: SetClock, records_url: str):
    settings = Settings(records=RecordSettings(url=records_url))

    def opened(*, auth_required: bool = False):
        places.create()
        store = FileArtifactStore(places.artifacts)
        return open_parts(places, artifacts=store, settings=settings, auth_required=auth_required, clock=clock)

    return opened


@pytest.fixture
def parts(open_control) -> Iterator[ControlParts]:
    with open_control() as opened:
        yield opened


@pytest.fixture
def guarded(open_control) -> Iterator[ControlParts]:
    """The same, with keys asked for."""
    with open_control(auth_required=True) as opened:
        yield opened


@asynccontextmanager
async def serve(parts: ControlParts, key: str | None = None, source: str = "127.0.0.1") -> AsyncIterator:
    app = create_app(parts)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    transport = httpx.ASGITransport(app=app, client=(source, 1), raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8700", headers=headers) as client,
    ):
        client.app = app  # type: ignore[attr-defined]
        yield client


@pytest.fixture
def serving() -> Clients:
    return serve


@pytest.fixture
def make_key():
    def make(parts: ControlParts, *scopes: str, project: str | None = None, days: float | None = 90) -> str:
        new = NewKey(
            name="test " + ",".join(scopes),
            scopes=tuple(parse_scope(scope) for scope in scopes),
            lifetime=None if days is None else timedelta(days=days),
            project=project,
        )
        with parts.database.begin() as tx:
            return create_key(tx, LOCAL, new, pepper=parts.pepper, journal=append)[1]

    return make


@pytest.fixture
def add_version(tmp_path: Path):
    """Register a version as intake does: bytes in the store first, then the records."""

    def add(
        parts: ControlParts,
        model: str = "digits",
        *,
        project: str = "default",
        content: bytes = b"weights",
        verdict: Verdict = Verdict.APPROVED,
        version: str | None = None,
        author: Actor = ALICE,
        **more,
    ):
        import hashlib

        sha256 = hashlib.sha256(content).hexdigest()
        source = tmp_path / sha256
        source.write_bytes(content)
        parts.artifacts.put(source, sha256)
        digest = bundle_digest({"model.onnx": sha256})
        package = parts.places.packages / digest.removeprefix("sha256:")
        package.mkdir(exist_ok=True)
        outcome = Outcome.PASSED if verdict is Verdict.APPROVED else Outcome.NEEDS_REVIEW
        new = NewVersion(
            project=project,
            model=model,
            digest=digest,
            format=ModelFormat.ONNX,
            task=more.pop("task", Task.CLASSIFICATION),
            audit=AuditReport(verdict=verdict, checks=(Check(name="type", outcome=outcome, summary="it is ONNX"),)),
            files={"model.onnx": StoredFile(sha256=sha256, size_bytes=len(content))},
            author=author,
            version=version,
            **more,
        )
        with parts.database.begin() as tx:
            return register_version(tx, new)

    return add
