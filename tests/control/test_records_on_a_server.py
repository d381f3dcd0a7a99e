"""Records on PostgreSQL: several control planes at once, servers that go away, and addresses that cannot be."""

import threading

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from modelyard.control.catalog import find_model, set_alias
from modelyard.control.identity import LOCAL
from modelyard.control.records import (
    ControlParts,
    Database,
    OpenedRecords,
    copy_in,
    copy_out,
    emit,
    events_after,
    last_event,
    migrate,
    open_served_records,
)
from modelyard.control.records import records_url as url_of
from modelyard.domain.errors.platform import InvalidRequest, StartRefused, Unavailable
from modelyard.foundation.settings import RecordSettings, Settings, shown
from modelyard.testing.postgres import running_postgres


@pytest.fixture
def records_url(make_postgres) -> str:
    """Overrides the one that takes turns: everything here is on a server."""
    return make_postgres()


@pytest.fixture
def open_plane(records_url, tmp_path):
    """Opens the records as one more control plane does."""
    opened: list[OpenedRecords] = []

    def open_one() -> Database:
        opened.append(open_served_records(make_url(records_url), backups=tmp_path))
        return opened[-1].database

    yield open_one
    for each in opened:
        each.close()


def together(*works) -> None:
    """Run all at once; what one raises is raised here."""
    failed: list[Exception] = []
    gate = threading.Barrier(len(works))

    def run(work) -> None:
        gate.wait()
        try:
            work()
        except Exception as error:  # noqa: BLE001  (raised again below)
            failed.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def test_no_update_of_two_control_planes_is_lost(open_plane):
    """Read, then write what follows from it: the pattern of every unit of work of this house."""
    planes = [open_plane(), open_plane()]
    with planes[0].begin() as tx:
        tx.execute(text("INSERT INTO about VALUES ('counter', '0')"))

    def count(database: Database):
        def work() -> None:
            for _ in range(25):
                with database.begin() as tx:
                    seen = int(tx.scalar(text("SELECT value FROM about WHERE name = 'counter'")))
                    tx.execute(text("UPDATE about SET value = :n WHERE name = 'counter'"), {"n": str(seen + 1)})
                    emit(tx, "test.counted", subject=str(seen + 1), project=None)

        return work

    together(*(count(planes[number % 2]) for number in range(6)))
    with planes[1].read() as tx:
        assert tx.scalar(text("SELECT value FROM about WHERE name = 'counter'")) == "150"
        assert [event.subject for event in events_after(tx, 0)] == [str(number) for number in range(1, 151)]


def test_aliases_moved_from_two_control_planes_keep_every_move(open_control, add_version):
    """As a register: what a move says was there before is what the move before it wrote."""
    with open_control() as one, open_control() as other:
        for content in (b"1", b"2", b"3"):
            add_version(one, content=content)
        with one.database.read() as tx:
            first, began = find_model(tx, "default", "digits").edition, last_event(tx)

        def move(parts: ControlParts, start: int):
            def work() -> None:
                for number in range(start, start + 30):
                    with parts.database.begin() as tx:
                        set_alias(tx, LOCAL, find_model(tx, "default", "digits"), "a", str(number % 3 + 1))

            return work

        together(move(one, 0), move(other, 1), move(one, 2), move(other, 0))
        with other.database.read() as tx:
            model = find_model(tx, "default", "digits")
            moves = [event.payload for event in events_after(tx, began, limit=1000)]
    assert [move["before"] for move in moves] == [None, *(move["version"] for move in moves[:-1])]
    assert model.aliases["a"] == moves[-1]["version"]
    assert model.edition == first + len(moves)


def test_a_reader_of_events_never_passes_one_that_is_committed_later(open_plane):
    """Numbers are given in the order of commits, so that "after N" misses nothing."""
    writer, reader, over, seen = open_plane(), open_plane(), threading.Event(), list[int]()
    other = open_plane()

    def follow() -> None:
        last = 0
        while not over.is_set() or last < reader_last():
            with reader.read() as tx:
                for event in events_after(tx, last, limit=1000):
                    seen.append(event.number)
                    last = event.number

    def reader_last() -> int:
        with reader.read() as tx:
            return last_event(tx)

    def write(database: Database):
        def work() -> None:
            for _ in range(40):
                with database.begin() as tx:
                    emit(tx, "test.done", subject="x", project=None)

        return work

    following = threading.Thread(target=follow)
    following.start()
    together(*(write(database) for database in (writer, other, writer, other)))
    over.set()
    following.join()
    assert len(seen) == 160
    assert seen == sorted(seen)


def test_a_commit_wakes_the_subscribers_of_another_control_plane(open_plane):
    here, there, heard = open_plane(), open_plane(), threading.Event()
    there.subscribe("events", heard.set)
    there.listen()
    assert heard.wait(30)  # rung once when it begins to listen
    heard.clear()
    with here.begin() as tx:
        emit(tx, "test.done", subject="x", project=None)
    assert heard.wait(30)


