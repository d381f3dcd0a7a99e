"""Units of work, durability, migrations, backups, and one opener at a time."""

import importlib.util
import os
import pkgutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, ProgrammingError

import modelyard.control
from modelyard.control.records import (
    METADATA,
    Answer,
    Database,
    back_up,
    emit,
    events_after,
    from_microseconds,
    keep,
    make_id,
    migrate,
    open_records,
    open_served_records,
    read_cursor,
    recall,
    restore,
    to_microseconds,
    write_cursor,
)
from modelyard.domain.errors.platform import Conflict, InvalidRequest, StartRefused
from modelyard.foundation.clock import SetClock


@pytest.fixture
def database(tmp_path, records_url):
    """On each of the two databases."""
    opened = opened_at(records_url, tmp_path)
    yield opened.database
    opened.close()


@pytest.fixture
def sqlite(tmp_path):
    """For what SQLite alone does."""
    opened = opened_at("", tmp_path)
    yield opened.database
    opened.close()


def opened_at(url, tmp_path):
    if not url:
        return open_records(tmp_path / "modelyard.db", backups=tmp_path / "backups", clock=SetClock())
    return open_served_records(make_url(url), backups=tmp_path / "backups", clock=SetClock())


def pragma(database: Database, name: str):
    with database.read() as tx:
        return tx.scalar(text(f"PRAGMA {name}"))


def test_every_connection_is_durable_and_checks_references(sqlite):
    assert pragma(sqlite, "journal_mode") == "wal"
    assert pragma(sqlite, "synchronous") == 2
    assert pragma(sqlite, "foreign_keys") == 1


def test_the_records_are_private_to_their_owner(sqlite):
    assert sqlite.path.stat().st_mode & 0o077 == 0


def test_the_migrations_make_exactly_the_tables_that_the_code_declares(database):
    for package in pkgutil.iter_modules(modelyard.control.__path__):
        if importlib.util.find_spec(f"modelyard.control.{package.name}.tables"):
            importlib.import_module(f"modelyard.control.{package.name}.tables")

    def ours(thing, name, kind, *_):
        return not (kind == "table" and name.startswith("models_search"))

    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours, "compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_a_unit_of_work_that_fails_leaves_nothing(database):
    def fail():
        with database.begin() as tx:
            emit(tx, "test.done", subject="x", project=None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.read() as tx:
        assert events_after(tx, 0) == []


def test_reading_changes_nothing(database):
    with database.read() as tx:
        emit(tx, "test.done", subject="x", project=None)
    with database.read() as tx:
        assert events_after(tx, 0) == []


def test_subscribers_wake_after_the_commit_and_only_then(database):
    woken = []

    def wake():
        with database.read() as tx:
            woken.append(len(events_after(tx, 0)))

    leave = database.subscribe("events", wake)
    with database.begin() as tx:
        emit(tx, "test.done", subject="x", project=None)
        assert woken == []
    assert woken == [1]
    leave()
    with database.begin() as tx:
        emit(tx, "test.done", subject="x", project=None)
    assert woken == [1]


def test_writers_of_many_threads_all_succeed_in_an_order(database):
    def write(n):
        for _ in range(10):
            with database.begin() as tx:
                emit(tx, "test.done", subject=str(n), project=None)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as tx:
        assert [event.number for event in events_after(tx, 0)] == list(range(1, 81))


def test_the_connection_of_a_unit_of_work_that_outlives_the_end_is_closed_with_it(database):
    with database.read() as tx:
        held = tx.connection().connection
        assert held.is_valid
        connection = held.driver_connection
        database.close()
        assert tx.execute(text("SELECT 1")).scalar() == 1
    with pytest.raises(Exception, match=r"(?i)closed"):
        connection.execute("SELECT 1")


def test_a_unit_of_work_inside_another_is_a_mistake(database):
    with database.begin(), pytest.raises(RuntimeError), database.begin():
        pass
    with database.begin() as tx:
        emit(tx, "test.done", subject="x", project=None)


WRITER = """
import sys
from modelyard.control.records import Database, emit
database = Database(sys.argv[1])
for n in range(100000):
    with database.begin() as tx:
        emit(tx, "test.done", subject=str(n), project=None)
    print(n, flush=True)
"""


@pytest.mark.slow
def test_killing_a_writer_loses_nothing_that_was_acknowledged(database):
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, database.url.render_as_string(hide_password=False)],
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            acknowledged = [child.stdout.readline() for _ in range(40)]
            os.kill(child.pid, signal.SIGKILL)
            acknowledged += child.stdout.readlines()
        last = int([line for line in acknowledged if line.endswith("\n")][-1])
        with database.begin() as tx:
            subjects = [event.subject for event in events_after(tx, 0, limit=100_000)]
            tx.execute(text("DELETE FROM outbox"))
        assert subjects[: last + 1] == [str(n) for n in range(last + 1)]
        assert len(subjects) <= last + 2
    if database.is_sqlite:
        assert pragma(database, "integrity_check") == "ok"


