"""The rest of the gRPC side against real model servers: pages, health, reflection, keys, TLS, deadlines, drain."""

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path

import grpc
import pytest
import trustme

from modelyard.domain.access import KeyRecord, Scope, Verb, key_id, key_mac, make_key
from modelyard.domain.contract import Isolation
from modelyard.domain.routing import Batching
from modelyard.inference.grpc.messages import message
from modelyard.inference.grpc.names import SERVICES
from modelyard.inference.server.pages import EXTENSIONS

HEALTH = "grpc.health.v1.Health"
PEPPER = bytes.fromhex("ab" * 32)
LOST = 'modelyard_inputs_lost_total{project="default",service="m1",reason="%s"}'


def key_record(key: str, *scopes: Scope, project: str = "default") -> KeyRecord:
    return KeyRecord(id=key_id(key) or "", mac=key_mac(key, pepper=PEPPER), name="k", scopes=scopes, project=project)


@pytest.fixture
def table(packages, kit):
    return kit.table(
        kit.service("m1", kit.backend(packages.linear("m1"), version="3", revision=7)),
        kit.service("sorter", kit.backend(packages.classifier())),
    )


@pytest.fixture
def served(table, servers):
    return servers.start(table, grpc_port=0)


@pytest.fixture
def client(shared_server, connect):
    return connect(shared_server)


@pytest.fixture
def stuck(packages, servers, kit, tmp_path):
    """A server whose only model runs in a worker that has been stopped: every request waits."""
    package, path = packages.linear("m1"), tmp_path / "w.sock"
    worker = servers.worker(package, path)
    backend = kit.backend(package, workers=(str(path),))
    server = servers.start(kit.table(kit.service("m1", backend, isolation=Isolation.PROCESS)), grpc_port=0)
    kit.until(server.is_ready)
    os.kill(worker.pid, signal.SIGSTOP)
    return server


def test_pages_say_what_rest_says(shared_server, client) -> None:
    with shared_server.client() as http:
        model, configuration = http.get("/v2/models/sorter").json(), http.get("/v2/models/sorter/config").json()
        assert client.ask("ServerMetadata").version == http.get("/v2").json()["version"]
    about = client.ask("ModelMetadata", message("inference.ModelMetadataRequest")(name="sorter"))
    assert [about.name, list(about.versions), about.platform] == [
        model[key] for key in ("name", "versions", "platform")
    ]
    for tensors, named in ((about.inputs, model["inputs"]), (about.outputs, model["outputs"])):
        assert [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in tensors] == named
    config = client.ask("ModelConfig", message("inference.ModelConfigRequest")(name="sorter")).config
    assert config.max_batch_size == configuration["max_batch_size"] == 64
    assert [list(each.dims) for each in config.input] == [each["dims"] for each in configuration["input"]]
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert set(client.ask("ServerMetadata").extensions) == set(EXTENSIONS) - {"binary_tensor_data"}


def test_readiness(client) -> None:
    ready = message("inference.ModelReadyRequest")
    assert client.ask("ServerLive").live
    assert client.ask("ServerReady").ready
    assert client.ask("ModelReady", ready(name="m1")).ready
    assert client.ask("ModelReady", ready(name="m1", version="3")).ready
    assert client.refusal("ModelReady", ready(name="m1", version="4")).code() is grpc.StatusCode.NOT_FOUND


def test_a_model_that_cannot_be_loaded_is_known_and_not_ready(packages, servers, kit, connect, ask_for) -> None:
    broken = packages.linear("broken")
    (broken / "model.onnx").write_bytes(b"no model")
    client = connect(servers.start(kit.table(kit.service("m1", kit.backend(broken))), grpc_port=0))
    assert not client.ask("ServerReady").ready
    assert not client.ask("ModelReady", message("inference.ModelReadyRequest")(name="m1")).ready
    assert client.refusal("ModelInfer", ask_for()).code() is grpc.StatusCode.UNAVAILABLE
    status = client.ask("Check", service=HEALTH).status
    assert status == message("grpc.health.v1.HealthCheckResponse").NOT_SERVING


