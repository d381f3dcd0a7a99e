"""Routing tables that are none: refused whole, by the name of the field, while the last good one goes on."""

import asyncio
import json
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx
from tests.faults.experiment import Run, experiment
from tests.faults.load import Load, Question, right_answers
from tests.faults.models import question
from tests.faults.stand import within

from modelyard.domain.routing import Backend, RoutingTable, ServiceRoute
from modelyard.foundation.documents import to_json


@experiment("C07")
def bad_tables(run: Run) -> None:
    """A model server is offered tables that are none; it goes on with the last good one, and says what is wrong."""
    stand = run.stand()
    service = stand.linear("beside")
    package = stand.platform.places.packages / service.digest.removeprefix("sha256:")
    backend = Backend(model="m1", version="1", digest=service.digest, package=str(package), revision=1)
    good = RoutingTable(revision=5, services=(ServiceRoute(name="m1", revision=1, backends=(backend,)),))
    bad = {
        "table": b"{bad",
        "services[0].backends[0].package": _changed(good, 6, str(package), ""),
        "services[0].matches[0].revision": _changed(good, 7, '"matches":[]', '"matches":[{"revision":99}]'),
        "services[0].limits.deadline_ms": _changed(good, 8, '"deadline_ms":null', '"deadline_ms":"soon"'),
    }
    place = stand.directory / f"lone-server-{run.seed}-{len(run.events)}"
    place.mkdir()
    with FakeControl(place / "control.sock") as control, lone_server(place, control) as url:
        control.offer(to_json(good))
        path = "/v2/models/m1/infer"
        within(lambda: httpx.get(url + "/v2/models/m1/ready", trust_env=False).status_code == 200, limit_s=60.0)
        asked = right_answers(url, [Question(path, question(float(value))) for value in range(1, 9)])
        kept = (place / "kept.table").read_bytes()
        named = 0
        with Load(url, asked, run.scale.rate, 10.0, run.seed) as load:
            run.steady(load)
            for field, data in bad.items():
                run.inject(f"offer a table with a bad {field}", lambda data=data: control.offer(data))
                within(lambda field=field: f"{field}: " in control.refusal, limit_s=20.0)
                named += f"{field}: " in control.refusal
            control.offer(_changed(good, 2, "", ""))
            run.note("offer an older table")
            run.after(load)
        run.check("tables on disk that changed", float(kept != (place / "kept.table").read_bytes()), at_most=0)
        run.check("table in effect", control.revision, at_least=5, at_most=5)
    run.check("refusals that name the field", named, at_least=len(bad))
    run.check_no_failures(load)


def _changed(table: RoutingTable, revision: int, before: str, after: str) -> bytes:
    text = to_json(table).decode()
    assert before in text
    changed = text.replace(before, after, 1) if before else text
    return changed.replace('"revision":5', f'"revision":{revision}', 1).encode()


class FakeControl:
    """The control plane's end of the internal socket, saying what an experiment wants it to say."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.refusal = ""
        self.revision = -1
        self._table = b""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def offer(self, data: bytes) -> None:
        """What whoever asks for a table is given from now on."""
        self._table = data

    async def _listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._answer, str(self.socket))

    async def _end(self) -> None:
        self._server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = next(
            (int(line.split(":")[1]) for line in head.lower().split("\r\n") if line.startswith("content-length")), 0
        )
        body = await reader.readexactly(size)
        if head.startswith("POST"):
            report = json.loads(body)
            self.refusal, self.revision = report.get("table_refused", ""), report["table_revision"]
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            after = int(head.split("after=")[1].split("&")[0].split(" ")[0])
            if self._table and f'"revision":{after},'.encode() not in self._table[:40]:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self._table) + self._table)
            else:
                await asyncio.sleep(0.1)
                writer.write(b"HTTP/1.1 304 Not Modified\r\n\r\n")
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()


class lone_server:  # noqa: N801  (used as a function)
    """A model server without a platform, with `control` as its control plane."""

    def __init__(self, place: Path, control: FakeControl) -> None:
        self._place = place
        table = {"control_socket": str(control.socket), "cache": str(place / "kept.table")}
        config = {
            "id": "lone",
            "port": 0,
            "table": table,
            "metrics": str(place / "metrics"),
            "address_file": str(place / "address"),
        }
        (place / "config.json").write_text(json.dumps(config))

    def __enter__(self) -> str:
        command = [
            sys.executable,
            "-m",
            "modelyard.processes.model_server",
            "--config",
            str(self._place / "config.json"),
        ]
        with (self._place / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        address = self._place / "address"
        within(lambda: address.exists() or self._process.poll() is not None, limit_s=60.0)
        return "http://" + address.read_text().split()[0].removeprefix("http://")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