def test_a_second_opener_is_refused_by_name(sqlite, tmp_path):
    with pytest.raises(StartRefused, match=str(os.getpid())):
        open_records(tmp_path / "modelyard.db", backups=tmp_path / "backups")


def test_the_next_opener_gets_in_after_the_first(tmp_path):
    for _ in range(2):
        open_records(tmp_path / "a.db", backups=tmp_path / "backups").close()


def test_newer_records_are_refused_by_the_name_of_their_version(database, tmp_path):
    with database.begin() as tx:
        tx.execute(text("INSERT INTO alembic_version VALUES ('catalog_9999')"))
        tx.execute(text("UPDATE about SET value = '99.1' WHERE name = 'written_by'"))
    with pytest.raises(StartRefused, match=r"99\.1") as refused:
        migrate(database, backups=tmp_path / "backups")
    assert "catalog_9999" in str(refused.value)


def make_older(database: Database) -> None:
    """As written by a version that knew nothing of identity."""
    with database.begin() as tx:
        emit(tx, "test.kept", subject="x", project=None)
        for table in ("bootstrap_tokens", "keys", "projects", "secrets"):
            tx.execute(text(f"DROP TABLE {table}"))
        tx.execute(text("DELETE FROM alembic_version WHERE version_num LIKE 'identity%'"))


def names_of_tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names())


def test_older_records_are_copied_and_then_migrated(database, tmp_path):
    make_older(database)
    done = migrate(database, backups=tmp_path / "backups")
    assert "identity_0001" not in done.before
    assert any(head.startswith("identity") for head in done.after)
    with database.read() as tx:
        assert [event.kind for event in events_after(tx, 0)] == ["test.kept"]
        assert tx.scalars(text("SELECT name FROM projects")).all() == ["default"]
    if not database.is_sqlite:
        return  # its server keeps copies; the migration is one transaction there too
    with closing(sqlite3.connect(done.backup)) as copy:
        assert copy.execute("SELECT kind FROM outbox").fetchall() == [("test.kept",)]
        assert copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'projects'").fetchall() == []
    assert migrate(database, backups=tmp_path / "backups").backup is None


def test_a_migration_that_fails_leaves_the_records_as_they_were(database, tmp_path):
    make_older(database)
    with database.begin() as tx:
        tx.execute(text("CREATE TABLE projects (in_the_way INTEGER)"))
    before = names_of_tables(database)
    with pytest.raises((OperationalError, ProgrammingError)):
        migrate(database, backups=tmp_path / "backups")
    assert names_of_tables(database) == before
    assert len(list((tmp_path / "backups").glob("before-*.db"))) == (1 if database.is_sqlite else 0)