def test_statistics_count_what_was_asked(served, connect, ask_for) -> None:
    client = connect(served)
    for _ in range(3):
        client.ask("ModelInfer", ask_for([1, 2, 3], [4, 5, 6]))
    kind = message("inference.ModelStatisticsRequest")
    (row,) = client.ask("ModelStatistics", kind(name="m1")).model_stats
    assert (row.inference_count, row.execution_count, row.inference_stats.success.count) == (6, 3, 3)
    assert row.inference_stats.compute_infer.ns > 0
    assert [row.name for row in client.ask("ModelStatistics", kind()).model_stats] == ["m1", "sorter"]


def test_the_repository_is_listed(client) -> None:
    index = client.ask("RepositoryIndex", message("inference.RepositoryIndexRequest")(ready=True))
    assert [(each.name, each.version, each.state) for each in index.models] == [
        ("m1", "3", "READY"),
        ("m1", "2", "READY"),
        ("sorter", "1", "READY"),
    ]


def test_models_are_unloaded_and_loaded(served, connect, ask_for, error_code) -> None:
    client = connect(served)
    load, unload = (message(f"inference.RepositoryModel{verb}Request") for verb in ("Load", "Unload"))
    assert client.ask("ModelInfer", ask_for()).outputs
    client.ask("RepositoryModelUnload", unload(model_name="m1"))
    error = client.refusal("ModelInfer", ask_for())
    assert (error.code(), error_code(error)) == (grpc.StatusCode.UNAVAILABLE, "not_ready")
    index = client.ask("RepositoryIndex", message("inference.RepositoryIndexRequest")())
    assert [(each.name, each.state) for each in index.models] == [("m1", "UNAVAILABLE"), ("sorter", "READY")]
    client.ask("RepositoryModelLoad", load(model_name="m1"))
    assert client.ask("ModelInfer", ask_for()).outputs
    override = load(model_name="m1")
    override.parameters["config"].string_param = "{}"
    error = client.refusal("RepositoryModelLoad", override)
    assert (error.code(), error_code(error)) == (grpc.StatusCode.UNIMPLEMENTED, "not_supported")


def test_log_settings_are_read_and_set(served, connect) -> None:
    client, kind = connect(served), message("inference.LogSettingsRequest")
    assert client.ask("LogSettings").settings["log_info"].bool_param
    wish = kind()
    wish.settings["log_verbose_level"].uint32_param = 2
    assert client.ask("LogSettings", wish).settings["log_verbose_level"].uint32_param == 2
    assert client.ask("LogSettings").settings["log_format"].string_param == "ISO8601"
    wish.settings["log_verbose_level"].string_param = "much"
    assert client.refusal("LogSettings", wish).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_health_follows_readiness_and_says_when_the_server_goes(served, connect) -> None:
    client = connect(served)
    request, answer = message("grpc.health.v1.HealthCheckRequest"), message("grpc.health.v1.HealthCheckResponse")
    for name in ("", *SERVICES):
        assert client.ask("Check", request(service=name), service=HEALTH).status == answer.SERVING
    assert client.refusal("Check", request(service="no"), service=HEALTH).code() is grpc.StatusCode.NOT_FOUND
    watch = client.method("Watch", HEALTH)
    unknown = watch(request(service="no"), timeout=20)
    assert next(unknown).status == answer.SERVICE_UNKNOWN
    watched = watch(request(), timeout=20)
    assert next(watched).status == answer.SERVING
    began = time.monotonic()
    served.process.send_signal(signal.SIGTERM)
    assert next(watched).status == answer.NOT_SERVING
    assert served.process.wait(20) == 0
    assert time.monotonic() - began < 4, "watchers must not hold a drain up to its grace period"


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_tells_tools_what_is_spoken(client, version) -> None:
    name = f"grpc.reflection.{version}.ServerReflection"
    request = message(f"grpc.reflection.{version}.ServerReflectionRequest")
    asked = [
        request(list_services=""),
        request(file_containing_symbol="inference.GRPCInferenceService"),
        request(file_by_filename="health.proto"),
        request(file_containing_symbol="nobody.knows"),
    ]
    listed, by_symbol, by_name, unknown = client.method("ServerReflectionInfo", name)(
        iter(asked), timeout=20, wait_for_ready=True
    )
    assert [each.name for each in listed.list_services_response.service] == list(SERVICES)
    assert b"ModelStreamInfer" in by_symbol.file_descriptor_response.file_descriptor_proto[0]
    assert b"grpc.health.v1" in by_name.file_descriptor_response.file_descriptor_proto[0]
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.fixture
def guarded(packages, servers, kit, pepper_file):
    """A server that asks for keys, and three: one for m1, one for metrics alone, an administrator's elsewhere."""
    good, blind, other = make_key(), make_key(), make_key()
    keys = (
        key_record(good, Scope(Verb.INFER, "default", "m1")),
        key_record(blind, Scope(Verb.METRICS)),
        key_record(other, Scope(Verb.INFER, "default"), project="elsewhere"),
    )
    table = kit.table(kit.service("m1", kit.backend(packages.linear("m1"))), keys=keys)
    return servers.start(table, grpc_port=0, pepper=str(pepper_file)), good, blind, other


