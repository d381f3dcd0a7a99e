"""ModelInfer and ModelStreamInfer against a real model server, and held against REST."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from modelyard.domain.routing import Batching, Limits
from modelyard.inference.grpc.messages import message


@pytest.fixture
def served(shared_server):
    return shared_server


@pytest.fixture
def client(served, connect):
    return connect(served)


def test_a_typed_request_gets_a_typed_answer_that_says_who_answered(client, ask_for) -> None:
    request = ask_for([1, 2, 3], [4, 5, 6], id="mine")
    answer, call = client.method("ModelInfer").with_call(request, timeout=20, wait_for_ready=True)
    assert (answer.model_name, answer.model_version, answer.id) == ("m1", "3", "mine")
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", "FP32", [2, 2])
    assert list(output.contents.fp32_contents) == [2.0, 4.0, 8.0, 10.0]
    assert not answer.raw_output_contents
    trailers = dict(call.trailing_metadata())
    assert trailers["x-model-version"] == "3"
    assert trailers["x-model-digest"] == "sha256:m1"
    assert trailers["x-revision"] == "7"
    assert trailers["x-request-id"]


def test_a_raw_request_gets_a_raw_answer(client, ask_for) -> None:
    answer = client.ask("ModelInfer", ask_for([1, 2, 3], raw=True))
    assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [2.0, 4.0]
    assert not answer.outputs[0].contents.ListFields()


def test_the_form_of_the_answer_can_be_asked_for(client, ask_for) -> None:
    request = ask_for([1, 2, 3])
    request.parameters["binary_data_output"].bool_param = True
    assert client.ask("ModelInfer", request).raw_output_contents


def test_an_empty_id_stays_empty(client, ask_for) -> None:
    assert client.ask("ModelInfer", ask_for()).id == ""


def test_a_request_id_of_the_caller_is_kept(client, ask_for) -> None:
    _, call = client.method("ModelInfer").with_call(
        ask_for(), metadata=[("x-request-id", "order-66")], timeout=20, wait_for_ready=True
    )
    assert dict(call.trailing_metadata())["x-request-id"] == "order-66"


def test_outputs_and_classes_can_be_chosen(client, ask_for) -> None:
    request = ask_for([9, 1, 0], model="sorter")
    request.outputs.add(name="p").parameters["classification"].int64_param = 2
    answer = client.ask("ModelInfer", request)
    assert [output.name for output in answer.outputs] == ["p"]
    first, second = answer.outputs[0].contents.bytes_contents
    assert first.endswith(b":0:no")
    assert second.endswith(b":1:yes")
    labels = client.ask("ModelInfer", ask_for([9, 1, 0], [1, 9, 0], model="sorter", raw=True))
    assert labels.raw_output_contents[0] == b"\x02\0\0\0no\x03\0\0\0yes"


def test_a_version_is_answered_by_its_revision(client, ask_for) -> None:
    answer = client.ask("ModelInfer", ask_for([1, 2, 3], model_version="2"))
    assert list(answer.outputs[0].contents.fp32_contents) == [5.0, 10.0]
    error = client.refusal("ModelInfer", ask_for(model_version="9"))
    assert error.code() is grpc.StatusCode.NOT_FOUND


def broken_shape(request, document):
    request.inputs[0].shape[1] = document["inputs"][0]["shape"][1] = 4


def broken_name(request, document):
    request.inputs[0].name = document["inputs"][0]["name"] = "q"


def broken_type(request, document):
    request.inputs[0].datatype = document["inputs"][0]["datatype"] = "FP64"
    request.inputs[0].ClearField("contents")
    request.inputs[0].contents.fp64_contents.extend([1, 2, 3])


def broken_size(request, document):
    del request.inputs[0].contents.fp32_contents[2:]
    del document["inputs"][0]["data"][2:]


def broken_output(request, document):
    request.outputs.add(name="nope")
    document["outputs"] = [{"name": "nope"}]


def nothing_given(request, document):
    del request.inputs[:]
    document["inputs"] = []


def given_twice(request, document):
    request.inputs.add().CopyFrom(request.inputs[0])
    document["inputs"] *= 2


def long_id(request, document):
    request.id = document["id"] = "x" * 2000


def a_sequence(request, document):
    request.parameters["sequence_id"].int64_param = 4
    document["parameters"] = {"sequence_id": 4}


def shared_memory(request, document):
    request.inputs[0].parameters["shared_memory_region"].string_param = "a"
    document["inputs"][0]["parameters"] = {"shared_memory_region": "a"}


@pytest.mark.parametrize(
    "spoil",
    [
        broken_shape,
        broken_name,
        broken_type,
        broken_size,
        broken_output,
        nothing_given,
        given_twice,
        long_id,
        a_sequence,
        shared_memory,
    ],
)
def test_a_refusal_has_the_code_and_the_text_of_rest(served, client, kit, ask_for, error_code, spoil) -> None:
    request, document = ask_for([1, 2, 3]), kit.question([1, 2, 3])
    spoil(request, document)
    error = client.refusal("ModelInfer", request)
    with served.client() as http:
        answer = http.post("/v2/models/m1/infer", json=document)
    assert error_code(error) == answer.json()["code"]
    assert error.details() == answer.json()["error"]
    expected = grpc.StatusCode.UNIMPLEMENTED if answer.status_code == 501 else grpc.StatusCode.INVALID_ARGUMENT
    assert error.code() is expected


def test_values_that_are_no_numbers_are_refused_like_over_rest(client, ask_for, error_code) -> None:
    for raw in (False, True):
        error = client.refusal("ModelInfer", ask_for([1, 2, 3], [4, float("nan"), 6], raw=raw))
        assert error_code(error) == "bad_data"
        assert "row 1" in error.details()


def test_raw_and_typed_exclude_each_other(client, ask_for, error_code) -> None:
    both = ask_for([1, 2, 3])
    both.raw_input_contents.append(b"\0" * 12)
    more = ask_for([1, 2, 3], raw=True)
    more.raw_input_contents.append(b"\0" * 12)
    wrong = ask_for([1, 2, 3])
    wrong.inputs[0].ClearField("contents")
    wrong.inputs[0].contents.fp64_contents.extend([1, 2, 3])
    short = ask_for([1, 2, 3], raw=True)
    short.raw_input_contents[0] = b"\0" * 8
    codes = [error_code(client.refusal("ModelInfer", each)) for each in (both, more, wrong, short)]
    assert codes == ["bad_binary", "bad_binary", "bad_data", "size_mismatch"]


def test_a_parameter_without_a_value_is_refused(client, ask_for, error_code) -> None:
    request = ask_for()
    request.parameters["odd"].SetInParent()
    assert error_code(client.refusal("ModelInfer", request)) == "bad_request"


def test_bytes_that_are_no_message_are_the_callers_mistake(client) -> None:
    error = client.refusal("ModelInfer", b"\xff\xff\xff\xff")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_unknown_model_and_an_unknown_method(client, ask_for, error_code) -> None:
    error = client.refusal("ModelInfer", ask_for(model="nobody"))
    assert (error.code(), error_code(error)) == (grpc.StatusCode.NOT_FOUND, "model_not_found")
    call = client.channel.unary_unary("/inference.GRPCInferenceService/TraceSetting")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_grpc_and_http_share_a_run_and_the_counters(packages, servers, kit, connect, ask_for) -> None:
    route = kit.service("m1", kit.backend(packages.linear("m1")), batching=Batching(max_wait_ms=400))
    server = servers.start(kit.table(route), grpc_port=0)
    client = connect(server)
    client.ask("ServerLive")
    before = server.figures()
    with server.client() as http, ThreadPoolExecutor(2) as pool:
        over_grpc = pool.submit(client.ask, "ModelInfer", ask_for())
        over_http = pool.submit(http.post, "/v2/models/m1/infer", json=kit.question())
        assert over_http.result().status_code == 200
        assert over_grpc.result().outputs
    after = server.figures()
    grown = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert grown['modelyard_executions_total{project="default",service="m1",model="m1",version="1"}'] == 1
    assert grown['modelyard_inputs_received_total{project="default",service="m1"}'] == 2
    assert grown['modelyard_inputs_answered_total{project="default",service="m1"}'] == 2


def test_limits_hold_over_grpc(packages, servers, kit, connect, ask_for, error_code) -> None:
    route = kit.service("m1", kit.backend(packages.linear("m1")), limits=Limits(requests_per_s=1))
    client = connect(servers.start(kit.table(route), grpc_port=0))
    client.ask("ModelInfer", ask_for())
    error = client.refusal("ModelInfer", ask_for())
    assert (error.code(), error_code(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "rate_limited")
    assert int(dict(error.trailing_metadata())["retry-after"]) >= 1


def test_a_message_over_the_bound_is_refused(packages, servers, kit, connect, ask_for) -> None:
    table = kit.table(kit.service("m1", kit.backend(packages.linear("m1"))))
    client = connect(servers.start(table, grpc_port=0, max_body_bytes=10_000))
    error = client.refusal("ModelInfer", ask_for(*[[1, 2, 3]] * 1000, raw=True))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.ask("ModelInfer", ask_for()).outputs


def test_large_messages_pass_whole(client, ask_for) -> None:
    rows = np.arange(900_000, dtype="<f4").reshape(-1, 3)
    request = ask_for(raw=True)
    request.inputs[0].shape[0] = len(rows)
    request.raw_input_contents[0] = rows.tobytes()
    answer = client.ask("ModelInfer", request)
    got = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(-1, 2)
    np.testing.assert_array_equal(got, rows[:, :2] * 2)


def test_a_stream_answers_in_order_and_outlives_a_bad_request(client, ask_for) -> None:
    asked = [ask_for([n, 0, 0], id=str(n)) for n in range(300)]
    asked[7].inputs[0].name = "q"
    asked[8].parameters["triton_enable_empty_final_response"].bool_param = True
    answers = list(client.method("ModelStreamInfer")(iter(asked), timeout=30, wait_for_ready=True))
    assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(300)]
    assert "no input 'q'" in answers[7].error_message
    assert answers[7].infer_response.parameters["modelyard-code"].string_param == "unknown_input"
    assert answers[8].infer_response.parameters["triton_final_response"].bool_param
    good = [answer for n, answer in enumerate(answers) if n != 7]
    assert not any(answer.error_message for answer in good)
    assert good[-1].infer_response.outputs[0].contents.fp32_contents[0] == 598.0


def test_a_stream_gives_each_answer_before_the_next_question(client, ask_for) -> None:
    turn = threading.Semaphore(1)

    def questions():
        for n in range(3):
            assert turn.acquire(timeout=20)
            yield ask_for([n, 0, 0])

    seen = []
    for answer in client.method("ModelStreamInfer")(questions(), timeout=30, wait_for_ready=True):
        seen.append(answer.infer_response.outputs[0].contents.fp32_contents[0])
        turn.release()
    assert seen == [0.0, 2.0, 4.0]


def test_a_hundred_callers_at_once_get_their_own_answers(served, connect, ask_for) -> None:
    def ask(n: int) -> float:
        call = message("inference.ModelInferResponse")
        answer = clients[n % 4].ask("ModelInfer", ask_for([n, 0, 0]))
        assert isinstance(answer, call)
        return answer.outputs[0].contents.fp32_contents[0]

    clients = [connect(served, **{"grpc.use_local_subchannel_pool": 1}) for _ in range(4)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(400))) == [2.0 * n for n in range(400)]
