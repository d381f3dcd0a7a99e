"""A routing table that cannot be put into effect is refused whole, by the path of its field."""

from dataclasses import replace

import msgspec
import pytest

from modelyard.domain.contract import Isolation
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.routing import Backend, Batching, Limits, Match, RoutingTable, ServiceRoute
from modelyard.inference.routing import TableStore, read_table

BACKEND = Backend(model="m", version="1", digest="sha256:1", package="/p", revision=1)
ROUTE = ServiceRoute(name="m", revision=1, backends=(BACKEND,))
TABLE = RoutingTable(revision=3, services=(ROUTE,))


def with_route(**changes: object) -> RoutingTable:
    return replace(TABLE, services=(replace(ROUTE, **changes),))


def with_backend(**changes: object) -> RoutingTable:
    return with_route(backends=(replace(BACKEND, **changes),))


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidRequest) as refused:
        read_table(data)
    return refused.value.detail


def test_a_good_table_is_read() -> None:
    assert read_table(msgspec.json.encode(TABLE)) == TABLE


@pytest.mark.parametrize(
    ("table", "field"),
    [
        (replace(TABLE, revision=-1), "revision"),
        (replace(TABLE, services=(ROUTE, ROUTE)), "services[0].name"),
        (with_route(limits=Limits(deadline_ms=0)), "services[0].limits.deadline_ms"),
        (with_route(batching=Batching(max_wait_ms=-1)), "services[0].batching.max_wait_ms"),
        (with_route(matches=(Match(revision=7),)), "services[0].matches[0].revision"),
        (with_backend(weight=-1), "services[0].backends[0].weight"),
        (with_backend(shadow_percent=101), "services[0].backends[0].shadow_percent"),
        (with_backend(package=""), "services[0].backends[0].package"),
        (with_backend(isolation=Isolation.PROCESS), "services[0].backends[0].workers"),
        (with_route(backends=(BACKEND, BACKEND)), "services[0].backends[0].revision"),
    ],
)
def test_the_refusal_names_the_field(table: RoutingTable, field: str) -> None:
    assert f"{field}: " in refusal(msgspec.json.encode(table))


def test_what_is_no_table_at_all_is_refused_by_field_where_there_is_one() -> None:
    assert "table: " in refusal(b"{bad")
    assert "services[0].backends[0].weight: " in refusal(
        msgspec.json.encode(TABLE).replace(b'"weight":100', b'"weight":"all"')
    )
    assert "services[0].isolation: " in refusal(
        msgspec.json.encode(TABLE).replace(b'"isolation":"shared"', b'"isolation":"quantum"')
    )


def test_a_damaged_copy_on_disk_is_no_table(tmp_path) -> None:
    path = tmp_path / "kept.table"
    store = TableStore(path)
    assert store.offer(TABLE)
    assert TableStore(path).load() == TABLE
    path.write_bytes(path.read_bytes()[:-20])
    assert TableStore(path).load() is None
