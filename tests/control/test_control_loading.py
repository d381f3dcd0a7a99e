"""What a model server hands on is checked with the caller's own key, and each change has one entry of its own."""

import asyncio
import json

import pytest
from sqlalchemy import select

from modelyard.control.deployments import Deployments
from modelyard.control.deployments.state import Status
from modelyard.control.deployments.store import add_revision, create, find
from modelyard.control.history.tables import history as entries
from modelyard.control.identity import Authenticator
from modelyard.control.nodes import Board
from modelyard.control.traffic import InternalApp, ServingChanges
from modelyard.control.traffic.server_logs import log_settings
from modelyard.domain.access import key_id
from modelyard.domain.routing import BackendStatus, LogSettings, ServerReport
from modelyard.domain.service import Phase, ServiceSpec

SPEC = ServiceSpec(name="m1", model="m", version="1", digest="sha256:" + "a" * 64)


@pytest.fixture
def deployments(guarded, tmp_path):
    made = Deployments(guarded.database, publish=lambda tx: 5, packages=tmp_path, targets=("local",))
    with guarded.database.begin() as tx:
        revision = add_revision(tx, SPEC, actor="ann", why="")
        status = Status(goal=revision.number, live=revision.number, phase=Phase.SERVING)
        create(tx, "default", "m1", status, publish=made.publish)
    return made


@pytest.fixture
def ask(guarded, deployments, clock):
    """POST to the application that model servers reach; status and document."""
    board = Board(clock)
    board.take(report("unloaded", table=5))
    authenticator = Authenticator(guarded.database, pepper=guarded.pepper, settings=guarded.settings.keys)
    changes = ServingChanges(deployments, board, lambda: authenticator, patience_s=0.2)
    app = InternalApp(None, board, None, changes)

    def post(path: str, **body):
        return asyncio.run(_post(app, path, json.dumps(body).encode()))

    return post


def report(state: str, *, table: int) -> ServerReport:
    backend = BackendStatus(
        project="default", service="m1", version="1", digest=SPEC.digest, revision=1, state=state, reason="no memory"
    )
    return ServerReport(server="a", pid=1, started_at=0.0, table_revision=table, backends=(backend,))


async def _post(app: InternalApp, path: str, body: bytes):
    sent = []

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": path, "query_string": b""}, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"] or b"{}")


def actions(parts) -> list[tuple[str, str]]:
    with parts.database.read() as tx:
        rows = tx.execute(select(entries.c.action, entries.c.actor_id)).all()
    return [(action, actor) for action, actor in rows if "load" in action or "logging" in action]


UNLOAD, LOAD = (f"/internal/v1/services/default/m1/{verb}" for verb in ("unload", "load"))


def test_only_a_key_that_may_deploy_it_unloads_it(ask, guarded, make_key) -> None:
    assert ask(UNLOAD)[1]["code"] == "auth_required"
    assert ask(UNLOAD, key="mdy_live_wrong")[1]["code"] == "auth_required"
    assert ask(UNLOAD, key=make_key(guarded, "infer"))[1]["code"] == "forbidden"
    assert ask(UNLOAD, key=make_key(guarded, "deploy:default/other"))[1]["code"] == "not_found"
    assert actions(guarded) == []
    made = make_key(guarded, "deploy:default/m1")
    assert ask(UNLOAD, key=made) == (200, {"table": 5})
    with guarded.database.read() as tx:
        assert find(tx, "default", "m1").service.status.unloaded
    assert ask(UNLOAD, key=made) == (200, {"table": 5})
    assert actions(guarded) == [("service.unloaded", key_id(made))]


def test_a_load_that_no_server_carries_out_is_said_to_be_so(ask, guarded, make_key) -> None:
    key = make_key(guarded, "deploy")
    assert ask(UNLOAD, key=key)[0] == 200
    status, document = ask(LOAD, key=key)
    assert (status, document["code"]) == (409, "unavailable")
    assert [action for action, _ in actions(guarded)] == ["service.unloaded", "service.loaded"]


def test_what_is_logged_is_set_by_a_key_that_deploys_everywhere(ask, guarded, make_key) -> None:
    wish = {"log_info": False, "log_verbose_level": 2}
    narrow = make_key(guarded, "deploy:default")
    assert ask("/internal/v1/logging", key=narrow, logging=wish)[1]["code"] == "forbidden"
    everywhere = make_key(guarded, "deploy")
    assert ask("/internal/v1/logging", key=everywhere, logging=wish) == (200, {"table": 5})
    assert ask("/internal/v1/logging", key=everywhere, logging=wish) == (200, {"table": 5})
    with guarded.database.read() as tx:
        assert log_settings(tx) == LogSettings(log_info=False, log_verbose_level=2)
    assert [action for action, _ in actions(guarded)] == ["logging.changed"]


def test_what_is_no_change_is_refused(ask) -> None:
    assert ask("/internal/v1/logging", other=1)[0] == 400
    assert ask("/internal/v1/services/default/m1/reload")[0] == 404
