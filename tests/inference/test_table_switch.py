"""Tables from the control plane: a switch drops nothing, an old one is never taken, serving needs no control plane."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Self

import pytest

from modelyard.domain.access import KeyRecord, Scope, Verb, key_id, key_mac, make_key
from modelyard.domain.routing import RoutingTable, ServerReport
from modelyard.foundation.documents import from_json, to_json
from modelyard.foundation.http import Reply, Request, new_event_loop, serve


class Control:
    """What the control plane offers to model servers, from a thread of its own: the newest table, and an ear."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reports: list[ServerReport] = []
        self._table: RoutingTable | None = None
        self._waiting: list[tuple[int, Reply]] = []
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._up = threading.Event()
        self._down: asyncio.Event

    def __enter__(self) -> Self:
        self._thread.start()
        self._up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._down.set)
            self._thread.join()

    def publish(self, table: RoutingTable) -> None:
        self._loop.call_soon_threadsafe(self._publish, table)

    def _publish(self, table: RoutingTable) -> None:
        self._table = table
        waiting, self._waiting = self._waiting, []
        for after, reply in waiting:
            self._offer(after, reply)

    def handle(self, request: Request, reply: Reply) -> None:
        if request.path == "/internal/v1/table":
            self._offer(int(request.query.split("&")[0].removeprefix("after=")), reply)
        else:
            self.reports.append(from_json(request.body, ServerReport))
            reply.send(204)

    def _offer(self, after: int, reply: Reply) -> None:
        if self._table is not None and self._table.revision != after:
            reply.send(200, to_json(self._table))
        else:
            self._waiting.append((after, reply))

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._down = asyncio.Event()
        listener = await serve(self, unix_path=self.path)
        self._up.set()
        await self._down.wait()
        await listener.close(0.1)
        for _ in range(5):  # the aborted connections' last callbacks
            await asyncio.sleep(0)

    def last(self) -> ServerReport:
        return self.reports[-1]


@pytest.fixture
def control(tmp_path: Path):
    with Control(tmp_path / "control.sock") as running:
        yield running


def source(control: Control, tmp_path: Path) -> dict:
    return {"control_socket": str(control.path), "cache": str(tmp_path / "cache" / "table.json")}


def test_a_new_revision_takes_over_under_load_without_one_failure(packages, servers, kit, control, tmp_path) -> None:
    models = [packages.linear("even"), packages.linear("odd")]
    server = servers.start(table=source(control, tmp_path))
    live = kit.backend(models[0], version="0", revision=1)
    control.publish(kit.table(kit.service("m", live), revision=1))
    kit.until(lambda: control.reports and control.last().table_revision == 1)
    body = json.dumps(kit.question([1.0, 2.0, 3.0])).encode()
    with kit.Traffic(server.port, "/v2/models/m/infer", body, right=lambda answer: b"[1.0,2.0]" in answer) as traffic:
        for step in range(1, 7):
            number = 2 * step
            shape = {"version": str(step), "revision": step + 1}
            coming = kit.backend(models[step % 2], weight=0, **shape)
            control.publish(kit.table(kit.service("m", live, coming), revision=number))
            kit.until(lambda number=number: control.last().table_revision == number)
            states = {each.version: each.state for each in control.last().backends if each.state != "unloaded"}
            assert states[str(step)] == "ready"
            traffic.more(20)
            assert traffic.versions[-1] == str(step - 1), "a backend of weight 0 gets no traffic"
            live = kit.backend(models[step % 2], **shape)
            control.publish(kit.table(kit.service("m", live), revision=number + 1))
            kit.until(lambda number=number: control.last().table_revision == number + 1)
            traffic.more(20)
            assert traffic.versions[-1] == str(step)
    assert traffic.wrong == []
    assert server.figures()['modelyard_inputs_in_flight{project="default",service="m"}'] == 0


def test_traffic_waits_with_the_old_revision_until_the_new_one_is_loaded(
    packages, servers, kit, control, tmp_path
) -> None:
    old = packages.linear("old")
    broken = packages.linear("broken")
    (broken / "model.onnx").write_bytes(b"nothing")
    server = servers.start(table=source(control, tmp_path))
    control.publish(kit.table(kit.service("m", kit.backend(old, version="1")), revision=1))
    kit.until(lambda: control.reports and control.last().table_revision == 1)
    control.publish(kit.table(kit.service("m", kit.backend(broken, version="2", revision=2)), revision=2))
    kit.until(lambda: control.last().table_revision == 2)
    states = {b.version: (b.state, bool(b.reason)) for b in control.last().backends}
    assert states == {"1": ("ready", False), "2": ("failed", True)}
    with server.client() as client:
        assert client.post("/v2/models/m/infer", json=kit.question()).headers["x-model-version"] == "1"