def test_numbers_go_on_in_a_copy_though_their_rows_are_forgotten(open_plane, make_postgres, tmp_path):
    database = open_plane()
    with database.begin() as tx:
        for _ in range(3):
            emit(tx, "test.done", subject="x", project=None)
        tx.execute(text("DELETE FROM outbox"))
    copy_out(database, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    again = open_served_records(make_url(make_postgres()), backups=tmp_path)
    copy_in(tmp_path / "copy.db", again.database)
    for copied in (Database.at(tmp_path / "copy.db"), again.database):
        with copied.begin() as tx:
            emit(tx, "test.done", subject="x", project=None)
        with copied.read() as tx:
            assert last_event(tx) == 4
        copied.close()


def test_a_reader_sees_one_moment_while_others_write(open_plane):
    here, there = open_plane(), open_plane()
    with here.read() as tx:
        before = last_event(tx)
        with there.begin() as writing:
            emit(writing, "test.done", subject="x", project=None)
        assert last_event(tx) == before
    with here.read() as tx:
        assert last_event(tx) > before


def test_two_control_planes_that_start_together_migrate_once(postgres_server, tmp_path):
    url = postgres_server.make()
    opened: list[OpenedRecords] = []
    together(*(lambda: opened.append(open_served_records(make_url(url), backups=tmp_path)) for _ in range(3)))
    with opened[0].database.read() as tx:
        assert tx.scalars(text("SELECT name FROM projects")).all() == ["default"]
    assert migrate(opened[0].database, backups=tmp_path).before == opened[0].migrated.after
    for each in opened:
        each.close()
    postgres_server.drop(url)


def test_a_value_that_cannot_be_kept_is_the_senders_mistake(open_plane):
    database = open_plane()
    for subject in ("a\0b", "x" * 300):
        with pytest.raises(InvalidRequest), database.begin() as tx:
            emit(tx, "test.done", subject=subject, project=None)
    with database.read() as tx:
        assert last_event(tx) == 0


def test_a_writer_that_stands_still_is_ended_and_keeps_nothing(open_plane, monkeypatch):
    monkeypatch.setattr("modelyard.control.records.engines.IDLE_S", 0.3)
    stopped, other = open_plane(), open_plane()

    def stand_still() -> None:
        with stopped.begin() as tx:
            emit(tx, "test.of_the_one_that_stood", subject="x", project=None)
            with other.begin() as next_one:  # waits for the lock until the server has ended the first
                emit(next_one, "test.of_the_next", subject="x", project=None)
            tx.execute(text("SELECT 1"))

    with pytest.raises(Unavailable):
        stand_still()
    with other.read() as tx:
        assert [event.kind for event in events_after(tx, 0)] == ["test.of_the_next"]


def test_a_server_that_was_started_again_is_used_again(tmp_path):
    with running_postgres(durable=True) as server:
        opened = open_served_records(make_url(server.make()), backups=tmp_path)
        database = opened.database
        with database.begin() as tx:
            emit(tx, "test.before", subject="x", project=None)
        server.stop()
        with pytest.raises(Unavailable, match="does not answer"), database.begin():
            pass
        server.start()
        with database.begin() as tx:
            emit(tx, "test.after", subject="x", project=None)
        with database.read() as tx:
            assert [event.kind for event in events_after(tx, 0)] == ["test.before", "test.after"]
        opened.close()


def test_a_database_that_is_not_there_or_not_fit_is_refused(postgres_server, tmp_path):
    with pytest.raises(Unavailable):
        open_served_records(make_url(postgres_server.url("nowhere")), backups=tmp_path)
    postgres_server.ask("CREATE DATABASE narrow TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(StartRefused, match="LATIN1"):
        open_served_records(make_url(postgres_server.url("narrow")), backups=tmp_path)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://me@host/db", "mysql"),
        ("postgresql://me@host", "no database"),
        ("not an address", "no address"),
        ("postgresql+asyncpg://me@host/db", "asyncpg"),
    ],
)
def test_an_address_that_cannot_be_is_refused_with_the_form(url, says):
    with pytest.raises(InvalidRequest, match=says) as refused:
        url_of(RecordSettings(url=url))
    assert "postgresql://" in refused.value.hint


def test_the_password_may_lie_in_a_file_of_its_owner(tmp_path):
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    settings = RecordSettings(url="postgresql://me@host/db", password_file=str(file))
    file.chmod(0o644)
    with pytest.raises(StartRefused, match="others can read"):
        url_of(settings)
    file.chmod(0o600)
    url = url_of(settings)
    assert url.password == "hunter2"
    assert "hunter2" not in repr(url)
    assert "hunter2" not in repr(shown(Settings(records=settings)))
    with pytest.raises(InvalidRequest, match="another"):
        url_of(RecordSettings(url="postgresql://me:x@host/db", password_file=str(file)))


def test_a_wrong_password_is_not_repeated_in_what_is_said(postgres_server, tmp_path):
    url = make_url("postgresql+psycopg://me:hunter2@127.0.0.1:1/db")
    with pytest.raises(Unavailable) as refused:
        open_served_records(url, backups=tmp_path)
    said = [str(refused.value), str(refused.value.__cause__), refused.value.hint]
    assert "hunter2" not in "".join(said)
