"""Keys: made, shown once, checked, expired, revoked; the first administrator; who may give what away."""

import asyncio
import json
import re
from datetime import timedelta

import pytest
from sqlalchemy import select

from modelyard.control.history import append
from modelyard.control.identity import (
    LOCAL,
    Authenticator,
    NewKey,
    Principal,
    create_key,
    offer_bootstrap,
    published_keys,
    revoke_key,
)
from modelyard.control.records import METADATA, Database
from modelyard.domain.access import KEY_PATTERN, key_id, matches, parse_scope
from modelyard.domain.errors.platform import (
    Forbidden,
    InvalidRequest,
    RateLimited,
    StartRefused,
    Unauthenticated,
    Unavailable,
)
from modelyard.foundation.key_files import load_key


@pytest.fixture
def checking(guarded):
    return Authenticator(guarded.database, pepper=guarded.pepper, settings=guarded.settings.keys)


def scoped(*scopes: str, project: str = "default") -> Principal:
    return Principal(key_id="tester00", name="t", scopes=tuple(parse_scope(s) for s in scopes), project=project)


def wanted(*scopes: str, project: str | None = None) -> NewKey:
    return NewKey(name="k", scopes=tuple(parse_scope(s) for s in scopes), lifetime=timedelta(days=90), project=project)


def dump(parts) -> str:
    """Every value of every table."""
    with parts.database.read() as tx:
        return "\n".join(repr(tuple(row)) for table in METADATA.sorted_tables for row in tx.execute(select(table)))


def test_a_key_has_the_published_shape_and_names_its_principal(guarded, checking, make_key):
    key = make_key(guarded, "infer:default/digits", "read")
    assert KEY_PATTERN.fullmatch(key)
    who = checking.principal(key, source="here")
    assert (who.key_id, who.project) == (key_id(key), "default")
    assert [str(scope) for scope in who.scopes] == ["infer:default/digits", "read"]


def test_no_key_lies_in_the_records(guarded, make_key):
    key = make_key(guarded, "admin")
    content = dump(guarded)
    assert key not in content
    assert key[9:] not in content
    assert not KEY_PATTERN.search(content)


def test_a_mistyped_key_costs_no_look_up(guarded, checking, make_key):
    key = make_key(guarded, "read")
    for wrong in ("", "nonsense", key[:-1], key[:-1] + ("0" if key[-1] != "0" else "1"), key + "x", None):
        with pytest.raises(Unauthenticated):
            checking.principal(wrong, source="here")
    assert checking.lookups == 0


def test_a_key_ends_when_it_expires(guarded, checking, make_key, clock):
    key = make_key(guarded, "read", days=1)
    clock.pass_time(hours=23, minutes=59)
    assert checking.principal(key, source="here")
    clock.pass_time(minutes=1)
    with pytest.raises(Unauthenticated):
        checking.principal(key, source="here")


def test_a_revoked_key_works_nowhere(guarded, checking, make_key):
    key = make_key(guarded, "read")
    woken = []
    guarded.database.subscribe("keys", lambda: woken.append(1))
    with guarded.database.begin() as tx:
        assert [record.id for record in published_keys(tx)] == [key_id(key)]
        revoke_key(tx, LOCAL, key_id(key), journal=append)
        revoke_key(tx, LOCAL, key_id(key), journal=append)
        assert published_keys(tx) == ()
    assert woken == [1]
    with pytest.raises(Unauthenticated):
        checking.principal(key, source="here")


def test_published_keys_are_checked_by_the_model_servers_code(guarded, make_key, clock):
    key, other = make_key(guarded, "infer"), make_key(guarded, "infer")
    make_key(guarded, "infer", days=0.5)
    clock.pass_time(days=1)
    with guarded.database.read() as tx:
        published = {record.id: record for record in published_keys(tx)}
    assert set(published) == {key_id(key), key_id(other)}
    now = clock.now().timestamp()
    assert matches(published[key_id(key)], key, pepper=guarded.pepper, now=now)
    assert not matches(published[key_id(key)], other, pepper=guarded.pepper, now=now)
    assert not matches(published[key_id(key)], key, pepper=b"other", now=now)


