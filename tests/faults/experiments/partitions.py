"""Partitions: a worker that cannot be reached, in both directions or one, and a node that stands still.

Workers listen on Unix sockets, which no network namespace cuts off; so the path of a worker's socket is taken over by a
relay, which a partition stops: what is sent meanwhile is held, as TCP would repeat it, and no connection is closed.
"""

import asyncio
import multiprocessing
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil
from tests.faults.experiment import Run, experiment
from tests.faults.stand import Service, Stand, within

_EJECTED_S = 6.0
_SOME_ANSWERS = 5000
"""Bytes through the relay that signs of life alone do not make in seconds."""


class Relay:
    """Stands where a worker's socket was, in a process of its own, and hands on to it unless `cut`."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._real = socket.with_suffix(".real")
        spawn = multiprocessing.get_context("spawn")
        self.requests_cut = spawn.Event()
        self.answers_cut = spawn.Event()
        self._passed = spawn.Value("q", 0)
        self._ready = spawn.Event()
        shared = (self.requests_cut, self.answers_cut, self._passed, self._ready)
        self._process = spawn.Process(target=_relay, args=(str(self.socket), str(self._real), *shared), daemon=True)

    @property
    def passed(self) -> int:
        """Bytes that went through, in both directions."""
        return int(self._passed.value)

    def __enter__(self) -> Self:
        self.socket.rename(self._real)
        self._process.start()
        if not self._ready.wait(30):
            raise AssertionError("the relay does not listen")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join(10)
        if self._real.exists():
            self._real.rename(self.socket)

    def cut(self, *, requests: bool, answers: bool) -> None:
        """Part the two sides in these directions."""
        for wanted, event in ((requests, self.requests_cut), (answers, self.answers_cut)):
            event.set() if wanted else event.clear()


def _relay(socket: str, real: str, requests_cut: Any, answers_cut: Any, passed: Any, ready: Any) -> None:
    """The relay's process."""

    async def hand_on(source: asyncio.StreamReader, to: asyncio.StreamWriter, cut: Any) -> None:
        while data := await source.read(1 << 16):
            while cut.is_set():  # noqa: ASYNC110  (set from another process)
                await asyncio.sleep(0.01)
            passed.value += len(data)
            to.write(data)
            with suppress(ConnectionError):
                await to.drain()
        to.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(real)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(hand_on(reader, back, requests_cut))
                both.create_task(hand_on(there, writer, answers_cut))
        except* OSError:
            pass
        finally:
            back.close()
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_unix_server(carry, socket)
        ready.set()
        async with server:
            await server.serve_forever()

    asyncio.run(serve())


def _sockets(service: Service) -> list[Path]:
    """Where its workers listen."""
    names = service.stand.control("GET", f"/services/{service.name}").json()["workers"]
    return [service.stand.platform.places.workers / name for name in names]


def _partition(run: Run, name: str, *, requests: bool, answers: bool) -> None:
    stand = run.stands.fresh("--servers", "1")
    run.cleanup.callback(run.stands.discard, stand)
    service = stand.linear(name, isolation="process", replicas=2)
    relay = run.cleanup.enter_context(Relay(run.chance.choice(_sockets(service))))
    _through(stand, service, relay)
    with run.load(service, rate=min(run.scale.rate, 150.0)) as load:
        run.steady(load)
        before, asked, pids = _aside(service), relay.passed, service.worker_pids()
        run.check("bytes to the worker before", asked, at_least=1)
        run.inject("the link is cut", lambda: relay.cut(requests=requests, answers=answers))
        noticed = within(lambda: _aside(service) > before, limit_s=40.0)
        load.wait_s(run.scale.fault_s if run.scale.short else 30.0)
        passed = relay.passed
        run.inject("the link is whole", lambda: relay.cut(requests=False, answers=False))
        back = within(lambda: relay.passed > passed + _SOME_ANSWERS or _replaced(service, pids), limit_s=40.0)
        run.after(load)
    run.check_no_failures(load)
    run.check("set aside", noticed, at_most=30.0 if run.scale.short else _EJECTED_S, unit="s")
    run.check("two workers that can be reached again", back, at_most=30.0 if run.scale.short else 5.0, unit="s")
    run.check("longest wait of a request", load.ledger.quantile(1.0), at_most=10.0, unit="s")


