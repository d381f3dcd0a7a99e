"""The repository and logging extensions where no control plane is: a group of servers that follow one table file."""

import signal
from pathlib import Path

import pytest

from modelyard.domain.errors.platform import InvalidRequest, NotSupported
from modelyard.domain.routing import LogSettings
from modelyard.foundation.documents import to_json
from modelyard.inference.server import ServerLogs


@pytest.fixture
def group(servers, packages, kit, tmp_path: Path):
    path = tmp_path / "table.json"
    table = kit.table(kit.service("m1", kit.backend(packages.linear("m1"))))
    path.write_bytes(to_json(table))
    return [servers.start(table={"static": str(path)}) for _ in range(2)]


def test_all_servers_of_the_group_obey_before_the_answer(group, kit) -> None:
    with group[0].client() as one, group[1].client() as other:
        assert one.post("/v2/repository/models/m1/unload").status_code == 200
        for client in (one, other):
            refused = client.post("/v2/models/m1/infer", json=kit.question())
            assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
            rows = client.post("/v2/repository/index").json()
            assert [(row["state"], row["reason"]) for row in rows] == [("UNAVAILABLE", "unloaded")]
            assert client.post("/v2/repository/index", json={"ready": True}).json() == []
            assert client.get("/v2/health/ready").status_code == 200
            assert client.get("/v2/models/m1/versions/1/ready").status_code == 503
        assert other.post("/v2/repository/models/m1/load").status_code == 200
        for client in (one, other):
            assert client.post("/v2/models/m1/infer", json=kit.question()).status_code == 200


def test_a_server_that_starts_later_finds_the_table_as_it_stands(group, servers, kit) -> None:
    with group[0].client() as client:
        assert client.post("/v2/repository/models/m1/unload").status_code == 200
    late = servers.start(table=group[0].config["table"])
    with late.client() as client:
        assert client.post("/v2/models/m1/infer", json=kit.question()).status_code == 503


def test_requests_under_way_are_answered_while_their_model_is_unloaded(group, kit) -> None:
    with (
        kit.Traffic(group[0].port, "/v2/models/m1/infer", to_json(kit.question()), right=lambda _: True) as traffic,
        group[0].client() as client,
    ):
        assert client.post("/v2/repository/models/m1/unload").status_code == 200
        assert client.post("/v2/repository/models/m1/load").status_code == 200
        kit.until(lambda: client.post("/v2/models/m1/infer", json=kit.question()).status_code == 200)
    assert not [each for each in traffic.wrong if not each.startswith("503")]


def test_the_extensions_are_listed(group) -> None:
    with group[0].client() as client:
        assert {"model_repository", "logging"} <= set(client.get("/v2").json()["extensions"])


def test_log_lines_follow_the_settings(group) -> None:
    with group[0].client() as one, group[1].client() as other:
        assert one.get("/v2/logging").json() == {
            "log_file": "",
            "log_format": "ISO8601",
            "log_info": True,
            "log_warning": True,
            "log_error": True,
            "log_verbose_level": 0,
        }
        assert one.post("/v2/logging", json={"log_info": False}).json()["log_info"] is False
        assert other.get("/v2/logging").json()["log_info"] is False
        assert one.post("/v2/logging", json={"log_file": "/tmp/x"}).status_code == 501
        assert one.post("/v2/logging", json={"log_verbose_level": "much"}).status_code == 400
    quiet, talkative = group
    quiet.process.send_signal(signal.SIGTERM)
    assert quiet.process.wait(30) == 0
    assert '"draining"' not in quiet.log.read_text()
    with talkative.client() as client:
        assert client.post("/v2/logging", json={"log_info": True}).status_code == 200
    talkative.stop()
    assert '"draining"' in talkative.log.read_text()


def test_a_wish_changes_what_it_names_and_nothing_else() -> None:
    logs = ServerLogs("warning")
    assert logs.wished({"log_verbose_level": 3}) == LogSettings(log_info=False, log_verbose_level=3)
    assert logs.wished({}) == logs.current
    assert logs.wished({"log_file": "", "log_format": "ISO8601"}) == logs.current
    for bad in ([], {"log_inof": True}, {"log_info": 1}, {"log_verbose_level": True}, {"log_verbose_level": -1}):
        with pytest.raises(InvalidRequest):
            logs.wished(bad)
    with pytest.raises(NotSupported):
        logs.wished({"log_format": "default"})
