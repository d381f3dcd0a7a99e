"""gRPC and HTTP share what a service's response cache keeps."""

from modelyard.domain.routing import ResponseCache


def test_an_answer_that_was_given_over_http_is_given_again_over_grpc(kit, packages, servers, connect, ask_for) -> None:
    route = kit.service("m1", kit.backend(packages.linear("m1", scale=2.0)), cache=ResponseCache(ttl_s=600))
    server = servers.start(kit.table(route), grpc_port=0)
    with server.client() as client:
        assert client.post("/v2/models/m1/infer", json=kit.question()).headers["x-cache"] == "miss"
        caller = connect(server)
        for _ in range(3):
            answer = caller.ask("ModelInfer", ask_for(id="7"), timeout=90)
            assert (answer.id, list(answer.outputs[0].contents.fp32_contents)) == ("7", [2.0, 4.0])
        stats = client.get("/v2/models/m1/stats").json()["model_stats"][0]
    assert stats["execution_count"] == 1
    assert stats["inference_stats"]["cache_hit"]["count"] == 3
    over_grpc = caller.ask("ModelStatistics").model_stats[0]
    assert over_grpc.inference_stats.cache_hit.count == 3
