"""gRPC through the commands that people type."""

import grpc

from modelyard.inference.grpc.messages import message
from modelyard.testing.platform import running_platform, serving

HEALTH = "grpc.health.v1.Health"


def ask(address: str, path: str, request: bytes = b"") -> bytes:
    with grpc.insecure_channel(address) as channel:
        return channel.unary_unary(path)(request, timeout=20, wait_for_ready=True)


def test_serve_answers_over_grpc_at_the_address_that_it_prints(packages, tmp_path) -> None:
    package = packages.linear("m1")
    with serving(package / "model.onnx", tmp_path, "--name", "m1") as served:
        address = served.command.wait_for("gRPC ").split()[-1]
        request = message("inference.ModelInferRequest")(model_name="m1")
        tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
        tensor.contents.fp32_contents.extend([1, 2, 3])
        body = ask(address, "/inference.GRPCInferenceService/ModelInfer", request.SerializeToString())
    answer = message("inference.ModelInferResponse").FromString(body)
    assert list(answer.outputs[0].contents.fp32_contents) == [1.0, 2.0]


def test_up_answers_over_grpc_at_the_address_that_it_tells(tmp_path) -> None:
    with running_platform(tmp_path) as platform:
        body = ask(platform.standing["grpc_address"], f"/{HEALTH}/Check")
    answer = message("grpc.health.v1.HealthCheckResponse")
    assert answer.FromString(body).status in {answer.SERVING, answer.NOT_SERVING}
