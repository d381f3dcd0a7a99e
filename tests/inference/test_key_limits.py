"""What a key and a project may take: counted for all servers of a machine together, to the request."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from modelyard.domain.access import (
    KeyLimits,
    KeyRecord,
    ProjectQuota,
    Scope,
    Verb,
    key_id,
    key_mac,
    make_key,
    quotas_of,
)
from modelyard.domain.errors.platform import RateLimited, RequestQuotaUsedUp
from modelyard.domain.routing import RoutingTable
from modelyard.inference.admission import Allowances, SharedLimits

PEPPER = bytes.fromhex("ab" * 32)
INFER = "/v2/models/m1/infer"
NOON = datetime(2026, 3, 31, 12, tzinfo=UTC).timestamp()


def record(key: str, **limits) -> KeyRecord:
    return KeyRecord(
        id=key_id(key),
        mac=key_mac(key, pepper=PEPPER),
        name="k",
        scopes=(Scope(Verb.INFER),),
        limits=KeyLimits(**limits),
    )


def allowances(path: Path, *quotas: ProjectQuota, now: list[float] | None = None) -> Allowances:
    moment = now or [NOON]
    opened = SharedLimits(path, records=64)
    return Allowances(lambda: opened, quotas, clock=lambda: moment[0])


def test_what_has_no_limit_is_not_counted(tmp_path) -> None:
    made = Allowances(lambda: pytest.fail("no file is opened"), ())
    assert made.of_key(record(make_key())) is None
    assert made.of_project("default") is None


def test_a_quota_counts_what_was_answered_and_gives_back_the_rest(tmp_path) -> None:
    mine = allowances(tmp_path / "limits").of_key(record(make_key(), quotas=quotas_of(per_day=3, per_month=None)))
    for _ in range(10):
        mine.enter().leave()
    held = [mine.enter() for _ in range(3)]
    with pytest.raises(RequestQuotaUsedUp) as refused:
        mine.enter()
    assert refused.value.retry_after_s == 12 * 3600
    assert refused.value.policy == ("key-day", 3, 86_400)
    held[0].leave()
    mine.enter().settle()
    held[1].settle()
    held[2].settle()
    with pytest.raises(RequestQuotaUsedUp):
        mine.enter()


def test_a_quota_begins_anew_with_the_day_and_the_month_and_not_when_the_clock_goes_back(tmp_path) -> None:
    now = [NOON]
    made = allowances(tmp_path / "limits", now=now)
    daily = made.of_key(record(make_key(), quotas=quotas_of(per_day=1, per_month=None)))
    monthly = made.of_key(record(make_key(), quotas=quotas_of(per_day=None, per_month=1)))
    for mine in (daily, monthly):
        mine.enter().settle()
        with pytest.raises(RequestQuotaUsedUp) as refused:
            mine.enter()
        assert refused.value.retry_after_s == 12 * 3600, "the last day of a month ends both"
    now[0] -= 86_400
    for mine in (daily, monthly):
        with pytest.raises(RequestQuotaUsedUp):
            mine.enter()
    now[0] += 2 * 86_400
    daily.enter().settle()
    monthly.enter().settle()


def test_keys_of_a_project_share_its_quota(tmp_path) -> None:
    made = allowances(tmp_path / "limits", ProjectQuota(project="default", quotas=quotas_of(per_day=2, per_month=None)))
    one, other, token = made.of_key(record(make_key())), made.of_key(record(make_key())), made.of_project("default")
    one.enter().settle()
    other.enter().settle()
    with pytest.raises(RequestQuotaUsedUp):
        token.enter()
    assert made.of_project("other") is None


def test_a_refusal_by_a_quota_leaves_nothing_behind(tmp_path) -> None:
    quota = ProjectQuota(project="default", quotas=quotas_of(per_day=0, per_month=None))
    mine = allowances(tmp_path / "limits", quota).of_key(
        record(make_key(), max_in_flight=1, quotas=quotas_of(per_day=5, per_month=None))
    )
    for _ in range(8):
        with pytest.raises(RequestQuotaUsedUp):
            mine.enter()
    assert mine._quotas[0].used == 0
    assert mine._gate.in_flight() == 0


def test_a_key_has_so_many_in_flight(tmp_path) -> None:
    mine = allowances(tmp_path / "limits").of_key(record(make_key(), max_in_flight=2))
    held = [mine.enter() for _ in range(2)]
    with pytest.raises(RateLimited):
        mine.enter()
    held[0].leave()
    assert mine.enter()


def test_a_process_that_waited_for_the_lock_does_not_take_the_bucket_for_a_new_one(tmp_path) -> None:
    late, early = (SharedLimits(tmp_path / "limits", records=64) for _ in range(2))
    waiting, taking = late.bucket("key", 5.0), early.bucket("key", 5.0)
    began = threading.Event()

    def take() -> float:
        began.set()
        return waiting.take()

    with ThreadPoolExecutor(1) as pool:
        with early.locked():
            answer = pool.submit(take)
            began.wait()
            time.sleep(0.05)  # it has begun, and waits
            assert [taking._take_share(early.cells) for _ in range(5)] == [0.0] * 5
        assert answer.result() > 0.0


@pytest.fixture
def pair(kit, packages, servers, pepper):
    """Two servers of one machine with a key that has these limits."""

    def start(*quotas: ProjectQuota, **limits):
        key = make_key()
        route = kit.service("m1", kit.backend(packages.linear("m1")))
        table = RoutingTable(
            revision=1, services=(route,), keys=(record(key, **limits),), quotas=quotas, auth_required=True
        )
        started = [servers.start(table, id=f"s{number}", pepper=str(pepper)) for number in range(2)]
        return key, started

    return start


def send(server, key: str, body, *, count: int) -> list:
    with server.client(headers={"authorization": f"Bearer {key}"}) as client:
        return [client.post(INFER, json=body) for _ in range(count)]


def test_a_rate_holds_over_two_servers_and_says_when_to_come_back(pair, kit) -> None:
    key, servers = pair(requests_per_s=5.0)
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        found = [
            answer for part in pool.map(lambda s: send(s, key, kit.question(), count=40), servers) for answer in part
        ]
    seconds = time.monotonic() - began
    statuses = [answer.status_code for answer in found]
    assert set(statuses) == {200, 429}
    assert 5 <= statuses.count(200) <= 5 + 5 * seconds + 1
    refused = next(answer for answer in found if answer.status_code == 429)
    assert refused.json()["code"] == "rate_limited"
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["ratelimit-policy"] == '"key";q=5;w=1'
    assert refused.headers["ratelimit"] == '"key";r=0;t=1'


def test_a_quota_is_exact_over_mixed_requests_kills_and_restarts(pair, kit, servers) -> None:
    most = 300
    key, started = pair(ProjectQuota(project="default", quotas=quotas_of(per_day=most, per_month=None)))
    good, answered, over = kit.question(), [], threading.Event()

    def ask(index: int) -> None:
        bad = kit.question() | {"inputs": []}
        for turn in range(400):
            if over.is_set():
                return
            server = started[index % len(started)]
            try:
                body = bad if turn % 3 == 2 else good
                with server.client(headers={"authorization": f"Bearer {key}"}) as client:
                    answer = client.post(INFER, json=body)
            except httpx.TransportError:  # the server was killed under the request
                continue
            if answer.status_code == 429:
                assert answer.json()["code"] == "request_quota_used_up"
                over.set()
            elif body is good:
                assert answer.status_code == 200
                answered.append(1)
            else:
                assert answer.status_code == 400

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, index) for index in range(4)]
        for kills in range(3):
            goal = (kills + 1) * 40
            kit.until(lambda goal=goal: len(answered) >= goal)
            victim = kills % 2
            started[victim].kill()
            started[victim] = servers.start(id=f"again{kills}", **_again(started[victim].config))
        for future in asking:
            future.result()
    # an answer that was settled and then lost with its server is the one difference that a kill can make
    assert most - 3 * 4 <= len(answered) <= most
    counts = {answer.status_code for server in started for answer in send(server, key, good, count=3)}
    assert counts == {429}
    limits = SharedLimits(Path(started[0].config["metrics"]) / "key-limits", records=16_384)
    count = Allowances(
        lambda: limits, (ProjectQuota(project="default", quotas=quotas_of(per_day=most, per_month=None)),)
    )
    assert count.of_project("default")._quotas[0].used == most, "no reservation was lost, none counted twice"


def _again(config: dict) -> dict:
    return {name: config[name] for name in ("table", "pepper", "metrics")}


def test_a_client_says_how_long_it_waits(kit, packages, servers) -> None:
    server = servers.start(kit.table(kit.service("m1", kit.backend(packages.linear("m1")))))
    with server.client() as client:
        for right in ("1000", "60000"):
            assert client.post(INFER, json=kit.question(), headers={"x-request-timeout-ms": right}).status_code == 200
        for wrong in ("0", "-1", "soon", "1.5", "9" * 40, ""):
            answer = client.post(INFER, json=kit.question(), headers={"x-request-timeout-ms": wrong})
            assert answer.status_code == 400, wrong
            assert answer.json()["code"] == "bad_header"
