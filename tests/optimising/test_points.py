"""Which points are measured for long, and which of them nothing beats."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from modelyard.domain.routing import Batching
from modelyard.processes.jobs.optimising.points import Form, Point, frontier, hopeful, settings_of


def form(name: str = "f", points: float = 0.0, rows: int = 64) -> Form:
    package: Any = SimpleNamespace(contract=SimpleNamespace(max_batch_size=rows))
    return Form(name=name, runtime="r", directory=Path(), package=package, size_bytes=1, points=points)


def point(name: str, cost: float, p99: float, *, lost: float = 0.0, is_default: bool = False) -> Point:
    made = Point(form=form(name, lost), threads=1, batching=Batching(), is_default=is_default)
    made.cost, made.p99_ms, made.p50_ms = [cost] * 3, [p99] * 3, [p99] * 3
    return made


def names(points: list[Point]) -> list[str]:
    return [each.form.name for each in points]


def test_what_may_keep_to_the_latency_goes_first_and_then_the_quickest():
    points = [
        point("dear", 9, 5),
        point("cheap and late", 1, 90),
        point("cheap", 2, 9),
        point("late", 1.05, 80),
        point("default", 8, 8, is_default=True),
    ]
    assert names(hopeful(points, most=5, p99_ms=10)) == ["default", "cheap", "dear", "late", "cheap and late"]
    assert names(hopeful(points, most=3, p99_ms=10)) == ["default", "cheap", "dear"]


def test_what_is_clearly_worse_in_everything_or_failed_is_put_aside():
    failed = point("failed", 1, 1)
    failed.reason = "503"
    points = [point("good", 1, 1), point("worse", 2, 2), point("nearly", 1.05, 1.05), failed]
    assert names(hopeful(points, most=9, p99_ms=10)) == ["good", "nearly"]


def test_one_that_loses_less_is_not_put_aside_for_a_better_one_that_loses_more():
    points = [point("exact", 2, 2), point("rough", 1, 1, lost=0.4)]
    assert set(names(hopeful(points, most=9, p99_ms=10))) == {"exact", "rough"}


def test_the_frontier_holds_what_nothing_beats():
    points = [
        point("a", 1, 9),
        point("b", 2, 5),
        point("c", 3, 6),
        point("d", 4, 9, lost=0),
        point("e", 0.5, 1, lost=1),
    ]
    assert names(frontier(points)) == ["a", "b", "e"]


def test_a_model_that_takes_one_row_is_not_gathered():
    made = settings_of(form(rows=1), threads=4, default_threads=2, first=True)
    assert {(each.threads, each.batching.max_size) for each in made} == {(1, 1), (2, 1), (4, 1)}
    assert [each.threads for each in made if each.is_default] == [2]


def test_exactly_one_of_the_settings_is_what_the_platform_does_by_itself():
    made = settings_of(form(), threads=2, default_threads=1, first=True)
    assert len(made) == 6
    assert [(each.threads, each.batching) for each in made if each.is_default] == [(1, Batching())]
