"""The chain, what breaks it, and what was live when."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text, update

from modelyard.control.history import (
    ANCHOR_FILE,
    SERVICE_GONE,
    SERVICE_REVISION_LIVE,
    SERVICE_SPLIT,
    Sequencer,
    append,
    chain_key,
    erase_payload,
    live_at,
    verify,
)
from modelyard.control.history.tables import history
from modelyard.control.identity import LOCAL, system_actor
from modelyard.domain.errors.platform import Conflict, Forbidden

ROBOT = system_actor("reconciler")


@pytest.fixture
def sequencer(parts):
    return Sequencer(
        parts.database,
        key=chain_key(parts.pepper),
        anchors=parts.places.data / ANCHOR_FILE,
        settings=parts.settings.history,
    )


def write(parts, count: int) -> None:
    for n in range(count):
        with parts.database.begin() as tx:
            append(tx, actor=ROBOT, action="test.done", subject=f"test/{n}", project="default", payload={"n": n})


def checked(parts):
    with parts.database.read() as tx:
        return verify(tx, key=chain_key(parts.pepper), anchors=parts.places.data / ANCHOR_FILE)


def alter(parts, statement: str) -> None:
    with parts.database.begin() as tx:
        tx.execute(text(statement))


def test_what_is_sealed_verifies(parts, sequencer):
    write(parts, 5)
    assert checked(parts).unsealed == 5
    assert sequencer.seal() == 5
    assert sequencer.anchor().sequence == 5
    found = checked(parts)
    assert found.is_intact
    assert (found.entries, found.anchored, found.unsealed) == (5, 5, 0)
    assert sequencer.anchor() is None, "the head has not moved"


COLUMNS = ("at", "actor_kind", "actor_id", "actor_name", "action", "project", "subject", "payload_digest", "id")


@pytest.mark.parametrize("column", COLUMNS)
def test_an_edited_column_is_found(parts, sequencer, column):
    write(parts, 5)
    sequencer.seal()
    alter(parts, f"UPDATE history SET {column} = 1 WHERE sequence = 3")
    assert "edited" in {flaw.kind for flaw in checked(parts).flaws}


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE history SET payload = '{\"n\": 99}' WHERE sequence = 3", "payload"),
        ("UPDATE history SET payload = NULL WHERE sequence = 3", "payload"),
        ("DELETE FROM history WHERE sequence = 3", "missing"),
        ("DELETE FROM history WHERE sequence = 1", "missing"),
        ("DELETE FROM history WHERE sequence > 3", "cut_off"),
        ("DELETE FROM history", "cut_off"),
        ("UPDATE history SET sequence = NULL, previous = NULL, seal = NULL WHERE sequence = 5", "cut_off"),
        ("UPDATE history SET seal = previous WHERE sequence = 5", "edited"),
        ("UPDATE history SET previous = seal WHERE sequence = 4", "reordered"),
    ],
)
def test_tampering_is_found(parts, sequencer, statement, kind):
    write(parts, 5)
    sequencer.seal()
    sequencer.anchor()
    alter(parts, statement)
    found = checked(parts)
    assert kind in {flaw.kind for flaw in found.flaws}
    assert not found.is_intact


def test_two_entries_that_change_places_are_found(parts, sequencer):
    write(parts, 5)
    sequencer.seal()
    for before, after in ((2, 100), (3, 2), (100, 3)):
        alter(parts, f"UPDATE history SET sequence = {after} WHERE sequence = {before}")
    assert {"reordered", "edited"} <= {flaw.kind for flaw in checked(parts).flaws}


def test_an_entry_between_others_is_found(parts, sequencer):
    write(parts, 5)
    sequencer.seal()
    for place in (5, 4, 3):
        alter(parts, f"UPDATE history SET sequence = {place + 1} WHERE sequence = {place}")
    alter(
        parts,
        "INSERT INTO history SELECT 99, 'his_forged', at, actor_kind, actor_id, actor_name, action, project, subject,"
        " payload, payload_digest, 3, previous, seal FROM history WHERE sequence = 2",
    )
    assert "edited" in {flaw.kind for flaw in checked(parts).flaws}


def test_a_chain_made_anew_by_who_lacks_the_key_is_found(parts, sequencer):
    write(parts, 5)
    sequencer.seal()
    sequencer.anchor()
    alter(parts, "UPDATE history SET subject = 'test/forged' WHERE sequence = 2")
    alter(parts, "UPDATE history SET sequence = NULL, previous = NULL, seal = NULL")
    forger = Sequencer(
        parts.database, key=b"guessed", anchors=parts.places.data / "other", settings=parts.settings.history
    )
    forger.seal()
    assert not checked(parts).is_intact


def test_a_chain_made_anew_with_the_key_is_found_by_its_anchor(parts, sequencer):
    write(parts, 5)
    sequencer.seal()
    sequencer.anchor()
    alter(parts, "UPDATE history SET subject = 'test/forged' WHERE sequence = 2")
    alter(parts, "UPDATE history SET sequence = NULL, previous = NULL, seal = NULL")
    sequencer.seal()
    assert {flaw.kind for flaw in checked(parts).flaws} == {"forged"}


def test_a_forged_anchor_is_found(parts, sequencer):
    write(parts, 2)
    sequencer.seal()
    sequencer.anchor()
    with (parts.places.data / ANCHOR_FILE).open("a") as file:
        file.write('{"sequence": 1, "seal": "00", "at": "", "mac": "00"}\nnonsense\n')
    assert [flaw.kind for flaw in checked(parts).flaws] == ["anchor"]


def test_an_erased_content_keeps_the_chain(parts, sequencer):
    write(parts, 3)
    with parts.database.begin() as tx:
        entry = append(tx, actor=ROBOT, action="test.done", subject="test/x", project="default", payload={"who": "Ann"})
    sequencer.seal()
    with parts.database.begin() as tx:
        erase_payload(tx, LOCAL, entry, reason="asked by Ann")
    sequencer.seal()
    assert checked(parts).is_intact
    with parts.database.read() as tx:
        rows = tx.execute(text("SELECT payload FROM history WHERE id = :id"), {"id": entry}).all()
    assert rows == [(None,)]


def test_what_routing_is_rebuilt_from_is_not_erased(parts):
    with parts.database.begin() as tx:
        entry = append(
            tx, actor=ROBOT, action=SERVICE_REVISION_LIVE, subject="service/a", project="default", payload={}
        )
    with parts.database.begin() as tx, pytest.raises(Conflict):
        erase_payload(tx, LOCAL, entry, reason="x")


def test_what_was_live_is_known_for_every_moment(parts, clock):
    def live(revision: int) -> None:
        payload = {"service": "a", "project": "default", "revision": revision, "model": "m", "version": str(revision)}
        append(
            tx,
            actor=ROBOT,
            action=SERVICE_REVISION_LIVE,
            subject="service/a",
            project="default",
            payload={**payload, "digest": f"sha256:{revision}"},
        )

    def versions(at) -> list[str]:
        with parts.database.read() as tx:
            return [b["version"] for b in live_at(tx, project="default", service="a", at=at).backends]

    moments = []
    with parts.database.begin() as tx:
        live(1)
        moments.append(tx.now)
    clock.pass_time(minutes=1)
    with parts.database.begin() as tx:
        split = [{"version": str(number), "weight": weight} for number, weight in ((1, 90), (2, 10))]
        append(
            tx,
            actor=ROBOT,
            action=SERVICE_SPLIT,
            subject="service/a",
            project="default",
            payload={"service": "a", "project": "default", "split": split},
        )
        moments.append(tx.now)
    clock.pass_time(minutes=1)
    with parts.database.begin() as tx:
        append(tx, actor=ROBOT, action=SERVICE_GONE, subject="service/a", project="default", payload={"service": "a"})
        moments.append(tx.now)
    second = timedelta(seconds=1)
    assert versions(moments[0] - second) == []
    assert versions(moments[0]) == versions(moments[1] - second) == ["1"]
    assert versions(moments[1]) == ["1", "2"]
    assert versions(moments[2]) == []


def test_the_background_sequencer_seals_within_a_second(parts, sequencer):
    sequencer.start()
    try:
        write(parts, 3)
        deadline = time.monotonic() + 1.0
        while checked(parts).entries < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert checked(parts).entries == 3
    finally:
        sequencer.stop()
    assert checked(parts).anchored == 3


async def test_history_over_http_filters_pages_and_verifies(guarded, serving, make_key, add_version):
    key = make_key(guarded, "admin")
    for n in range(5):
        add_version(guarded, content=bytes([n]))
    async with serving(guarded, key) as client:
        pages, cursor = [], ""
        while cursor is not None:
            answer = await client.get(f"/api/v1/history?action=model.*&limit=2{cursor}")
            pages.append(answer.json()["items"])
            following = answer.json()["next_cursor"]
            cursor = f"&cursor={following}" if following else None
        await asyncio.to_thread(guarded.get(Sequencer).seal)
        verified = (await client.get("/api/v1/history/verify")).json()
        bad = await client.get("/api/v1/history?at=2026-01-01T00:00:00Z")
        nothing = await client.get("/api/v1/history?at=2026-01-01T00:00:00&service=none")
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [entry["payload"]["version"] for page in pages for entry in page] == ["5", "4", "3", "2", "1"]
    assert verified["intact"]
    assert verified["entries"] >= 6
    assert (bad.status_code, nothing.json()["live"]) == (422, [])


@pytest.mark.parametrize(
    ("asked", "found"), [("12:00:00", 1), ("12:00:00.700", 1), ("12:00:00.500", 0), ("11:59:59", 0)]
)
async def test_a_time_to_the_second_means_its_end(guarded, serving, make_key, asked, found):
    with guarded.database.begin() as tx:
        append(
            tx,
            actor=ROBOT,
            action=SERVICE_REVISION_LIVE,
            subject="service/quick",
            project="default",
            payload={"version": "1"},
        )
        tx.execute(update(history).values(at=datetime(2026, 1, 1, 12, 0, 0, 600_000, tzinfo=UTC)))
    async with serving(guarded, make_key(guarded, "read:default")) as client:
        answer = await client.get(f"/api/v1/history?at=2026-01-01T{asked}Z&service=quick")
    assert len(answer.json()["live"]) == found


async def test_history_of_other_projects_is_not_shown(guarded, serving, make_key, add_version):
    from modelyard.control.identity import create_project

    with guarded.database.begin() as tx:
        create_project(tx, LOCAL, name="team-a", description="", two_person_review=False, journal=append)
    add_version(guarded, "hidden", project="team-a")
    key = make_key(guarded, "read:default")
    async with serving(guarded, key) as client:
        text_of_all = (await client.get("/api/v1/history?limit=500")).text
        named = (await client.get("/api/v1/history?project=team-a")).json()["items"]
        live = await client.get("/api/v1/history?at=2030-01-01T00:00:00Z&service=x&project=team-a")
        verifying = await client.get("/api/v1/history/verify")
    assert "hidden" not in text_of_all
    assert named == []
    assert (live.status_code, verifying.status_code) == (404, 403)


def test_erasing_needs_an_administrator_of_everything(parts):
    from modelyard.control.identity import Principal
    from modelyard.domain.access import parse_scope

    who = Principal(key_id="k", name="k", scopes=(parse_scope("admin:default"),))
    with parts.database.begin() as tx, pytest.raises(Forbidden):
        erase_payload(tx, who, "x", reason="y")
