"""A backup holds everything, is made while others write, shows every damage, and is never put over something."""

import io
import sqlite3
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.engine import make_url

from modelyard.client.backing_up import BackupFile
from modelyard.control.backups import Backups, read_summary, restore_platform
from modelyard.control.backups.archive import ABOUT
from modelyard.control.catalog import Removals, find_model, find_version
from modelyard.control.catalog.decisions import decide
from modelyard.control.history import ANCHOR_FILE, append, chain_key, verify
from modelyard.control.identity import LOCAL, Principal
from modelyard.control.records import METADATA, ControlParts, Database, last_event, open_served_records
from modelyard.domain.access import Scope, Verb
from modelyard.domain.errors.platform import BackupDamaged, Conflict, Forbidden, InvalidRequest, NotFound
from modelyard.domain.lifecycle import VersionAction
from modelyard.foundation.key_files import load_key
from modelyard.foundation.places import Places
from modelyard.integrations.artifact_stores.files import FileArtifactStore

CHANGES_BY_RESTORING = {"history", "outbox", "backups"}
OF_THE_PLACE = {"about", "leadership"}
"""Tables that say where the records are and who leads there: they belong to the place and are not copied."""


@pytest.fixture
def backups(parts: ControlParts) -> Backups:
    removals = Removals(parts.database, artifacts=parts.artifacts, packages=parts.places.packages)
    return Backups(database=parts.database, artifacts=parts.artifacts, places=parts.places, removals=removals)


@pytest.fixture
def add_served(parts: ControlParts, add_version):
    """A version with a package, as intake leaves it."""

    def add(content: bytes = b"weights"):
        version = add_version(parts, content=content)
        package = parts.places.packages / version.digest.removeprefix("sha256:")
        (package / "package.json").write_text('{"name": "digits"}')
        (package / "model.onnx").write_bytes(content * 4000)
        return version

    return add


def save_as_a_client(blocks: Iterator[bytes], path: Path) -> None:
    with BackupFile(path) as file:
        for block in blocks:
            file.write(block)
        file.finish("{}")


def save(backups: Backups, path: Path) -> Path:
    _, blocks = backups.make(LOCAL)
    path.write_bytes(b"".join(blocks))
    return path


def put_back(file: Path, place: Path) -> Places:
    return Places(restore_platform(file, place, store=FileArtifactStore).data)


def rows(database: Database) -> dict[str, list[tuple]]:
    with database.read() as tx:
        tables = {table.name: tx.execute(select(table)).all() for table in METADATA.sorted_tables}
        if database.is_sqlite:
            tables["models_search"] = tx.execute(text("SELECT model_id FROM models_search")).all()
    return {name: sorted(map(tuple, found), key=repr) for name, found in tables.items()}


def opened(places: Places) -> Database:
    return Database.at(places.database)


def test_what_is_put_back_is_row_by_row_and_byte_by_byte_what_was_there(parts, backups, add_served, make_key, tmp_path):
    version = add_served(b"first weights")
    add_served(b"second weights")
    make_key(parts, "infer")
    before = rows(parts.database)
    file = save(backups, tmp_path / "one.modelyard")
    restored = put_back(file, tmp_path / "again")

    after = rows(opened(restored))
    assert {name for name in before if before[name] != after[name]} <= CHANGES_BY_RESTORING | OF_THE_PLACE
    assert len(after["models_search"]) == len(after["models"]) == 1
    for name in CHANGES_BY_RESTORING - {"backups"}:
        assert set(map(repr, before[name])) <= set(map(repr, after[name]))
    again = FileArtifactStore(restored.artifacts)
    assert sorted(again.digests()) == sorted(parts.artifacts.digests())
    for sha256 in again.digests():
        with again.open(sha256) as copy, parts.artifacts.open(sha256) as original:
            assert copy.read() == original.read()
    package = version.digest.removeprefix("sha256:")
    for path in (parts.places.packages / package).iterdir():
        assert (restored.packages / package / path.name).read_bytes() == path.read_bytes()
    assert load_key(restored.pepper) == parts.pepper
    assert [path for path in restored.data.rglob("*") if path.stat().st_mode & 0o077] == []


