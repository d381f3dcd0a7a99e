"""Figures in mapped files: summed over processes, kept when one dies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.foundation.metrics import Account, Book, Family, Group, Kind, render

IN = Family(name="in_total", kind=Kind.COUNTER, help="Came in.", labels=("s",))
OUT = Family(name="out_total", kind=Kind.COUNTER, help="Went out.", labels=("s",))
LOST = Family(name="lost_total", kind=Kind.COUNTER, help="Lost.", labels=("s", "reason"))
OPEN = Family(name="open", kind=Kind.GAUGE, help="Inside.", labels=("s",))
LEVEL = Family(name="level", kind=Kind.GAUGE, help="A level.")
TIME = Family(name="time_seconds", kind=Kind.HISTOGRAM, help="Times.", labels=("s",), buckets=(0.1, 1.0))
ACCOUNT = Account(received=IN, settled=(OUT,), lost=LOST, in_flight=OPEN)


def test_any_reader_sees_the_sum_of_all_processes(tmp_path: Path) -> None:
    Book.open(tmp_path, "a").counter(IN, "x").add(2)
    Book.open(tmp_path, "b").counter(IN, "x").add(3)
    assert Group.read(tmp_path).value(IN, "x") == 5


def test_the_same_series_is_one_series(tmp_path: Path) -> None:
    book = Book.open(tmp_path, "a")
    book.counter(IN, "x").add()
    book.counter(IN, "x").add()
    assert book.counter(IN, "x").value == 2
    with pytest.raises(ValueError, match="labels"):
        book.counter(IN)


def test_nothing_falls_when_a_process_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from modelyard.foundation.metrics import Book, Family, Kind\n"
        "family = Family(name='in_total', kind=Kind.COUNTER, help='Came in.', labels=('s',))\n"
        "level = Family(name='level', kind=Kind.GAUGE, help='A level.')\n"
        "book = Book.open(pathlib.Path(sys.argv[1]), 'a')\n"
        "book.counter(family, 'x').add(7)\n"
        "book.gauge(level).set(4)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, env=os.environ)
    assert ended.returncode == -9
    group = Group.read(tmp_path, accounts=[ACCOUNT])
    assert group.value(IN, "x") == 7
    assert group.value(LOST, "x", "process_died") == 7
    assert group.value(OPEN, "x") == 0
    assert (LEVEL.name, ()) not in group.series, "a dead process has no level"
    successor = Book.open(tmp_path, "a")
    successor.settle(ACCOUNT)
    successor.counter(IN, "x").add()
    after = Group.read(tmp_path, accounts=[ACCOUNT])
    assert after.value(IN, "x") == 8
    assert after.value(LOST, "x", "process_died") == 7
    assert after.value(OPEN, "x") == 1


def test_a_name_that_a_live_process_holds_is_not_taken_from_it(tmp_path: Path) -> None:
    first, second = Book.open(tmp_path, "a"), Book.open(tmp_path, "a")
    assert first.name == "a"
    assert second.name == "a+1"
    first.close()
    assert Book.open(tmp_path, "a").name == "a"


def test_histograms_are_cumulative_and_keep_their_sum(tmp_path: Path) -> None:
    times = Book.open(tmp_path, "a").histogram(TIME, 'k"1')
    times.observe(0.05, 2)
    times.observe(0.5)
    times.observe(9)
    assert times.observe_span(0.2, 0.9, total=1.1, times=2)
    assert not times.observe_span(0.05, 0.9, total=1.0, times=2), "not all in one bucket"
    text = render(Group.read(tmp_path), [TIME], processes=False).decode()
    assert text.splitlines()[2:] == [
        r'time_seconds_bucket{s="k\"1",le="0.1"} 2',
        r'time_seconds_bucket{s="k\"1",le="1.0"} 5',
        r'time_seconds_bucket{s="k\"1",le="+Inf"} 6',
        r'time_seconds_sum{s="k\"1"} 10.7',
        r'time_seconds_count{s="k\"1"} 6',
    ]


def test_each_live_process_shows_its_resources(tmp_path: Path) -> None:
    book = Book.open(tmp_path, "server-0")
    text = render(Group.read(tmp_path), []).decode()
    assert 'process_resident_memory_bytes{process="server-0"}' in text
    book.close()
    assert "server-0" not in render(Group.read(tmp_path), []).decode()


def test_series_beyond_the_file_are_counted_in_memory_and_told(tmp_path: Path) -> None:
    book = Book.open(tmp_path, "a")
    for index in range(70_000):
        book.counter(IN, str(index)).add()
        if book.overflowed:
            break
    assert book.overflowed == 1
    assert Group.read(tmp_path).value(IN, "0") == 1
