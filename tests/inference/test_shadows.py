"""Copies of answered requests for a shadow: compared, counted, bounded, and never in anybody's way."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from modelyard.domain.contract import Isolation
from modelyard.domain.errors.inference import VersionNotFound
from modelyard.domain.routing import RoutingTable
from modelyard.domain.sketches import ShadowSketch
from modelyard.domain.tensors import DataType
from modelyard.foundation.metrics import Book
from modelyard.inference.admission import SharedLimits
from modelyard.inference.batching import Call
from modelyard.inference.routing import BoardOptions, Service, Switchboard
from modelyard.inference.routing.shadowing import MOST_REQUESTS


class Ask(Call):
    """A request that keeps its answer."""

    __slots__ = ("backend", "outputs")

    def __init__(self, service: Service, rows: np.ndarray) -> None:
        now = perf_counter()
        super().__init__({"x": rows}, len(rows), started=now, deadline=now + 30)
        self.backend = service.choose({})
        self.outputs: dict | None = None
        self.backend.batcher.submit(self)

    def succeed(self, outputs) -> None:
        self.outputs, self.ok = dict(outputs), True

    def fail(self, error) -> None:
        raise AssertionError(f"a shadow made a request fail: {error}")

    def drop(self) -> None:
        pass


@asynccontextmanager
async def board_of(tmp_path: Path, table: RoutingTable) -> AsyncIterator[Switchboard]:
    """A switchboard on which everything of `table` is ready."""
    board = Switchboard(
        BoardOptions(),
        book=Book.open(tmp_path / "figures", "server"),
        limits=SharedLimits(tmp_path / "limits"),
        pepper=b"pepper",
        on_change=lambda: None,
    )
    board.apply(table)
    async with asyncio.timeout(30):
        while board.acknowledged < table.revision:  # noqa: ASYNC110  (the board has no event for it)
            await asyncio.sleep(0.01)
    try:
        yield board
    finally:
        await board.close()


async def compared(board: Switchboard, requests: int) -> ShadowSketch:
    """The sketch of the shadow once that many requests are settled."""
    async with asyncio.timeout(30):
        while True:
            (sketch,) = board.shadows()
            if sketch.compared + sketch.failed + sketch.dropped >= requests:
                return sketch
            await asyncio.sleep(0.01)


ROWS = np.array([[1, 0, 0], [0, 1, 0]], dtype="f4")


@pytest.fixture
def shadowed(packages, kit):
    """A table with a service and its shadow."""

    def make(live: Path, shadow: Path, *, percent: int = 100, **more) -> RoutingTable:
        return kit.table(
            kit.service(
                "sorter",
                kit.backend(live, revision=1, version="1"),
                kit.backend(shadow, revision=1, version="2", weight=0, shadow_percent=percent),
                **more,
            )
        )

    return make


async def test_a_shadow_that_answers_alike_differs_nowhere(tmp_path: Path, packages, shadowed) -> None:
    table = shadowed(packages.classifier("one"), packages.classifier("same"))
    async with board_of(tmp_path, table) as board:
        service = board.find("default", "sorter")
        asks = [Ask(service, ROWS[: 1 + n % 2]) for n in range(40)]
        sketch = await compared(board, 40)
        assert all(ask.outputs is not None for ask in asks)
    assert (sketch.copied, sketch.compared, sketch.failed, sketch.dropped) == (40, 40, 0, 0)
    assert (sketch.rows, sketch.differing, sketch.other_labels) == (60, 0, 0)
    assert sketch.largest_difference == 0
    assert sum(count for _, count in sketch.shadow_latency) == sum(count for _, count in sketch.answered_latency) > 0
    assert sketch.version == "2"


async def test_rows_that_differ_are_counted_and_shown_without_their_inputs(tmp_path: Path, packages, shadowed) -> None:
    table = shadowed(packages.linear("one"), packages.linear("other", scale=2.0))
    async with board_of(tmp_path, table) as board:
        service = board.find("default", "sorter")
        zero, one = np.zeros((2, 3), dtype="f4"), np.array([[0, 0, 0], [1.5, 0, 9]], dtype="f4")
        asks = [Ask(service, zero), Ask(service, one), Ask(service, zero)]
        sketch = await compared(board, 3)
        assert all(ask.outputs is not None for ask in asks)
    assert (sketch.compared, sketch.differing, sketch.rows) == (3, 1, 6)
    assert sketch.largest_difference == pytest.approx(1.5)
    assert sketch.largest_relative == pytest.approx(1.0)
    (example,) = sketch.examples
    assert (example.output, example.answered, example.shadow) == ("y", "1.5, 0", "3, 0")
    assert example.inputs == hashlib.blake2b(b"x[1.5, 0.0, 9.0]", digest_size=8).hexdigest()


async def test_other_labels_are_counted_by_row(tmp_path: Path, packages, shadowed, kit) -> None:
    live, shadow = packages.classifier("one"), packages.classifier("turned")
    from dataclasses import replace

    from modelyard.foundation.documents import read_package, write_package

    package = read_package(shadow)
    write_package(shadow, replace(package, contract=replace(package.contract, labels=("yes", "no"))))
    async with board_of(tmp_path, shadowed(live, shadow)) as board:
        service = board.find("default", "sorter")
        assert Ask(service, ROWS).backend.key.version == "1"
        sketch = await compared(board, 1)
    assert (sketch.differing, sketch.rows, sketch.other_labels) == (1, 2, 2)
    assert sketch.largest_difference == 0


async def test_a_shadow_answers_nobody_and_stands_in_no_figure_of_the_service(
    tmp_path: Path, packages, shadowed
) -> None:
    table = shadowed(packages.linear("one"), packages.linear("other", scale=2.0), watched=True)
    async with board_of(tmp_path, table) as board:
        service = board.find("default", "sorter")
        for _ in range(10):
            Ask(service, ROWS)
        await compared(board, 10)
        assert [backend.backend.version for backend in service.live] == ["1"]
        with pytest.raises(VersionNotFound):
            service.at_version("2")
        assert service.measures._answered.value == 10
        assert service.in_flight == 0


async def test_what_is_beyond_the_bound_is_dropped_and_counted(tmp_path: Path, packages, shadowed) -> None:
    table = shadowed(packages.linear("one"), packages.linear("other"))
    async with board_of(tmp_path, table) as board:
        service = board.find("default", "sorter")
        service.mirror._requests = MOST_REQUESTS  # as many as may be are under way
        asks = [Ask(service, ROWS) for _ in range(5)]
        sketch = await compared(board, 5)
        assert all(ask.outputs is not None for ask in asks)
    assert (sketch.copied, sketch.dropped) == (0, 5)


async def test_a_shadow_that_fails_costs_no_request_anything(tmp_path: Path, packages, shadowed, kit) -> None:
    table = shadowed(packages.linear("one"), packages.same("other", kit.spec("z", DataType.FP32, -1, 3)))
    async with board_of(tmp_path, table) as board:
        service = board.find("default", "sorter")
        asks = [Ask(service, ROWS) for _ in range(5)]
        sketch = await compared(board, 5)
        assert all(ask.outputs is not None for ask in asks)
    assert (sketch.failed, sketch.compared) == (5, 0)
    assert sketch.last_failure


async def test_a_share_of_the_requests_is_copied(tmp_path: Path, packages, shadowed) -> None:
    table = shadowed(packages.linear("one"), packages.linear("same"), percent=30)
    async with board_of(tmp_path, table) as board:
        service = board.find("default", "sorter")
        for _ in range(20):
            asks = [Ask(service, ROWS) for _ in range(50)]
            async with asyncio.timeout(30):
                while not all(ask.outputs is not None for ask in asks):  # noqa: ASYNC110
                    await asyncio.sleep(0)
        (sketch,) = board.shadows()
        assert 200 < sketch.copied + sketch.dropped < 400
        sketch = await compared(board, sketch.copied + sketch.dropped)
    assert sketch.differing == 0


async def test_a_shadow_that_goes_lets_everything_be_as_it_was(tmp_path: Path, packages, shadowed, kit) -> None:
    live = packages.linear("one")
    table = shadowed(live, packages.linear("other"))
    async with board_of(tmp_path, table) as board:
        service = board.find("default", "sorter")
        without = kit.table(kit.service("sorter", kit.backend(live, revision=1, version="1")), revision=2)
        board.apply(without)
        assert board.shadows() == ()
        (backend,) = service.live
        assert backend.batcher._observer is backend.measures
        assert backend.batcher._runner is backend.runner


async def test_a_shadow_may_run_in_a_worker_of_its_own_and_die_there(tmp_path: Path, packages, servers, kit) -> None:
    live, other, socket = packages.linear("one"), packages.linear("other", scale=2.0), tmp_path / "shadow.sock"
    worker = servers.worker(other, socket)
    shadow = kit.backend(
        other,
        revision=1,
        version="2",
        weight=0,
        shadow_percent=100,
        isolation=Isolation.PROCESS,
        workers=(str(socket),),
    )
    table = kit.table(kit.service("sorter", kit.backend(live, revision=1, version="1"), shadow))
    async with board_of(tmp_path, table) as board:
        service = board.find("default", "sorter")
        async with asyncio.timeout(30):
            while service.mirror is None:  # noqa: ASYNC110  (the board has no event for it)
                await asyncio.sleep(0.01)
        asks = [Ask(service, np.ones((1, 3), dtype="f4")) for _ in range(20)]
        sketch = await compared(board, 20)
        assert (sketch.compared, sketch.differing) == (20, 20)
        worker.kill()
        worker.wait()
        asks += [Ask(service, np.ones((1, 3), dtype="f4")) for _ in range(30)]
        async with asyncio.timeout(30):
            while not all(ask.outputs is not None for ask in asks):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert len(asks) == 50
