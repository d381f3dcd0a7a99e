"""A request goes to the same side whether it comes over HTTP or over gRPC: by match, by caller, by weight."""

from collections import Counter

from modelyard.domain.routing import Match


def test_both_protocols_divide_requests_alike(packages, servers, kit, connect, ask_for) -> None:
    stable, canary = packages.linear("stable"), packages.linear("canary")
    table = kit.table(
        kit.service(
            "m1",
            kit.backend(stable, version="1", revision=1, weight=60),
            kit.backend(canary, version="2", revision=2, weight=40),
            matches=(Match(revision=2, headers={"x-team": "red"}),),
            sticky="X-User",
            watched=True,
        )
    )
    server = servers.start(table, grpc_port=0)
    over_grpc = connect(server).method("ModelInfer")

    def by_grpc(**fields: str) -> str:
        metadata = [(name.replace("_", "-"), value) for name, value in fields.items()]
        _, call = over_grpc.with_call(ask_for(), metadata=metadata, timeout=30, wait_for_ready=True)
        return str(dict(call.trailing_metadata())["x-revision"])

    with server.client() as client:

        def by_http(**fields: str) -> str:
            headers = {name.replace("_", "-"): value for name, value in fields.items()}
            answer = client.post("/v2/models/m1/infer", json=kit.question([1.0, 2.0, 3.0]), headers=headers)
            return str(answer.raise_for_status().headers["x-revision"])

        assert {by_grpc(x_team="red"), by_http(x_team="red")} == {"2"}
        users = [f"user-{number}" for number in range(40)]
        sides = [by_grpc(x_user=user) for user in users]
        assert sides == [by_http(x_user=user) for user in users]
        assert set(sides) == {"1", "2"}
        assert set(Counter(by_grpc() for _ in range(60))) == {"1", "2"}