def test_keys_open_what_their_scopes_name(guarded, connect, ask_for, error_code) -> None:
    server, good, blind, other = guarded
    client = connect(server)
    assert client.ask("ModelInfer", ask_for(), key=good).outputs
    outcomes = {
        name: client.refusal("ModelInfer", ask_for(), key=key)
        for name, key in {"none": None, "wrong": make_key(), "blind": blind, "other": other}.items()
    }
    assert {name: (error.code(), error_code(error)) for name, error in outcomes.items()} == {
        "none": (grpc.StatusCode.UNAUTHENTICATED, "auth_required"),
        "wrong": (grpc.StatusCode.UNAUTHENTICATED, "auth_required"),
        "blind": (grpc.StatusCode.PERMISSION_DENIED, "forbidden"),
        "other": (grpc.StatusCode.NOT_FOUND, "model_not_found"),
    }
    assert client.ask("ModelInfer", ask_for(), key=other, metadata=[("modelyard-project", "default")]).outputs
    assert client.ask("ServerReady").ready
    assert client.ask("Check", service=HEALTH).status == 1
    for name in ("ServerMetadata", "RepositoryIndex", "ModelStatistics", "LogSettings"):
        assert client.refusal(name).code() is grpc.StatusCode.UNAUTHENTICATED
    for verb in ("Load", "Unload"):
        request = message(f"inference.RepositoryModel{verb}Request")(model_name="m1")
        assert client.refusal(f"RepositoryModel{verb}", request, key=good).code() is grpc.StatusCode.PERMISSION_DENIED
    wish = message("inference.LogSettingsRequest")()
    wish.settings["log_info"].bool_param = False
    assert client.refusal("LogSettings", wish, key=good).code() is grpc.StatusCode.PERMISSION_DENIED
    stream = client.method("ModelStreamInfer")(iter([ask_for()]), timeout=20)
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    name = "grpc.reflection.v1.ServerReflection"
    question = message("grpc.reflection.v1.ServerReflectionRequest")(list_services="")
    with pytest.raises(grpc.RpcError) as caught:
        next(client.method("ServerReflectionInfo", name)(iter([question]), timeout=20))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_key_that_deploys_a_model_needs_nothing_else_to_unload_it(
    packages, servers, kit, pepper_file, connect, error_code
) -> None:
    mover, stranger = make_key(), make_key()
    keys = (
        key_record(mover, Scope(Verb.DEPLOY, "default", "m1")),
        key_record(stranger, Scope(Verb.DEPLOY, "elsewhere"), project="elsewhere"),
    )
    table = kit.table(kit.service("m1", kit.backend(packages.linear("m1"))), keys=keys)
    client = connect(servers.start(table, grpc_port=0, pepper=str(pepper_file)))
    request = message("inference.RepositoryModelUnloadRequest")(model_name="m1")
    client.ask("RepositoryModelUnload", request, key=mover)
    elsewhere = [("modelyard-project", "default")]
    error = client.refusal("RepositoryModelUnload", request, key=stranger, metadata=elsewhere)
    assert (error.code(), error_code(error)) == (grpc.StatusCode.NOT_FOUND, "model_not_found")


@pytest.fixture
def pepper_file(tmp_path):
    path = tmp_path / "pepper"
    path.write_text(PEPPER.hex())
    path.chmod(0o600)
    return path


def test_a_call_that_takes_too_long_ends_and_is_booked(stuck, connect, ask_for, kit) -> None:
    client = connect(stuck)
    client.ask("ServerLive")
    error = client.refusal("ModelInfer", ask_for(), timeout=0.6)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    kit.until(lambda: stuck.figures().get(LOST % "timeout") == 1)
    late = ask_for()
    late.parameters["timeout"].int64_param = 200_000
    error = client.refusal("ModelInfer", late)
    assert (error.code(), error.details()) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "the answer was not there by the deadline",
    )


