"""The library through its services: registration, choice, decisions, search, removal."""

import hashlib

import pytest

from modelyard.control.catalog import find_model, find_version, package_directory, resolve
from modelyard.control.catalog.decisions import decide
from modelyard.control.catalog.library import ModelChanges, change_model, set_alias
from modelyard.control.catalog.removal import Removals
from modelyard.control.catalog.search import Wanted, search_models
from modelyard.control.history.reading import Wanted as WantedEntries
from modelyard.control.history.reading import list_entries
from modelyard.control.identity import LOCAL, Principal, Visibility
from modelyard.domain.access import parse_scope
from modelyard.domain.errors.platform import Conflict, Forbidden, InvalidRequest, NotFound
from modelyard.domain.lifecycle import VersionAction, VersionState
from modelyard.domain.report import Verdict


def principal(*scopes: str, key_id: str = "bob00000", project: str = "default") -> Principal:
    return Principal(key_id=key_id, name="bob", scopes=tuple(parse_scope(scope) for scope in scopes), project=project)


def test_versions_are_numbered_per_model(parts, add_version):
    assert [add_version(parts, content=bytes([n])).version for n in range(3)] == ["1", "2", "3"]
    assert add_version(parts, "iris").version == "1"


def test_numbers_go_on_after_a_named_version(parts, add_version):
    add_version(parts, version="7", content=b"a")
    assert add_version(parts, content=b"b").version == "8"
    assert add_version(parts, version="beta", content=b"c").version == "beta"
    assert add_version(parts, content=b"d").version == "9"


def test_a_version_never_changes_its_content(parts, add_version):
    first = add_version(parts, version="1", content=b"a")
    assert add_version(parts, version="1", content=b"a").id == first.id
    with pytest.raises(Conflict, match="other content"):
        add_version(parts, version="1", content=b"b")


def test_a_refused_upload_is_never_registered(parts, add_version):
    with pytest.raises(Conflict):
        add_version(parts, verdict=Verdict.REFUSED)
    with parts.database.read() as tx, pytest.raises(NotFound):
        find_model(tx, "default", "digits")


def test_the_champion_is_deployed_before_the_newest(parts, add_version):
    for content in (b"1", b"2"):
        add_version(parts, content=content)
    with parts.database.begin() as tx:
        assert resolve(tx, "default", "digits").version.version == "2"
        assert resolve(tx, "default", "digits").how == "newest approved"
        set_alias(tx, LOCAL, find_model(tx, "default", "digits"), "champion", "1")
        chosen = resolve(tx, "default", "digits")
    assert (chosen.version.version, chosen.how) == ("1", "alias champion")


def test_only_approved_versions_are_deployed(parts, add_version):
    add_version(parts, verdict=Verdict.NEEDS_REVIEW)
    with parts.database.read() as tx:
        with pytest.raises(Conflict, match="no version"):
            resolve(tx, "default", "digits")
        with pytest.raises(Conflict, match="needs_review"):
            resolve(tx, "default", "digits", version="1")
        with pytest.raises(NotFound):
            resolve(tx, "default", "digits", alias="none")
        with pytest.raises(InvalidRequest):
            resolve(tx, "default", "digits", version="1", alias="a")


def test_every_decision_has_its_entry(parts, add_version):
    version = add_version(parts, verdict=Verdict.NEEDS_REVIEW)
    with parts.database.begin() as tx:
        version = decide(tx, LOCAL, version=version, action=VersionAction.APPROVE)
        version = decide(tx, LOCAL, version=version, action=VersionAction.ARCHIVE)
        version = decide(tx, LOCAL, version=version, action=VersionAction.RESTORE)
        entries = list_entries(tx, LOCAL, WantedEntries(subject="model/digits")).items
    assert version.state is VersionState.APPROVED
    assert [entry.action for entry in entries] == [
        "model.version_restored",
        "model.version_archived",
        "model.version_approved",
        "model.version_added",
    ]


def test_a_decision_that_fails_leaves_no_entry(parts, add_version):
    version = add_version(parts)
    with pytest.raises(InvalidRequest), parts.database.begin() as tx:
        decide(tx, LOCAL, version=version, action=VersionAction.REJECT)
    with parts.database.read() as tx:
        assert len(list_entries(tx, LOCAL, WantedEntries(action="model.version_rej*")).items) == 0


def test_the_author_does_not_approve_where_two_are_asked_for(parts, add_version):
    from modelyard.control.history import append
    from modelyard.control.identity import change_project

    version = add_version(parts, verdict=Verdict.NEEDS_REVIEW)
    author = principal("approve", key_id="alice000")
    with parts.database.begin() as tx:
        change_project(tx, LOCAL, name="default", changes={"two_person_review": True}, journal=append)
    with pytest.raises(Forbidden, match="second person"), parts.database.begin() as tx:
        decide(tx, author, version=version, action=VersionAction.APPROVE)
    with parts.database.begin() as tx:
        approved = decide(tx, principal("approve"), version=version, action=VersionAction.APPROVE)
    assert approved.decided_by == "bob"


