"""Secrets are set and used, and never come out again: not over HTTP, not in history, events, records or tables."""

from modelyard.control.history import append
from modelyard.control.identity import LOCAL, SecretStore, published_secrets
from modelyard.foundation.sealing import SealingKey

TEXT = "sk-nobody-may-read-this"


async def test_a_secret_goes_in_and_only_its_name_comes_out(parts, serving, places) -> None:
    async with serving(parts) as client:
        put = await client.put("/api/v1/secrets/llm", json={"value": TEXT})
        assert (put.status_code, put.json()["name"], put.json()["edition"]) == (200, "llm", 1)
        again = await client.put("/api/v1/secrets/llm", json={"value": TEXT + "2"})
        assert again.json()["edition"] == 2
        listed = await client.get("/api/v1/secrets")
        assert [row["name"] for row in listed.json()["items"]] == ["llm"]
        history = await client.get("/api/v1/history")
        actions = [entry["action"] for entry in history.json()["items"]]
        assert actions.count("secret.set") == 2
        for answer in (put, again, listed, history):
            assert "sk-nobody" not in answer.text
    with parts.database.read() as tx:
        assert parts.get(SecretStore).open(tx, "default", "llm") == TEXT + "2"
        sealed = published_secrets(tx, {("default", "llm"), ("default", "other")})
    assert SealingKey.open(places.sealing_key).unseal(sealed[0].sealed, about="default/llm") == TEXT + "2"
    assert [one.name for one in sealed] == ["llm"]
    assert places.sealing_key.stat().st_mode & 0o777 == 0o600
    parts.database.engine.dispose()
    kept = [path for path in places.data.rglob("*") if path.is_file() and b"sk-nobody" in path.read_bytes()]
    assert kept == []


async def test_a_secret_that_is_used_is_not_deleted(parts, serving) -> None:
    async with serving(parts) as client:
        await client.put("/api/v1/secrets/llm", json={"value": TEXT})
        users = parts.get(SecretStore).users
        users.append(lambda tx, project, name: ["service chat"] if name == "llm" else [])
        refused = await client.delete("/api/v1/secrets/llm")
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert "service chat" in refused.json()["detail"]
        users.clear()
        assert (await client.delete("/api/v1/secrets/llm")).status_code == 204
        assert (await client.delete("/api/v1/secrets/llm")).status_code == 404


async def test_secrets_of_another_project_are_not_there(guarded, serving, make_key) -> None:
    with guarded.database.begin() as tx:
        from modelyard.control.identity import create_project

        create_project(tx, LOCAL, name="team", description="", two_person_review=False, journal=append)
    deployer, reader = make_key(guarded, "deploy:team"), make_key(guarded, "read:team")
    async with serving(guarded, deployer) as client:
        assert (await client.put("/api/v1/secrets/s?project=team", json={"value": TEXT})).status_code == 200
        assert (await client.put("/api/v1/secrets/s?project=default", json={"value": TEXT})).status_code == 404
        assert (await client.get("/api/v1/secrets?project=default")).status_code == 404
        assert (await client.get("/api/v1/secrets?project=team")).status_code == 200
    async with serving(guarded, reader) as client:
        assert (await client.get("/api/v1/secrets?project=team")).status_code == 403
        assert (await client.put("/api/v1/secrets/s?project=team", json={"value": "x"})).status_code == 403


async def test_what_cannot_be_a_secret_is_refused(parts, serving) -> None:
    async with serving(parts) as client:
        for name, body in (("llm", {"value": ""}), ("llm", {"value": "a\nb"}), ("llm", {}), ("No", {"value": "x"})):
            refused = await client.put(f"/api/v1/secrets/{name}", json=body)
            assert refused.status_code == 422, refused.text
            assert refused.json()["hint"]
        assert (await client.get("/api/v1/secrets")).json()["items"] == []