def test_only_so_many_copies_are_kept(sqlite, tmp_path):
    for _ in range(4):
        sqlite.clock.pass_time(seconds=1)
        make_older(sqlite)
        migrate(sqlite, backups=tmp_path / "backups", kept=2)
    assert len(list((tmp_path / "backups").glob("before-*.db"))) == 2


def test_a_copy_made_during_writes_is_whole_and_private(sqlite, tmp_path):
    stop = threading.Event()

    def write():
        while not stop.is_set():
            with sqlite.begin() as tx:
                emit(tx, "test.done", subject="x", project=None)
                emit(tx, "test.done", subject="y", project=None)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for n in range(3):
            back_up(sqlite.path, tmp_path / f"copy{n}.db")
    finally:
        stop.set()
        thread.join()
    for n in range(3):
        copy = tmp_path / f"copy{n}.db"
        assert copy.stat().st_mode & 0o777 == 0o600
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("SELECT count(*) FROM outbox").fetchone()[0] % 2 == 0


def test_a_restored_copy_is_what_was_copied(tmp_path):
    records = open_records(tmp_path / "a.db", backups=tmp_path)
    with records.database.begin() as tx:
        emit(tx, "test.before", subject="x", project=None)
    back_up(tmp_path / "a.db", tmp_path / "copy.db")
    with records.database.begin() as tx:
        emit(tx, "test.after", subject="x", project=None)
    records.close()
    restore(tmp_path / "copy.db", tmp_path / "a.db")
    records = open_records(tmp_path / "a.db", backups=tmp_path)
    with records.database.read() as tx:
        assert [event.kind for event in events_after(tx, 0)] == ["test.before"]
    records.close()


@pytest.mark.parametrize(
    "content", [b"", b"not a database at all, but long enough to look at", b"SQLite format 3\0" * 99]
)
def test_what_is_no_copy_is_not_restored(tmp_path, content):
    (tmp_path / "a.db").write_bytes(b"precious")
    (tmp_path / "copy.db").write_bytes(content)
    with pytest.raises(InvalidRequest):
        restore(tmp_path / "copy.db", tmp_path / "a.db")
    assert (tmp_path / "a.db").read_bytes() == b"precious"


def test_an_idempotency_key_answers_once_and_for_its_owner(database):
    answer = Answer(201, {"id": 1})
    with database.begin() as tx:
        assert recall(tx, owner="a", key="k", request=b"r") is None
        keep(tx, owner="a", key="k", request=b"r", answer=answer)
    with database.begin() as tx:
        assert recall(tx, owner="a", key="k", request=b"r") == answer
        assert recall(tx, owner="b", key="k", request=b"r") is None
        with pytest.raises(Conflict):
            recall(tx, owner="a", key="k", request=b"other")
    database.clock.pass_time(hours=25)
    with database.begin() as tx:
        assert recall(tx, owner="a", key="k", request=b"other") is None
        keep(tx, owner="a", key="k", request=b"other", answer=answer)


@given(st.datetimes(timezones=st.just(UTC)))
def test_moments_come_back_exactly(moment):
    assert from_microseconds(to_microseconds(moment)) == moment


def test_moments_of_every_zone_are_the_same_moment():
    there = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    assert from_microseconds(to_microseconds(there)) == there


@given(st.tuples(st.text(max_size=50), st.integers(-(2**53), 2**53)))
def test_cursors_come_back_exactly(position):
    assert read_cursor(write_cursor(position), kinds=(str, int)) == position


@given(st.text(max_size=200))
def test_any_other_cursor_is_refused(text_of_a_stranger):
    try:
        read_cursor(text_of_a_stranger, kinds=(str, int))
    except InvalidRequest:
        return
    assert write_cursor(read_cursor(text_of_a_stranger, kinds=(str, int)))


def test_ids_sort_by_time():
    clock, ids = SetClock(), []
    for _ in range(100):
        ids.append(make_id("ver", now=clock.now()))
        clock.pass_time(milliseconds=1)
    assert ids == sorted(ids)
    assert len(set(ids)) == 100