def test_records_move_from_each_database_to_a_server(parts, backups, add_served, make_key, make_postgres, tmp_path):
    add_served(b"first weights")
    make_key(parts, "infer")
    with parts.database.begin() as tx:
        tx.execute(text("UPDATE projects SET two_person_review = true"))
    before = rows(parts.database)
    file = save(backups, tmp_path / "one.modelyard")
    url = make_url(make_postgres())
    restored = restore_platform(file, tmp_path / "again", store=FileArtifactStore, url=url)
    assert not list(restored.data.glob("modelyard.db*"))
    records = open_served_records(url, backups=tmp_path)
    after = rows(records.database)
    assert {name for name in after if before[name] != after[name]} <= CHANGES_BY_RESTORING | OF_THE_PLACE
    for name in CHANGES_BY_RESTORING - {"backups"}:
        assert set(map(repr, before[name])) <= set(map(repr, after[name]))
    with parts.database.read() as tx:
        last = last_event(tx)
    with closing(records), records.database.read() as tx:
        assert last_event(tx) == last + 1
    with records.database.read() as tx:
        found = verify(tx, key=chain_key(parts.pepper), anchors=restored.data / ANCHOR_FILE)
    assert found.flaws == ()
    records.close()
    with pytest.raises(InvalidRequest, match="never overwrites"):
        restore_platform(file, tmp_path / "third", store=FileArtifactStore, url=url)
    assert not (tmp_path / "third").exists()


def test_the_history_that_is_put_back_still_proves_itself(parts, backups, add_served, serving, tmp_path):
    add_served()
    file = save(backups, tmp_path / "one.modelyard")
    restored = put_back(file, tmp_path / "again")
    database = Database.at(restored.database)
    with database.read() as tx:
        found = verify(tx, key=chain_key(load_key(restored.pepper)), anchors=restored.data / ANCHOR_FILE)
    assert found.flaws == ()


def test_a_backup_made_while_others_write_holds_all_that_was_acknowledged_before_it(parts, backups, tmp_path, caplog):
    stop, acknowledged = threading.Event(), list[str]()

    def write() -> None:
        number = 0
        while not stop.is_set():
            with parts.database.begin() as tx:
                append(tx, actor=LOCAL.actor, action="test.written", subject=f"test/{number}", project=None)
            acknowledged.append(f"test/{number}")
            number += 1

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for attempt in range(5):
            before = list(acknowledged)
            file = save(backups, tmp_path / f"{attempt}.modelyard")
            restored = put_back(file, tmp_path / f"again-{attempt}")
            with closing(sqlite3.connect(restored.database)) as connection:
                kept = [subject for (subject,) in connection.execute("SELECT subject FROM history")]
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            for subject in set(before):
                assert kept.count(subject) >= before.count(subject)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert acknowledged


def test_a_version_deleted_meanwhile_keeps_its_bytes_until_the_backup_is_done(parts, backups, add_served, tmp_path):
    version = add_served(b"soon gone")
    _, blocks = backups.make(LOCAL)
    written = io.BytesIO(next(blocks))
    written.seek(0, io.SEEK_END)
    for action in (VersionAction.ARCHIVE, VersionAction.DELETE):
        with parts.database.begin() as tx:
            found = find_version(tx, find_model(tx, "default", "digits"), version.version)
            decide(tx, LOCAL, version=found, action=action)
    backups.removals.give_back(found)
    assert len(list(parts.artifacts.digests())) == 1
    for block in blocks:
        written.write(block)
    assert list(parts.artifacts.digests()) == []
    file = tmp_path / "one.modelyard"
    file.write_bytes(written.getvalue())
    assert len(list(FileArtifactStore(put_back(file, tmp_path / "again").artifacts).digests())) == 1