def test_a_cancelled_call_leaves_the_queue(stuck, connect, ask_for, kit) -> None:
    client = connect(stuck)
    client.ask("ServerLive")
    calls = [client.method("ModelInfer").future(ask_for(), timeout=20) for _ in range(3)]
    received = 'modelyard_inputs_received_total{project="default",service="m1"}'
    kit.until(lambda: stuck.figures()[received] == 3)
    for call in calls:
        call.cancel()
    kit.until(lambda: stuck.figures().get(LOST % "cancelled") == 3)
    assert stuck.figures()['modelyard_inputs_in_flight{project="default",service="m1"}'] == 0


def test_a_stream_that_goes_takes_its_requests_along(stuck, connect, ask_for, kit) -> None:
    client = connect(stuck)
    stream = client.method("ModelStreamInfer")(iter([ask_for()] * 5), timeout=20, wait_for_ready=True)
    received = 'modelyard_inputs_received_total{project="default",service="m1"}'
    kit.until(lambda: stuck.figures().get(received) == 5)
    stream.cancel()
    kit.until(lambda: stuck.figures().get(LOST % "cancelled") == 5)


def test_tls(table, servers, connect, tmp_path, ask_for) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    tls = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    server = servers.start(table, grpc_port=0, tls=tls)
    trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    assert connect(server, trusted).ask("ModelInfer", ask_for(*[[1, 2, 3]] * 5000, raw=True)).outputs
    error = connect(server).refusal("ServerLive", timeout=3, wait_for_ready=False)
    assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_what_is_under_way_is_answered_before_the_server_ends(packages, servers, kit, connect, ask_for) -> None:
    route = kit.service("m1", kit.backend(packages.linear("m1")), batching=Batching(max_wait_ms=700))
    server = servers.start(kit.table(route), grpc_port=0)
    client = connect(server)
    client.ask("ServerLive")
    call = client.method("ModelInfer").future(ask_for(), timeout=20)
    held = threading.Event()

    def questions():
        yield ask_for()
        held.wait(20)

    stream = client.method("ModelStreamInfer")(questions(), timeout=20)
    received = 'modelyard_inputs_received_total{project="default",service="m1"}'
    kit.until(lambda: server.figures().get(received) == 2)
    server.process.send_signal(signal.SIGTERM)
    assert call.result().outputs
    assert next(stream).infer_response.outputs
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    held.set()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.process.wait(20) == 0


def test_servers_share_an_inherited_socket_and_one_that_dies_takes_only_its_own(
    table, servers, connect, kit, ask_for
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pool = [servers.start(table, grpc_fds=[listener.fileno()]) for _ in range(2)]
        clients = [connect(pool[0], **{"grpc.use_local_subchannel_pool": 1}) for _ in range(12)]
        for client in clients:
            client.ask("ModelInfer", ask_for())
        pool[0].kill()
        for client in clients:
            kit.until(lambda client=client: _answers(client, ask_for))


def _answers(client, ask_for) -> bool:
    """One try: a connection that was the dead server's fails it once, and the next goes to the living."""
    try:
        return bool(client.ask("ModelInfer", ask_for()).outputs)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False


def test_protobuf_is_loaded_with_the_first_call_and_grpcio_never(served, connect) -> None:
    def maps() -> str:
        return Path(f"/proc/{served.process.pid}/maps").read_text()

    assert "upb" not in maps()
    connect(served).ask("ServerLive")
    assert "upb" in maps()
    assert "cygrpc" not in maps()


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\0" * 5000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"x" * 99]
)
def test_what_is_not_grpc_is_closed_and_harms_nobody(shared_server, address_of, client, ask_for, data) -> None:
    host, _, port = address_of(shared_server).rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(4096):
                pass
    assert client.ask("ModelInfer", ask_for()).outputs


def test_calls_stand_in_the_access_log(table, servers, connect, tmp_path, ask_for, kit) -> None:
    log = tmp_path / "access.log"
    client = connect(servers.start(table, grpc_port=0, access_log=str(log)))
    client.ask("ModelInfer", ask_for())
    client.refusal("ModelInfer", ask_for(model="nobody"))
    text = kit.until(lambda: log.exists() and log.read_text().count("ModelInfer") == 2 and log.read_text())
    assert '"status":200' in text
    assert '"status":404' in text
