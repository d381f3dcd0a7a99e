"""Jobs in the records: accepted, claimed and done once; tokens, leases, retries, dead letters, scopes."""

import threading
from datetime import timedelta

import pytest
from job_kit import Desk
from sqlalchemy import select

from modelyard.control.history.tables import history
from modelyard.control.identity import LOCAL, Principal
from modelyard.control.identity.tables import keys
from modelyard.control.records import events_after
from modelyard.domain.access import parse_scope
from modelyard.domain.errors.platform import (
    ClaimLost,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
)

ERROR = {"code": "job_failed", "title": "The job failed", "detail": "it broke", "hint": ""}


def someone(*scopes: str, name: str = "someone") -> Principal:
    return Principal(key_id=name, name=name, scopes=tuple(parse_scope(scope) for scope in scopes))


def actions(desk: Desk) -> list[str]:
    with desk.parts.database.read() as tx:
        return [e.kind for e in events_after(tx, 0, limit=500) if e.kind.startswith("job.")]


def test_a_job_goes_from_submitted_to_succeeded_with_a_history_entry_for_each_change(desk: Desk) -> None:
    number = desk.submit()
    assert desk.show(number)["state"] == "queued"
    claim = desk.claim()
    assert (claim.job, claim.token, claim.parameters["chunk_rows"]) == (number, 1, 256)
    desk.claims.heartbeat(desk.word(claim, progress={"done": 0.5, "text": "half"}))
    assert desk.show(number)["progress"] == {"done": 0.5, "text": "half"}
    out = desk.stored(b"predictions")
    files = {"out.csv": {"sha256": out, "size_bytes": 11}}
    desk.claims.finish(desk.word(claim, result={"rows": 1}, files=files, log=desk.stored(b"log")))
    shown = desk.show(number)
    assert (shown["state"], shown["result"]) == ("succeeded", {"rows": 1})
    assert [file["name"] for file in shown["files"]] == ["out.csv"]
    assert [(a["attempt"], a["outcome"]) for a in shown["attempts"]] == [(1, "succeeded")]
    assert actions(desk) == ["job.submitted", "job.started", "job.progress", "job.succeeded"]
    with desk.parts.database.read() as tx:
        told = tx.scalars(select(history.c.action).where(history.c.subject == f"job/{number}")).all()
    assert sorted(told) == ["job.started", "job.submitted", "job.succeeded"]


def test_the_same_idempotency_key_is_one_job(desk: Desk) -> None:
    first = desk.submit(key="k-1")
    assert desk.submit(key="k-1") == first
    with pytest.raises(Conflict):
        desk.submit(key="k-1", priority=9)


def test_finishing_twice_has_one_effect_and_an_old_token_is_refused(desk: Desk) -> None:
    number = desk.submit()
    old = desk.claim("w1")
    desk.clock.pass_time(seconds=60)
    desk.keeper.sweep()
    assert desk.show(number)["state"] == "queued"
    new = desk.claim("w2")
    assert new.token == old.token + 1
    for say in (desk.claims.heartbeat, desk.claims.finish, desk.claims.fail, desk.claims.give_back):
        with pytest.raises(ClaimLost):
            say(desk.word(old, result={"who": "old"}))
    desk.claims.finish(desk.word(new, result={"who": "new"}))
    desk.claims.finish(desk.word(new, result={"who": "new, again"}))
    assert desk.show(number)["result"] == {"who": "new"}
    assert actions(desk).count("job.succeeded") == 1


def test_of_many_workers_each_job_gets_one(desk: Desk) -> None:
    numbers = {desk.submit() for _ in range(8)}
    got: list[str] = []

    def work(name: str) -> None:
        while (claim := desk.claims.claim(name)) is not None:
            got.append(claim.job)
            desk.claims.finish(desk.word(claim, result={}))

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(numbers)


def test_a_higher_priority_goes_first_then_the_older_job(desk: Desk) -> None:
    order = []
    for priority in (4, 9, 0, 4):
        order.append(desk.submit(priority=priority))
        desk.clock.pass_time(seconds=1)
    got = [desk.claim(f"w{n}").job for n in range(4)]
    assert got == [order[1], order[0], order[3], order[2]]


def test_a_job_of_later_is_not_begun_before(desk: Desk) -> None:
    number = desk.submit(not_before=desk.clock.now() + timedelta(hours=1))
    assert desk.show(number)["state"] == "scheduled"
    desk.keeper.sweep()
    assert desk.claims.claim("w1") is None
    desk.clock.pass_time(hours=1)
    desk.keeper.sweep()
    assert desk.claim().job == number


def test_a_failing_job_is_tried_again_later_and_ends_as_a_dead_letter_with_its_log(desk: Desk) -> None:
    number = desk.submit(attempts=2, pause_s=10)
    for attempt in (1, 2):
        claim = desk.claim()
        log = desk.stored(f"log {attempt}".encode())
        desk.claims.fail(desk.word(claim, error=ERROR, log=log))
        desk.claims.fail(desk.word(claim, error=ERROR, log=log))
        if attempt == 1:
            assert desk.show(number)["state"] == "scheduled"
            assert desk.claims.claim("w1") is None
            desk.clock.pass_time(seconds=11)
            desk.keeper.sweep()
    shown = desk.show(number)
    assert (shown["state"], shown["error"], shown["failed_attempts"]) == ("dead", ERROR, 2)
    assert [each["has_log"] for each in shown["attempts"]] == [True, True]
    page = desk.jobs.listing(LOCAL, project=None, state="dead", kind=None, limit=10, cursor=None)
    assert [job.id for job in page.items] == [number]
    assert desk.jobs.retry(LOCAL, number)["state"] == "queued"
    desk.claims.finish(desk.word(desk.claim(), result={}))
    assert desk.show(number)["state"] == "succeeded"