def test_a_scope_for_one_model_decides_on_no_other(parts, add_version):
    version = add_version(parts, verdict=Verdict.NEEDS_REVIEW)
    with parts.database.begin() as tx, pytest.raises(NotFound):
        decide(tx, principal("approve:default/iris"), version=version, action=VersionAction.APPROVE)
    with parts.database.begin() as tx, pytest.raises(Forbidden):
        decide(tx, principal("read:default/digits"), version=version, action=VersionAction.APPROVE)


def test_what_an_alias_points_at_stays(parts, add_version):
    version = add_version(parts)
    with parts.database.begin() as tx:
        set_alias(tx, LOCAL, find_model(tx, "default", "digits"), "champion", "1")
        version = find_version(tx, find_model(tx, "default", "digits"), "1")
        with pytest.raises(Conflict, match="@champion"):
            decide(tx, LOCAL, version=version, action=VersionAction.ARCHIVE)


def test_deleting_gives_back_only_what_no_other_version_needs(parts, add_version):
    first, second = add_version(parts, content=b"same"), add_version(parts, "iris", content=b"same")
    sha256 = hashlib.sha256(b"same").hexdigest()
    for version in (first, second):
        with parts.database.begin() as tx:
            archived = decide(tx, LOCAL, version=version, action=VersionAction.ARCHIVE)
            deleted = decide(tx, LOCAL, version=archived, action=VersionAction.DELETE)
        removals = Removals(parts.database, artifacts=parts.artifacts, packages=parts.places.packages)
        removals.give_back(deleted)
        assert parts.artifacts.exists(sha256) is (version is first)
        assert package_directory(parts.places.packages, deleted).exists() is (version is first)
    assert add_version(parts, content=b"new").version == "2", "a deleted version's name is not used again"


def test_search_finds_by_words_tags_and_labels(parts, add_version):
    add_version(parts, "digits", description="Handwritten numbers from bank forms")
    add_version(parts, "iris", card="Petal length of flowers")
    with parts.database.begin() as tx:
        change_model(tx, LOCAL, find_model(tx, "default", "iris"), ModelChanges(tags=["botany"]))

    def found(**wanted) -> list[str]:
        with parts.database.read() as tx:
            return [m.name for m in search_models(tx, LOCAL, Wanted(project="default", **wanted)).items]

    assert found(text="handwr bank") == ["digits"]
    assert found(text="botany") == found(text="petal") == found(tag="botany") == ["iris"]
    assert found(text='" OR * NEAR(') == []
    assert found(text="%") == []
    assert found(task="classification", state=VersionState.APPROVED, author="alice") == ["digits", "iris"]
    assert found(state=VersionState.REJECTED) == []


@pytest.mark.parametrize("sort", ["name", "-name", "created", "-created", "updated", "-updated"])
def test_pages_hold_every_model_once_in_every_order(parts, add_version, clock, sort):
    names = [f"m{n}" for n in range(7)]
    for name in names:
        add_version(parts, name)
        clock.pass_time(milliseconds=1)
    seen, cursor = [], None
    while True:
        with parts.database.read() as tx:
            page = search_models(tx, LOCAL, Wanted(project="default", sort=sort, limit=3, cursor=cursor))
        seen += [model.name for model in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == (sorted(names, reverse=True) if sort.startswith("-") else names)


def test_a_foreign_cursor_is_refused(parts):
    with parts.database.read() as tx, pytest.raises(InvalidRequest, match="cursor"):
        search_models(tx, LOCAL, Wanted(project="default", cursor="WzFd"))


def test_visibility_decides_who_sees_a_model(parts, add_version):
    from modelyard.control.history import append
    from modelyard.control.identity import create_project

    with parts.database.begin() as tx:
        for name in ("team-a", "team-b"):
            create_project(tx, LOCAL, name=name, description="", two_person_review=False, journal=append)
    add_version(parts, "secret", project="team-a")
    other = principal("read:team-b", project="team-b")

    def seen() -> list[str]:
        with parts.database.read() as tx:
            names = [model.name for model in search_models(tx, other, Wanted(project="*")).items]
            try:
                find_model(tx, "team-a", "secret", seen_by=other)
            except NotFound:
                assert names == []
            return names

    def change(**changes) -> None:
        with parts.database.begin() as tx:
            change_model(tx, LOCAL, find_model(tx, "team-a", "secret"), ModelChanges(**changes))

    assert seen() == []
    change(visibility=Visibility.SHARED, shared_with=["team-b"])
    assert seen() == ["secret"]
    change(shared_with=[])
    assert seen() == []
    change(visibility=Visibility.PUBLIC)
    assert seen() == ["secret"]
