"""The library over HTTP: what a user of the API meets."""

import hashlib

from modelyard.domain.report import Verdict


async def test_a_version_is_reviewed_deployed_archived_and_deleted(parts, serving, add_version):
    add_version(parts, verdict=Verdict.NEEDS_REVIEW)
    base = "/api/v1/models/digits/versions/1"
    async with serving(parts) as client:
        waiting = (await client.get("/api/v1/reviews")).json()["items"]
        no_reason = await client.post(f"{base}/reject", json={})
        approved = await client.post(f"{base}/approve", json={"reason": "looked at it"})
        alias = await client.put("/api/v1/models/digits/aliases/champion", json={"version": "1"})
        by_alias = (await client.get("/api/v1/models/digits/versions/@champion")).json()
        blocked = await client.post(f"{base}/archive")
        removed = await client.delete("/api/v1/models/digits/aliases/champion")
        early = await client.delete(base)
        archived = await client.post(f"{base}/archive")
        gone = await client.delete(base)
        after = await client.get(base)
    assert [item["name"] for item in waiting] == ["digits"]
    assert waiting[0]["audit"]["verdict"] == "needs_review"
    assert waiting[0]["reason"] == "it is ONNX", "the list says what a person has to look at"
    assert (no_reason.status_code, approved.json()["state"], approved.json()["reason"]) == (
        422,
        "approved",
        "looked at it",
    )
    assert alias.json()["aliases"] == {"champion": "1"}
    assert by_alias["version"] == "1"
    assert [a.status_code for a in (blocked, removed, early, archived, gone, after)] == [409, 204, 409, 200, 204, 404]


async def test_a_file_comes_back_as_it_was_uploaded(parts, serving, add_version):
    content = bytes(range(256)) * 5000
    add_version(parts, content=content)
    async with serving(parts) as client:
        answer = await client.get("/api/v1/models/digits/versions/1/files/model.onnx")
        missing = await client.get("/api/v1/models/digits/versions/1/files/..%2F..%2Fpepper")
    assert answer.content == content
    assert answer.headers["etag"].strip('"') == hashlib.sha256(content).hexdigest()
    assert answer.headers["content-disposition"] == 'attachment; filename="model.onnx"'
    assert answer.headers["content-type"] == "application/octet-stream"
    assert missing.status_code == 404


async def test_damaged_bytes_are_never_given_out(parts, serving, add_version):
    add_version(parts, content=b"precious")
    sha256 = hashlib.sha256(b"precious").hexdigest()
    blob = next(parts.places.artifacts.rglob(sha256))
    blob.chmod(0o600)
    blob.write_bytes(b"damaged!")
    async with serving(parts) as client:
        answer = await client.get("/api/v1/models/digits/versions/1/files/model.onnx")
    assert (answer.status_code, answer.json()["code"]) == (500, "artifact_damaged")


async def test_models_are_searched_filtered_and_paged(parts, serving, add_version):
    for name in ("alpha", "beta", "gamma"):
        add_version(parts, name, description=f"the {name} model")
    async with serving(parts) as client:
        first = (await client.get("/api/v1/models?limit=2")).json()
        rest = (await client.get("/api/v1/models", params={"limit": 2, "cursor": first["next_cursor"]})).json()
        found = (await client.get("/api/v1/models?q=bet")).json()["items"]
        wrong = await client.get("/api/v1/models?sort=size")
        unknown = await client.get("/api/v1/models?colour=red")
    assert [m["name"] for m in first["items"] + rest["items"]] == ["alpha", "beta", "gamma"]
    assert rest["next_cursor"] is None
    assert [m["name"] for m in found] == ["beta"]
    assert [a.status_code for a in (wrong, unknown)] == [422, 422]


async def test_sharing_needs_an_administrator(guarded, serving, make_key, add_version):
    add_version(guarded)
    async with serving(guarded, make_key(guarded, "deploy", "read")) as client:
        tagged = await client.patch("/api/v1/models/digits", json={"tags": ["vision"]})
        shared = await client.patch("/api/v1/models/digits", json={"visibility": "public"})
    assert (tagged.status_code, tagged.json()["tags"]) == (200, ["vision"])
    assert shared.status_code == 403


async def test_who_may_not_archive_learns_nothing_of_its_use(guarded, serving, make_key, add_version):
    from modelyard.control.catalog import VersionUsers

    add_version(guarded)
    guarded.put(VersionUsers, VersionUsers([lambda tx, version: ["service secret"]]))
    async with serving(guarded, make_key(guarded, "deploy:default/other", "read:default")) as client:
        answer = await client.post("/api/v1/models/digits/versions/1/archive")
    assert answer.status_code == 403
    assert "secret" not in answer.text


async def test_what_is_in_use_is_not_archived(parts, serving, add_version):
    from modelyard.control.catalog import VersionUsers

    add_version(parts)
    parts.put(VersionUsers, VersionUsers([lambda tx, version: [f"service {version.model}"]]))
    async with serving(parts) as client:
        answer = await client.post("/api/v1/models/digits/versions/1/archive")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "service digits" in answer.json()["detail"]