def test_what_is_refused_is_not_tried_again(desk: Desk) -> None:
    number = desk.submit()
    desk.claims.fail(desk.word(desk.claim(), failure="refused", error=ERROR))
    assert desk.show(number)["state"] == "failed"


def test_a_cancelled_job_loses_its_claim_and_keeps_no_result(desk: Desk) -> None:
    number = desk.submit()
    claim = desk.claim()
    assert desk.jobs.cancel(LOCAL, number, why="enough")["state"] == "cancelled"
    assert desk.jobs.cancel(LOCAL, number)["state"] == "cancelled"
    with pytest.raises(ClaimLost, match="cancelled"):
        desk.claims.heartbeat(desk.word(claim))
    with pytest.raises(ClaimLost):
        desk.claims.finish(desk.word(claim, result={"late": True}))
    assert desk.show(number)["result"] is None
    with pytest.raises(Conflict, match="succeeded"):
        desk.jobs.cancel(LOCAL, finished(desk))


def finished(desk: Desk) -> str:
    number = desk.submit()
    desk.claims.finish(desk.word(desk.claim(), result={}))
    return number


def test_a_worker_that_comes_back_says_that_it_lost_its_job(desk: Desk) -> None:
    number = desk.submit()
    first = desk.claim("w1")
    again = desk.claim("w1")
    assert (again.job, again.token) == (number, first.token + 1)
    assert [each["outcome"] for each in desk.show(number)["attempts"]] == ["lost", "running"]


def test_a_job_that_ends_every_worker_is_given_up(desk: Desk) -> None:
    number = desk.submit()
    for _ in range(20):
        assert desk.claims.claim("w1") is not None
    assert desk.claims.claim("w1") is None
    assert (desk.show(number)["state"], desk.show(number)["error"]["code"]) == ("dead", "worker_lost")


def test_a_job_given_back_counts_no_attempt(desk: Desk) -> None:
    number = desk.submit()
    desk.claims.give_back(desk.word(desk.claim()))
    shown = desk.show(number)
    assert (shown["state"], shown["failed_attempts"]) == ("queued", 0)


def test_a_key_for_the_service_lives_as_long_as_the_claim(desk: Desk) -> None:
    desk.submit()
    claim = desk.claim()
    assert claim.service is not None
    assert claim.service.url == "http://x/default/iris"
    with desk.parts.database.read() as tx:
        row = tx.execute(select(keys)).one()
    assert (row.scopes, row.revoked_at) == (["infer:default/iris"], None)
    desk.claims.finish(desk.word(claim, result={}))
    with desk.parts.database.read() as tx:
        assert tx.execute(select(keys.c.revoked_at)).scalar_one() is not None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"parameters": {"service": "iris", "chunk": 3}}, "parameters.chunk"),
        ({"parameters": {"service": "iris", "chunk_rows": 0}}, "parameters.chunk_rows"),
        ({"parameters": {"service": "iris", "chunk_rows": True}}, "parameters.chunk_rows"),
        ({"parameters": {"service": "iris", "format": "xls"}}, "parameters.format"),
        ({"parameters": {}}, "parameters.service"),
    ],
)
def test_a_bad_job_is_refused_at_once_with_its_field(desk: Desk, change: dict, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        desk.submit(**change)
    assert field in [each["field"] for each in refused.value.details]
    assert field in refused.value.detail
    assert desk.claims.claim("w1") is None


def test_a_job_needs_what_it_names(desk: Desk) -> None:
    with pytest.raises(NotFound):
        desk.submit(parameters={"service": "nothing"})
    with pytest.raises(NotFound):
        desk.submit(project="nowhere")


def test_a_project_has_room_for_so_many_jobs(desk: Desk) -> None:
    for _ in range(20):
        desk.submit()
    with pytest.raises(QuotaExceeded, match="20 jobs"):
        desk.submit()
    desk.submit(project="other")


def test_scopes_hold_for_jobs(desk: Desk) -> None:
    asker = someone("infer:default/iris", name="asker")
    number = desk.submit(asker)
    assert desk.jobs.show(asker, number)["id"] == number
    reader, stranger = someone("read:default", name="reader"), someone("admin:other", name="stranger")
    assert desk.jobs.show(reader, number)["id"] == number
    with pytest.raises(Forbidden):
        desk.jobs.cancel(reader, number)
    for act in (desk.jobs.show, desk.jobs.cancel, desk.jobs.retry):
        with pytest.raises(NotFound):
            act(stranger, number)
    with pytest.raises(NotFound):
        desk.submit(stranger)
    with pytest.raises(Forbidden):
        desk.submit(reader)
    everything = {"project": None, "state": None, "kind": None, "limit": 10, "cursor": None}
    assert desk.jobs.listing(stranger, **everything).items == ()
    assert len(desk.jobs.listing(asker, **everything).items) == 1
    assert desk.jobs.cancel(asker, number)["state"] == "cancelled"


def test_a_file_of_another_project_is_not_there(desk: Desk) -> None:
    name = desk.give(b"theirs", project="other")
    with desk.parts.database.read() as tx, pytest.raises(NotFound):
        desk.files.size_of(tx, "default", name)


def test_old_jobs_and_their_files_are_forgotten(desk: Desk) -> None:
    number = finished(desk)
    digest = desk.stored(b"a,b\n1,2\n")
    desk.clock.pass_time(days=31)
    living = desk.submit(content=b"others")
    desk.keeper.sweep()
    with pytest.raises(NotFound):
        desk.show(number)
    assert not desk.files.store.exists(digest)
    assert desk.show(living)["state"] == "queued"
    assert desk.files.store.exists(desk.stored(b"others"))