def _through(stand: Stand, service: Service, relay: Relay) -> None:
    """The model server connects anew, through the relay."""
    victim = stand.platform.pid_of("model-server-0")
    os.kill(victim, signal.SIGTERM)
    within(lambda: stand.platform.pid_of("model-server-0") != victim, limit_s=60.0)
    stand.wait_ready()

    def passes() -> bool:
        service.ask(1.0)
        return relay.passed > 0

    within(passes, limit_s=30.0)


def _replaced(service: Service, pids: list[int]) -> bool:
    """Whether two workers are there, not the same two as before."""
    now = service.worker_pids()
    return len(now) == 2 and now != pids


def _aside(service: Service) -> float:
    return service.total("modelyard_workers_set_aside_total")


@experiment(
    "N01",
    short=False,
    injection="a relay on the worker's Unix socket holds both directions for 30 s, and closes nothing",
)
def parted_worker(run: Run) -> None:
    """One of two workers is behind a link that carries nothing."""
    _partition(run, "parted", requests=True, answers=True)


@experiment("N02", short=False, injection="a relay on the worker's Unix socket holds the answers only, for 30 s")
def one_way(run: Run) -> None:
    """The worker hears everything, and nobody hears it."""
    _partition(run, "one-way", requests=False, answers=True)


@experiment("N03", short=False)
def lost_node(run: Run) -> None:
    """One of two nodes stands still with all its workers, and returns."""
    stand = run.stands.fresh("--nodes", "2", "--servers", "1")
    run.cleanup.callback(run.stands.discard, stand)
    service = stand.linear("spread", isolation="process", replicas=2)
    within(lambda: all(_ready_on(stand, node) == 1 for node in ("node-1", "node-2")), limit_s=60.0)
    agent = stand.platform.pid_of("node node-1")
    own = {process.pid for process in psutil.Process(agent).children(recursive=True)}
    with run.load(service, rate=min(run.scale.rate, 150.0)) as load:
        run.steady(load)
        run.cleanup.callback(_continue, agent)
        run.inject(f"SIGSTOP to node-1's group, {1 + len(own)} processes", lambda: os.killpg(agent, signal.SIGSTOP))
        moved = within(lambda: _ready_on(stand, "node-2") == 2, limit_s=90.0)
        load.wait_s(run.scale.fault_s if run.scale.short else max(0.0, 30.0 - moved))
        run.inject("SIGCONT", lambda: os.killpg(agent, signal.SIGCONT))
        back = within(lambda: _state(stand, "node-1") == "ready", limit_s=60.0)
        ended = within(lambda: _held_by(stand, "node-1") == 0, limit_s=90.0)
        run.after(load)
    run.check_no_failures(load)
    run.check("its worker ready elsewhere after", moved, at_most=30.0, unit="s")
    run.check("node ready again after", back, at_most=10.0, unit="s")
    held = _held_by(stand, "node-1") + _held_by(stand, "node-2")
    run.check("workers held by both nodes", held, at_least=2, at_most=2)
    run.check("the copy ended after", ended, at_most=30.0, unit="s")


def _state(stand: Stand, name: str) -> str:
    rows = stand.control("GET", "/nodes").json()["items"]
    return str(next(row["state"] for row in rows if row["name"] == name))


def _ready_on(stand: Stand, name: str) -> int:
    row = next(row for row in stand.control("GET", "/nodes").json()["items"] if row["name"] == name)
    return sum(worker["state"] == "ready" and not worker["moving_to"] for worker in row["workers"])


def _held_by(stand: Stand, name: str) -> int:
    row = next(row for row in stand.control("GET", "/nodes").json()["items"] if row["name"] == name)
    return len(row["workers"])


def _continue(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGCONT)
