"""Dividing requests by coin, caller and match, and counting what each revision answers."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace

import numpy as np
import pytest

from modelyard.domain.errors.inference import DeadlineExceeded, RunFailed, ShapeMismatch
from modelyard.domain.errors.platform import Unavailable
from modelyard.domain.routing import Match, RoutingTable
from modelyard.domain.sketches import Sketch, latency_bucket
from modelyard.foundation.documents import from_json, to_json
from modelyard.foundation.metrics import Book
from modelyard.inference.admission import SharedLimits
from modelyard.inference.batching import Call
from modelyard.inference.routing import BoardOptions, ServedBackend, Service, Switchboard
from modelyard.inference.routing.choosing import Coin
from modelyard.inference.routing.sketching import STRETCH_S, Pairs, Place, RevisionSketch


class Ask(Call):
    """A request that keeps its answer."""

    __slots__ = ("backend", "error", "outputs", "service")

    def __init__(self, service: Service, backend: ServedBackend, rows: np.ndarray) -> None:
        now = perf_counter()
        super().__init__({"x": rows}, len(rows), started=now, deadline=now + 30)
        self.service, self.backend = service, backend
        self.outputs: dict | None = None
        self.error: Exception | None = None
        backend.batcher.submit(self)

    def succeed(self, outputs) -> None:
        self.outputs, self.ok = dict(outputs), True

    def fail(self, error) -> None:
        self.error = error
        self.service.book_failure(error, self)

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
    await settled(board, table.revision)
    try:
        yield board
    finally:
        await board.close()


async def settled(board: Switchboard, revision: int) -> None:
    async with asyncio.timeout(30):
        while board.acknowledged < revision:  # noqa: ASYNC110  (the board has no event for it)
            await asyncio.sleep(0.01)


async def answered(asks: list[Ask]) -> None:
    async with asyncio.timeout(30):
        while not all(each.outputs is not None or each.error is not None for each in asks):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
def two(packages, kit) -> Callable[..., RoutingTable]:
    """A table with stable (revision 1) and canary (revision 2)."""
    stable, canary = packages.classifier("stable"), packages.classifier("canary")

    def make(*, weights=(90, 10), revision=1, **more) -> RoutingTable:
        backends = [
            kit.backend(package, revision=number, version=str(number), weight=weight)
            for number, (package, weight) in enumerate(zip((stable, canary), weights, strict=True), 1)
        ]
        return kit.table(kit.service("sorter", *backends, **more), revision=revision)

    return make


def by_revision(board: Switchboard, *, split: str) -> dict[int, Sketch]:
    return {sketch.revision: sketch for sketch in board.sketches() if sketch.split == split}


ROWS = np.array([[1, 0, 0]], dtype="f4")


def test_a_coin_keeps_its_shares_and_no_rhythm() -> None:
    coin = Coin([("old", 90), ("new", 10), ("none", 0)])
    picks = [coin.pick() for _ in range(20_000)]
    counts = Counter(picks)
    assert counts["none"] == 0
    assert 1700 < counts["new"] < 2300
    tenths = Counter(index % 10 for index, pick in enumerate(picks) if pick == "new")
    assert len(tenths) == 10  # by turns, it would always be the same of ten
    assert Coin([]).pick() is None
    assert Coin([("one", 1)]).pick() == "one"


async def test_what_each_revision_answers_is_counted_apart(tmp_path: Path, two) -> None:
    async with board_of(tmp_path, two(watched=True)) as board:
        service = board.find("default", "sorter")
        rows = {True: ROWS, False: ROWS[:, ::-1] * 0 + np.array([[0, 1, 0]], dtype="f4")}
        asks = [Ask(service, service.choose({}), rows[index % 4 != 0]) for index in range(400)]
        await answered(asks)
        sketches = by_revision(board, split="1=90,2=10")
    assert sum(sketch.requests for sketch in sketches.values()) == 400
    sides = Counter(ask.backend.key.revision for ask in asks)
    for revision, sketch in sketches.items():
        given = Counter(ask.outputs["label"][0].decode() for ask in asks if ask.backend.key.revision == revision)
        assert sketch.requests == sides[revision]
        assert dict(sketch.predictions) == {f"={label}": count for label, count in given.items()}
        assert sketch.failures == 0
    assert len({sketch.epoch for sketch in sketches.values()}) == 1
    report = to_json(sketches[1])
    assert from_json(report, Sketch) == sketches[1]


async def test_one_request_of_each_side_is_timed_for_a_stretch_and_one_row_of_a_request_counted(
    tmp_path: Path, two
) -> None:
    async with board_of(tmp_path, two(watched=True, weights=(50, 50))) as board:
        service = board.find("default", "sorter")
        asks = [Ask(service, service.choose({}), np.repeat(ROWS, 5, axis=0)) for _ in range(60)]
        await answered(asks)
        await asyncio.sleep(STRETCH_S)
        last = Ask(service, service.choose({}), ROWS)
        await answered([last])
        sketches = by_revision(board, split="1=50,2=50")
    assert sum(sketch.requests for sketch in sketches.values()) == 61
    for sketch in sketches.values():
        assert sum(count for _, count in sketch.predictions) == sketch.requests
        assert sum(count for _, count in sketch.latency) == 1


async def test_a_service_that_nobody_watches_is_not_wrapped(tmp_path: Path, two) -> None:
    async with board_of(tmp_path, two()) as board:
        service = board.find("default", "sorter")
        for backend in service.live:
            assert backend.sketch is None
            assert backend.batcher._observer is backend.measures
            assert backend.batcher._runner is backend.runner
        assert service.choose({}) in service.live
        assert board.sketches() == ()


async def test_other_shares_are_a_new_epoch_and_the_last_one_is_told_once_more(tmp_path: Path, two) -> None:
    async with board_of(tmp_path, two(watched=True)) as board:
        service = board.find("default", "sorter")
        early = Ask(service, service.choose({}), ROWS)
        await answered([early])
        late = Ask(service, service.choose({}), ROWS)  # began before the shares change: of no epoch
        board.apply(two(watched=True, weights=(50, 50), revision=2))
        await settled(board, 2)
        await answered([late])
        await answered([Ask(service, service.choose({}), ROWS)])
        assert sum(sketch.requests for sketch in by_revision(board, split="1=90,2=10").values()) == 1
        assert sum(sketch.requests for sketch in by_revision(board, split="1=50,2=50").values()) == 1
        board.apply(two(weights=(100, 0), revision=3))
        await settled(board, 3)
        assert all(backend.sketch is None for backend in service.live)
        assert sum(sketch.requests for sketch in by_revision(board, split="1=50,2=50").values()) == 1


async def test_requests_that_chose_their_side_are_not_compared(tmp_path: Path, two) -> None:
    match = Match(revision=2, headers={"x-team": "red"})
    async with board_of(tmp_path, two(watched=True, matches=(match,))) as board:
        service = board.find("default", "sorter")
        matched = [Ask(service, service.choose({b"x-team": b"red"}), ROWS) for _ in range(20)]
        asked = [Ask(service, service.at_version("1"), ROWS) for _ in range(20)]
        await answered(matched + asked)
        assert {ask.backend.key.revision for ask in matched} == {2}
        assert all(ask.outputs is not None for ask in matched + asked)
        assert [sketch.requests for sketch in board.sketches()] == [0, 0]


async def test_the_first_match_that_fits_decides_by_header_and_by_key(tmp_path: Path, two) -> None:
    matches = (
        Match(revision=2, headers={"x-team": "red"}, keys=("k1",)),
        Match(revision=1, headers={"x-team": "red"}),
        Match(revision=2),  # names nothing: fits nothing
    )
    async with board_of(tmp_path, two(weights=(0, 100), matches=matches)) as board:
        service = board.find("default", "sorter")
        service._identify = lambda header: SimpleNamespace(key={b"Bearer one": "k1"}.get(header, ""))
        service._rules = ()
        service.settle()

        def side(**fields: bytes) -> int:
            return service.choose(
                {name.replace("_", "-").encode(): value for name, value in fields.items()}
            ).key.revision

        assert side(x_team=b"red", authorization=b"Bearer one") == 2
        assert side(x_team=b"red", authorization=b"Bearer two") == 1
        assert side(x_team=b"red") == 1
        assert side(x_team=b"blue") == 2  # by weight


async def test_a_caller_stays_where_it_is_and_a_growing_canary_keeps_its_own(tmp_path: Path, two) -> None:
    callers = [{b"x-user": b"user-%d" % number} for number in range(500)]

    async with board_of(tmp_path, two(sticky="X-User", watched=True)) as board:
        service = board.find("default", "sorter")

        def sides() -> list[int]:
            return [service.choose(fields).key.revision for fields in callers]

        at_ten = sides()
        assert sides() == at_ten
        assert 20 <= at_ten.count(2) <= 90
        board.apply(two(sticky="X-User", watched=True, weights=(50, 50), revision=2))
        await settled(board, 2)
        at_fifty = sides()
        assert 200 <= at_fifty.count(2) <= 300
        assert all(after == 2 for before, after in zip(at_ten, at_fifty, strict=True) if before == 2)


async def test_of_a_sticky_caller_only_the_first_request_is_compared(tmp_path: Path, two) -> None:
    async with board_of(tmp_path, two(sticky="x-user", watched=True)) as board:
        service = board.find("default", "sorter")
        asks = [Ask(service, service.choose({b"x-user": b"user-%d" % (n % 7)}), ROWS) for n in range(70)]
        await answered(asks)
        assert sum(sketch.requests for sketch in board.sketches()) == 7


async def test_what_a_revision_spoils_is_counted_and_what_a_client_spoils_is_not(tmp_path: Path, two) -> None:
    async with board_of(tmp_path, two(watched=True, weights=(0, 100))) as board:
        service = board.find("default", "sorter")
        assert board.sketches() == ()  # nothing to compare with
    async with board_of(tmp_path / "again", two(watched=True, weights=(50, 50))) as board:
        service = board.find("default", "sorter")
        backend = next(each for each in service.live if each.key.revision == 2)
        ask = Ask(service, backend, ROWS)
        await answered([ask])
        spoilt = (RunFailed("it raised"), DeadlineExceeded("too late"), Unavailable("its workers are away"))
        for error in (*spoilt, ShapeMismatch("of another shape")):
            service.book_failure(error, ask)
        sketch = by_revision(board, split="1=50,2=50")[2]
        assert (sketch.requests, sketch.failures) == (4, 3)


async def test_an_answer_that_is_no_number_is_a_failure_of_its_own_request(tmp_path: Path, packages, kit) -> None:
    table = kit.table(
        kit.service(
            "line",
            kit.backend(packages.linear("good"), revision=1, weight=50),
            kit.backend(packages.linear("bad", scale=float("nan")), revision=2, weight=50),
            watched=True,
        )
    )
    async with board_of(tmp_path, table) as board:
        service = board.find("default", "line")
        asks = [Ask(service, service.choose({}), np.ones((1 + n % 3, 3), dtype="f4")) for n in range(100)]
        await answered(asks)
        good, bad = (by_revision(board, split="1=50,2=50")[revision] for revision in (1, 2))
    assert good.failures == 0
    assert good.predictions == (("#2049", good.requests),)
    assert bad.failures == bad.requests > 0
    assert bad.predictions == ()


def test_only_the_spoilt_rows_of_a_shared_run_count_as_failures() -> None:
    signature = SimpleNamespace(
        batched=True,
        outputs={"y": SimpleNamespace(name="y", datatype=SimpleNamespace(is_float=True))},
        contract=SimpleNamespace(labelling=None, task="regression"),
    )
    owner = object()
    sketch = RevisionSketch(owner, signature, Place(epoch="e", split="s", side=0, pairs=Pairs(2)))
    start = perf_counter()
    calls = [SimpleNamespace(started=start, backend=owner, ok=True, rows=rows) for rows in (1, 2, 3)]
    outputs = {"y": np.array([[1.0], [np.nan], [1.0], [2.0], [2.0], [np.inf]])}
    calls[2].ok = False
    sketch.answered(calls, outputs, perf_counter())
    counted = sketch.snapshot("p", "s", 1)
    assert (counted.requests, counted.failures) == (2, 1)
    assert counted.predictions == (("#2049", 1),)


def test_a_burst_counts_once_for_each_side_however_many_requests_it_held() -> None:
    """Without the pairing a small side would be seen in bursts more often than the large one, and look slow."""
    chance = random.Random(5)
    pairs, now = Pairs(2, draw=chance.random), 0.0
    for _ in range(4000):
        is_burst = chance.random() < 0.05
        now += 0.06
        sides = [chance.random() < 0.1 for _ in range(40 if is_burst else 4)]
        for side in (False, True):
            started = [now - (0.05 if is_burst else 0.001)] * sides.count(side)
            if started:
                pairs.offer(int(side), started, now)
    slow = [
        sum(count for bucket, count in latency.items() if bucket > latency_bucket(0.01)) for latency in pairs.latency
    ]
    timed = [sum(latency.values()) for latency in pairs.latency]
    assert timed[0] == timed[1] > 1000
    assert abs(slow[0] - slow[1]) < 0.2 * max(slow)