def test_the_memory_of_a_version_is_shown_as_long_as_any_revision_holds_it(
    packages, servers, kit, control, tmp_path
) -> None:
    model = packages.linear("m")
    server = servers.start(table=source(control, tmp_path))
    figure = 'modelyard_model_memory_bytes{project="default",service="m",model="m",version="1"}'

    def publish(number: int, *revisions: int) -> float:
        control.publish(
            kit.table(kit.service("m", *(kit.backend(model, revision=each) for each in revisions)), revision=number)
        )
        kit.until(lambda: control.reports and control.last().table_revision == number)
        kit.until(
            lambda: {each.revision for each in control.last().backends if each.state == "ready"} == set(revisions)
        )
        return server.figures()[figure]

    taken = publish(1, 1)
    assert taken > 0
    assert publish(2, 1, 2) == taken
    assert publish(3, 2) == taken
    with server.client() as client:
        control.publish(kit.table(revision=4))
        kit.until(lambda: server.figures()[figure] == 0)
        assert client.get("/v2/models").json()["models"] == []


def test_shares_follow_the_weights(packages, servers, kit) -> None:
    first, second = packages.linear("first"), packages.linear("second")
    server = servers.start(
        kit.table(
            kit.service(
                "m", kit.backend(first, version="1", weight=90), kit.backend(second, version="2", weight=10, revision=2)
            )
        )
    )
    with server.client() as client:
        versions = [
            client.post("/v2/models/m/infer", json=kit.question()).headers["x-model-version"] for _ in range(50)
        ]
        assert versions.count("2") == 5
        pinned = client.post("/v2/models/m/versions/2/infer", json=kit.question())
        assert pinned.headers["x-model-version"] == "2"


def test_an_older_table_is_never_taken(packages, servers, kit, control, tmp_path) -> None:
    model = packages.linear("m1")
    server = servers.start(table=source(control, tmp_path))
    control.publish(kit.table(kit.service("new", kit.backend(model)), revision=5))
    kit.until(lambda: control.reports and control.last().table_revision == 5)
    control.publish(kit.table(kit.service("old", kit.backend(model)), revision=4))
    with server.client() as client:
        assert client.get("/v2/models").json() == {"models": ["new"]}
        control.publish(kit.table(kit.service("newer", kit.backend(model)), revision=6))
        kit.until(lambda: client.get("/v2/models").json() == {"models": ["newer"]})
    assert 4 not in {report.table_revision for report in control.reports}


def test_serving_goes_on_and_starts_again_without_the_control_plane(packages, servers, kit, control, tmp_path) -> None:
    model = packages.linear("m1")
    config = {"table": source(control, tmp_path)}
    server = servers.start(**config)
    control.publish(kit.table(kit.service("m1", kit.backend(model)), revision=1))
    kit.until(lambda: control.reports and control.last().table_revision == 1)
    control.__exit__()
    with server.client() as client:
        assert client.post("/v2/models/m1/infer", json=kit.question()).status_code == 200
    server.kill()
    again = servers.start(**config)
    with again.client() as client:
        assert client.post("/v2/models/m1/infer", json=kit.question()).status_code == 200


def test_a_revoked_key_ends_with_the_table_that_lacks_it(packages, servers, kit, control, tmp_path, pepper) -> None:
    key, other = make_key(), make_key()
    records = [
        KeyRecord(
            id=key_id(each) or "",
            mac=key_mac(each, pepper=bytes.fromhex("ab" * 32)),
            name="k",
            scopes=(Scope(Verb.INFER),),
        )
        for each in (key, other)
    ]
    model = packages.linear("m1")
    server = servers.start(table=source(control, tmp_path), pepper=str(pepper))
    control.publish(kit.table(kit.service("m1", kit.backend(model)), revision=1, keys=tuple(records)))
    kit.until(lambda: control.reports and control.last().table_revision == 1)
    with server.client(headers={"Authorization": f"Bearer {key}"}) as client:
        assert client.post("/v2/models/m1/infer", json=kit.question()).status_code == 200
        control.publish(kit.table(kit.service("m1", kit.backend(model)), revision=2, keys=tuple(records[1:])))
        kit.until(lambda: client.post("/v2/models/m1/infer", json=kit.question()).status_code == 401)