def test_nobody_gives_away_more_than_they_have(guarded):
    from modelyard.control.identity import create_project

    with guarded.database.begin() as tx:
        create_project(tx, LOCAL, name="team-a", description="", two_person_review=False, journal=append)
        local = scoped("admin:team-a", project="team-a")
        assert create_key(tx, local, wanted("deploy:team-a"), pepper=b"p", journal=append)[0].project == "team-a"
        for scopes, project in (
            (("read",), None),
            (("read:default",), None),
            (("admin",), None),
            (("read:team-a", "read:default"), None),
            (("read:team-a",), "default"),
        ):
            if project == "default" and scopes == ("read:team-a",):
                continue
            with pytest.raises(Forbidden):
                create_key(tx, local, wanted(*scopes, project=project), pepper=b"p", journal=append)
        with pytest.raises(Forbidden):
            create_key(tx, scoped("deploy"), wanted("read"), pepper=b"p", journal=append)


@pytest.mark.parametrize(
    "new",
    [
        NewKey(name=" ", scopes=(parse_scope("read"),), lifetime=None),
        NewKey(name="a\nb", scopes=(parse_scope("read"),), lifetime=None),
        NewKey(name="a", scopes=(), lifetime=None),
        NewKey(name="a", scopes=(parse_scope("read"),), lifetime=timedelta()),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(guarded, new):
    with guarded.database.begin() as tx, pytest.raises(InvalidRequest):
        create_key(tx, LOCAL, new, pepper=b"p", journal=append)


def test_use_is_noted_to_the_minute(guarded, checking, make_key, clock):
    key = make_key(guarded, "read")

    def last_used():
        from modelyard.control.identity import find_key

        with guarded.database.read() as tx:
            return find_key(tx, key_id(key)).last_used_at

    assert last_used() is None
    checking.principal(key, source="here")
    first = last_used()
    clock.pass_time(seconds=30)
    checking.principal(key, source="here")
    assert last_used() == first
    clock.pass_time(seconds=31)
    checking.principal(key, source="here")
    assert last_used() > first


def test_records_that_cannot_be_written_do_not_keep_a_key_out(guarded, checking, make_key, monkeypatch):
    key = make_key(guarded, "read")
    monkeypatch.setattr("modelyard.control.records.engines.BUSY_MS", 20)
    monkeypatch.setattr("modelyard.control.records.engines.LOCK_MS", 20)
    guarded.database.close()  # the next connections wait for the lock no longer than that
    another = Database(guarded.database.url)
    with another.begin():
        with pytest.raises(Unavailable), guarded.database.begin():
            pass
        assert checking.principal(key, source="here").key_id == key_id(key)
    another.close()


def test_guessing_is_delayed_and_nobody_else_is(guarded, checking, make_key, clock):
    right, other = make_key(guarded, "read"), make_key(guarded, "read")
    waits = []
    for _ in range(1000):
        from modelyard.domain.access import make_key as random_key

        try:
            checking.principal(random_key(), source="attacker")
        except RateLimited as error:
            waits.append(error.retry_after_s)
        except Unauthenticated:
            pass
    assert len(waits) > 900
    assert all(0 < wait <= guarded.settings.keys.longest_delay_s for wait in waits)
    assert checking.principal(right, source="elsewhere")
    assert checking.principal(other, source="attacker"), "a right key is not delayed by other keys' failures"
    clock.pass_time(seconds=guarded.settings.keys.longest_delay_s + 1)
    with pytest.raises(Unauthenticated):
        checking.principal(random_key(), source="attacker")


def test_the_pepper_is_made_once_and_private(tmp_path):
    first = load_key(tmp_path / "secrets" / "pepper")
    assert len(first) == 32
    assert load_key(tmp_path / "secrets" / "pepper") == first
    assert (tmp_path / "secrets" / "pepper").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_pepper_that_others_can_read_is_refused(tmp_path, mode):
    load_key(tmp_path / "pepper")
    (tmp_path / "pepper").chmod(mode)
    with pytest.raises(StartRefused, match="others"):
        load_key(tmp_path / "pepper")


@pytest.mark.parametrize("content", ["", "xyz", "00" * 31, "é" * 32])
def test_a_damaged_pepper_is_refused(tmp_path, content):
    load_key(tmp_path / "pepper")
    (tmp_path / "pepper").write_text(content)
    with pytest.raises(StartRefused, match="damaged"):
        load_key(tmp_path / "pepper")


async def test_the_first_token_works_once(guarded, serving):
    file = guarded.places.data / "bootstrap.token"
    assert file.stat().st_mode & 0o777 == 0o600
    token = file.read_text().strip()
    async with serving(guarded) as client:
        wrong = await client.post("/api/v1/keys/bootstrap", json={"token": "x" * 43})
        first = await client.post("/api/v1/keys/bootstrap", json={"token": token})
        second = await client.post("/api/v1/keys/bootstrap", json={"token": token})
        key = first.json()["key"]
        mine = await client.get("/api/v1/me", headers={"authorization": f"Bearer {key}"})
    assert [answer.status_code for answer in (wrong, first, second)] == [401, 201, 401]
    assert first.headers["cache-control"] == "no-store"
    assert mine.json()["scopes"] == ["admin"]
    assert not file.exists()
    assert token not in dump(guarded)


async def test_the_first_token_ends_after_its_time(guarded, serving, clock):
    token = (guarded.places.data / "bootstrap.token").read_text().strip()
    clock.pass_time(minutes=15)
    async with serving(guarded) as client:
        late = await client.post("/api/v1/keys/bootstrap", json={"token": token})
    assert late.status_code == 401


def test_no_token_is_offered_once_there_is_an_administrator(guarded, make_key):
    data, lifetime = guarded.places.data, timedelta(minutes=15)
    old = (data / "bootstrap.token").read_text()
    assert offer_bootstrap(guarded.database, data=data, pepper=guarded.pepper, lifetime=lifetime)
    assert (data / "bootstrap.token").read_text() != old, "a restart makes a new one"
    make_key(guarded, "admin")
    assert offer_bootstrap(guarded.database, data=data, pepper=guarded.pepper, lifetime=lifetime) is None
    assert not (data / "bootstrap.token").exists()


async def test_a_keys_life_over_http(guarded, serving, make_key):
    admin = make_key(guarded, "admin")
    async with serving(guarded, admin) as client:
        made = await client.post("/api/v1/keys", json={"name": "ci", "scopes": ["upload:default", "read"]})
        listed = (await client.get("/api/v1/keys")).json()["items"]
        theirs = {"authorization": f"Bearer {made.json()['key']}"}
        before = await client.get("/api/v1/models", headers=theirs)
        refused = await client.get("/api/v1/keys", headers=theirs)
        revoked = await client.delete(f"/api/v1/keys/{made.json()['id']}")
        after = await client.get("/api/v1/models", headers=theirs)
        last = await client.delete(f"/api/v1/keys/{key_id(admin)}")
        unknown = await client.delete("/api/v1/keys/nothing0")
    assert made.status_code == 201
    assert "key" not in listed[0]
    assert {item["name"] for item in listed} == {"ci", "test admin"}
    assert [answer.status_code for answer in (before, refused, revoked, after)] == [200, 403, 200, 401]
    assert revoked.json()["state"] == "revoked"
    assert after.headers["www-authenticate"].startswith("Bearer")
    assert (last.status_code, unknown.status_code) == (409, 404)


async def test_a_repeated_creation_does_not_show_the_key_again(guarded, serving, make_key):
    body, headers = {"name": "ci", "scopes": ["read"]}, {"idempotency-key": "k1"}
    async with serving(guarded, make_key(guarded, "admin")) as client:
        first = await client.post("/api/v1/keys", json=body, headers=headers)
        again = await client.post("/api/v1/keys", json=body, headers=headers)
    assert first.json()["key"]
    assert again.json()["key"] is None
    assert again.json()["id"] == first.json()["id"]
    assert first.json()["key"] not in dump(guarded)


async def test_history_and_events_name_keys_without_showing_them(guarded, serving, make_key):
    async with serving(guarded, make_key(guarded, "admin")) as client:
        await client.post("/api/v1/keys", json={"name": "ci", "scopes": ["read"]})
        text = (await client.get("/api/v1/history?action=key.*")).text
    assert json.loads(text)["items"][0]["payload"]["name"] == "ci"
    assert not re.search(KEY_PATTERN, text)


@pytest.mark.parametrize(
    "header", ["Basic abc", "Bearer", "Bearer ", "Bearer x y", "bearer eyJhbGciOiJub25lIn0.e30.", "mdy_live_x"]
)
async def test_every_other_authorisation_is_refused(guarded, serving, header):
    async with serving(guarded) as client:
        answer = await client.get("/api/v1/models", headers={"authorization": header})
    assert (answer.status_code, answer.json()["code"]) == (401, "auth_required")


async def test_a_foreign_thing_and_a_missing_one_look_the_same(guarded, serving, make_key, add_version):
    from modelyard.control.identity import create_project

    with guarded.database.begin() as tx:
        create_project(tx, LOCAL, name="team-a", description="", two_person_review=False, journal=append)
    add_version(guarded, "hidden", project="team-a")
    key = make_key(guarded, "read:default", "deploy:default", "approve:default")
    paths = [
        ("GET", "/api/v1/models/{}"),
        ("PATCH", "/api/v1/models/{}"),
        ("GET", "/api/v1/models/{}/versions"),
        ("GET", "/api/v1/models/{}/versions/1"),
        ("POST", "/api/v1/models/{}/versions/1/approve"),
        ("POST", "/api/v1/models/{}/versions/1/archive"),
        ("DELETE", "/api/v1/models/{}/versions/1"),
        ("GET", "/api/v1/models/{}/versions/1/files/model.onnx"),
        ("DELETE", "/api/v1/models/{}/aliases/champion"),
    ]
    async with serving(guarded, key) as client:
        for method, path in paths:
            answers = []
            for name in ("hidden", "absent"):
                body = {"json": {}} if method in ("PATCH", "POST") and "archive" not in path else {}
                answer = await client.request(method, path.format(name), params={"project": "team-a"}, **body)
                document = answer.json()
                document.pop("request_id")
                answers.append((answer.status_code, json.dumps(document).replace(name, "NAME")))
            assert answers[0] == answers[1], (method, path)
            assert answers[0][0] == 404, (method, path)


async def test_many_checks_at_once_are_all_right(guarded, serving, make_key):
    key = make_key(guarded, "read")
    async with serving(guarded, key) as client:
        answers = await asyncio.gather(*(client.get("/api/v1/models") for _ in range(40)))
    assert {answer.status_code for answer in answers} == {200}


async def test_limits_of_a_key_and_quotas_of_a_project_are_kept_published_and_shown(guarded, serving, make_key):
    from modelyard.control.identity import published_quotas
    from modelyard.domain.access import KeyLimits, ProjectQuota, Quota

    async with serving(guarded, make_key(guarded, "admin")) as client:
        limits = {"requests_per_s": 5, "max_in_flight": 2, "requests_per_day": 100, "requests_per_month": None}
        made = await client.post("/api/v1/keys", json={"name": "k", "scopes": ["infer"], "limits": limits})
        assert made.status_code == 201, made.text
        assert made.json()["limits"] == limits
        with guarded.database.read() as tx:
            record = next(record for record in published_keys(tx) if record.id == made.json()["id"])
        assert record.limits == KeyLimits(requests_per_s=5, max_in_flight=2, quotas=(Quota(window="day", most=100),))
        for wrong in ({"requests_per_s": 0}, {"max_in_flight": 0}, {"requests_per_day": -1}, {"per_hour": 1}):
            body = {"name": "k", "scopes": ["infer"], "limits": wrong}
            assert (await client.post("/api/v1/keys", json=body)).status_code == 422
        changed = await client.patch("/api/v1/projects/default", json={"requests_per_day": 7})
        assert (changed.json()["requests_per_day"], changed.json()["requests_per_month"]) == (7, None)
        with guarded.database.read() as tx:
            assert published_quotas(tx) == (ProjectQuota(project="default", quotas=(Quota(window="day", most=7),)),)
        kept = await client.patch("/api/v1/projects/default", json={"description": "ours"})
        assert kept.json()["requests_per_day"] == 7
        lifted = await client.patch("/api/v1/projects/default", json={"requests_per_day": None})
        assert lifted.json()["requests_per_day"] is None
        with guarded.database.read() as tx:
            assert published_quotas(tx) == ()
    async with serving(guarded, make_key(guarded, "admin:default")) as client:
        refused = await client.patch("/api/v1/projects/default", json={"requests_per_day": 10**6})
        assert refused.status_code == 403, "who administers a project does not set what it may take"