def test_a_backup_that_nobody_reads_to_its_end_lets_go_of_everything(parts, backups, add_served):
    add_served()
    _, blocks = backups.make(LOCAL)
    del blocks
    assert not backups.removals.is_held
    assert [path for path in parts.places.backups.iterdir() if path.suffix == ".db"] == []
    with parts.database.read() as tx:
        from modelyard.control.backups.tables import backups as table

        assert [row.state for row in tx.execute(table.select())] == ["cut off"]


@pytest.mark.parametrize("where", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_an_altered_byte_is_found_wherever_it_is(parts, backups, add_served, tmp_path, where):
    add_served()
    file = save(backups, tmp_path / "one.modelyard")
    content = bytearray(file.read_bytes())
    content[int(where * len(content))] ^= 1
    file.write_bytes(content)
    with pytest.raises(BackupDamaged):
        put_back(file, tmp_path / "again")
    assert sorted(path.name for path in tmp_path.iterdir() if "again" in path.name) == []


@pytest.mark.parametrize("cut", [1, 512, 513, 5000])
def test_a_file_that_is_cut_off_is_refused(parts, backups, add_served, tmp_path, cut):
    add_served()
    file = save(backups, tmp_path / "one.modelyard")
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(BackupDamaged, match="cut off"):
        put_back(file, tmp_path / "again")


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 4096, b"about.json\0" + b"x" * 5000])
def test_what_is_no_backup_is_refused(tmp_path, content):
    file = tmp_path / "other"
    file.write_bytes(content)
    with pytest.raises(BackupDamaged):
        read_summary(file)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NotFound, match="there is no file"):
        read_summary(tmp_path / "nowhere.modelyard")


def test_nothing_is_put_over_what_is_there(parts, backups, add_served, tmp_path):
    add_served()
    file = save(backups, tmp_path / "one.modelyard")
    place = tmp_path / "again"
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    with pytest.raises(InvalidRequest, match="not empty"):
        put_back(file, place)
    assert [path.name for path in place.iterdir()] == ["mine.txt"]


def test_a_damaged_artifact_ends_the_backup_with_the_reason_and_leaves_no_file(parts, backups, add_served, tmp_path):
    add_served(b"weights that will rot")
    (sha256,) = parts.artifacts.digests()
    blob = parts.places.artifacts / sha256[:2] / sha256
    blob.chmod(0o600)
    blob.write_bytes(b"weights that have rot")
    _, blocks = backups.make(LOCAL)
    with pytest.raises(BackupDamaged, match=f"given up while it was made.*{sha256[:12]}"):
        save_as_a_client(blocks, tmp_path / "b")
    assert list(tmp_path.glob("*b*.partial")) == []
    assert not (tmp_path / "b").exists()


def test_a_backup_is_never_written_over_another_file(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(Conflict, match="is there already"):
        BackupFile(tmp_path / "mine")


def test_a_backup_takes_an_administrator_of_the_whole_platform(backups):
    somebody = Principal(key_id="k", name="k", scopes=(Scope(Verb.ADMIN, "team-a"),))
    with pytest.raises(Forbidden):
        backups.make(somebody)


def test_a_member_that_does_not_belong_is_never_unpacked(parts, backups, add_served, tmp_path):
    from modelyard.foundation.sealed_tar import Member, SealedTarWriter

    add_served()
    with tarfile.open(save(backups, tmp_path / "one.modelyard")) as archive:
        about = archive.extractfile(ABOUT).read()
    for name in ("../outside", "secrets/../../outside", "/tmp/outside", "packages/x/y", "other"):
        members = [Member(ABOUT, len(about), about), Member(name, 1, b"x")]
        file = tmp_path / "forged.modelyard"
        file.write_bytes(b"".join(SealedTarWriter().blocks(members)))
        with pytest.raises(BackupDamaged, match="does not belong"):
            put_back(file, tmp_path / "again")
    assert not (tmp_path / "outside").exists()
    assert list(tmp_path.glob(".again*")) == []
