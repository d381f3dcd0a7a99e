"""Control planes on one PostgreSQL: one leads, the next one takes over, and what an old leader writes is refused."""

import time

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from modelyard.control.history import Sequencer, append
from modelyard.control.identity import LOCAL
from modelyard.control.records import (
    Database,
    Leadership,
    LeadershipLost,
    OpenedRecords,
    emit,
    events_after,
    open_served_records,
)
from modelyard.domain.errors.platform import InvalidRequest, StartRefused
from modelyard.foundation.places import Places
from modelyard.foundation.settings import HistorySettings, RecordSettings, Settings


@pytest.fixture
def records_url(make_postgres) -> str:
    return make_postgres()


@pytest.fixture
def plane(records_url, tmp_path):
    """Makes one more control plane's view of the records, with its part in choosing the leader."""
    opened: list[OpenedRecords] = []
    chosen: list[Leadership] = []

    def make(name: str, kind: type[Leadership] = Leadership, **times: float) -> Database:
        opened.append(open_served_records(make_url(records_url), backups=tmp_path))
        database = opened[-1].database
        chosen.append(kind(database, holder=name, **{"lease_s": 1.0, "every_s": 0.1, **times}))
        database.lead = chosen[-1]
        chosen[-1].start()
        return database

    yield make
    for leadership in chosen:
        leadership.stop()
    for each in opened:
        each.close()


class Stubborn(Leadership):
    """Takes itself for the leader for ever once it was, as a process does that was stopped and knows nothing of it."""

    mine: int | None = None

    @property
    def token(self) -> int | None:
        self.mine = self.mine or super().token
        return self.mine

    def fall_silent(self) -> None:
        self._stopped.set()
        self._thread.join()


def eventually(claim) -> None:
    end = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.02)


def newest(database: Database) -> tuple[int, str]:
    with database.read() as tx:
        return tuple(tx.execute(text("SELECT token, holder FROM leadership")).one())


def test_one_leads_and_the_next_takes_over_when_it_ends(plane):
    first, second = plane("first"), plane("second")
    assert (first.leads, second.leads) == (True, False)
    began, holder = newest(first)
    assert holder == "first"
    with second.leading() as leads:
        assert not leads
    first.lead.stop()
    eventually(lambda: second.leads)
    assert newest(second) == (began + 1, "second")


def test_a_leader_that_says_nothing_is_followed_by_another(plane):
    first = plane("first", Stubborn)
    assert first.leads
    second = plane("second")
    first.lead.fall_silent()
    eventually(lambda: second.leads)


def test_every_write_of_a_stale_leader_is_refused_and_none_is_lost(plane):
    stale = plane("first", Stubborn)
    assert stale.leads
    newer = plane("second")
    stale.lead.fall_silent()
    eventually(lambda: newer.leads)
    refused = 0
    for number in range(120):
        with stale.leading() as leads:
            assert leads  # it believes so
            try:
                with stale.begin() as tx:
                    emit(tx, "test.stale", subject=str(number), project=None)
            except LeadershipLost:
                refused += 1
        with newer.leading() as leads, newer.begin() as tx:
            assert leads
            emit(tx, "test.new", subject=str(number), project=None)
    assert refused == 120
    with newer.read() as tx:
        assert [event.subject for event in events_after(tx, 0)] == [str(number) for number in range(120)]
        assert {event.kind for event in events_after(tx, 0)} == {"test.new"}


def test_a_block_of_a_leader_ends_quietly_where_it_lost_the_lead(plane):
    stale = plane("first", Stubborn)
    assert stale.leads
    newer = plane("second")
    stale.lead.fall_silent()
    eventually(lambda: newer.leads)
    reached = []
    with stale.leading():
        with stale.begin():
            reached.append("inside")
        reached.append("after")
    assert reached == []
    with stale.begin() as tx:  # a request, which any control plane answers
        emit(tx, "test.asked", subject="x", project=None)


def test_nobody_takes_the_lead_in_the_middle_of_a_leaders_unit_of_work(plane):
    first = plane("first", Stubborn)
    assert first.leads
    second = plane("second", lease_s=0.3)
    order = []
    with first.leading(), first.begin() as tx:
        emit(tx, "test.slow", subject="x", project=None)
        first.lead.fall_silent()
        time.sleep(2.0)  # the lease has run out; the second one waits for the row
        order.append("second" if second.leads else "first")
    eventually(lambda: second.leads)
    assert order == ["first"]
    with second.read() as tx:
        assert [event.kind for event in events_after(tx, 0)] == ["test.slow"]


def test_a_leader_goes_on_leading_while_it_works(plane):
    first, second = plane("first"), plane("second")
    token = first.lead.token
    for _ in range(4):
        with first.leading() as leads, first.begin() as tx:
            assert leads
            emit(tx, "test.done", subject="x", project=None)
            time.sleep(0.5)
    assert (first.lead.token, second.leads) == (token, False)


def test_only_the_leader_seals_history(plane, tmp_path):
    first, second = plane("first"), plane("second")
    with second.begin() as tx:
        append(tx, actor=LOCAL.actor, action="test.done", subject="x", project=None)

    def sealed() -> int:
        with first.read() as tx:
            return tx.scalar(text("SELECT count(*) FROM history WHERE sequence IS NOT NULL"))

    def sequencer(database: Database) -> Sequencer:
        return Sequencer(database, key=b"k" * 32, anchors=tmp_path / "anchors", settings=HistorySettings())

    follower = sequencer(second)
    follower.start()
    follower.stop()
    assert sealed() == 0
    leader = sequencer(first)
    leader.start()
    leader.stop()
    assert sealed() == 1


def test_a_single_control_plane_on_sqlite_leads_always(tmp_path):
    database = Database.at(tmp_path / "a.db")
    with database.leading() as leads:
        assert leads
    assert database.leads
    database.close()


def test_records_of_other_files_are_refused(open_control, places, tmp_path, records_url):
    from modelyard.control.api import open_parts
    from modelyard.integrations.artifact_stores.files import FileArtifactStore

    settings = Settings(records=RecordSettings(url=records_url))
    with open_control():
        pass
    elsewhere = Places(tmp_path / "elsewhere")
    elsewhere.create()
    with (
        pytest.raises(StartRefused, match="belong to files elsewhere"),
        open_parts(elsewhere, artifacts=FileArtifactStore(elsewhere.artifacts), settings=settings),
    ):
        pass
    with open_control() as parts:
        assert parts.database.leads


def test_control_planes_may_have_their_files_in_common(tmp_path, records_url):
    from modelyard.control.api import open_parts
    from modelyard.integrations.artifact_stores.files import FileArtifactStore

    settings = Settings(records=RecordSettings(url=records_url, files=str(tmp_path / "shared")))
    found = []
    for name in ("one", "other"):
        places = Places(tmp_path / name, tmp_path / "shared")
        places.create()
        with open_parts(places, artifacts=FileArtifactStore(places.artifacts), settings=settings) as parts:
            found.append((parts.pepper, parts.places.packages))
    assert found[0] == found[1]


def test_files_in_common_need_a_database_in_common(tmp_path):
    from modelyard.control.records import shared_files

    with pytest.raises(InvalidRequest, match=r"records\.files"):
        shared_files(RecordSettings(files=str(tmp_path)))
    with pytest.raises(InvalidRequest, match="absolute"):
        shared_files(RecordSettings(url="postgresql://h/d", files="here"))
    assert shared_files(RecordSettings()) is None
