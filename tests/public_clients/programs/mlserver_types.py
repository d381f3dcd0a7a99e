"""MLServer's types, codecs and gRPC messages as a client; prints what they got as JSON."""

import json
import sys
import urllib.request

import grpc
import numpy as np
import pandas as pd
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec
from mlserver.grpc import converters, dataplane_pb2, dataplane_pb2_grpc
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse, MetadataServerResponse

ROWS = np.array([[1, 2, 3], [4, 5, 6]], dtype="f4")


def ask(base: str, path: str, body: str | None = None) -> bytes:
    data = None if body is None else body.encode()
    with urllib.request.urlopen(
        urllib.request.Request(base + path, data, {"Content-Type": "application/json"}), timeout=20
    ) as answer:
        return answer.read()


def rest(base: str) -> dict:
    request = InferenceRequest(id="r1", inputs=[NumpyCodec.encode_input("x", ROWS)])
    answer = InferenceResponse.model_validate_json(ask(base, "/v2/models/m1/infer", request.model_dump_json()))
    bare = InferenceRequest(inputs=[NumpyCodec.encode_input("x", ROWS)]).model_dump_json(exclude_none=True)
    again = InferenceResponse.model_validate_json(ask(base, "/v2/models/m1/infer", bare))
    words = InferenceRequest(inputs=[StringCodec.encode_input("s", ["a", "é"], use_bytes=False)])
    said = InferenceResponse.model_validate_json(ask(base, "/v2/models/lines/infer", words.model_dump_json()))
    table = pd.DataFrame({"a": np.array([1, 2], dtype="f4"), "b": np.array([3, 4], dtype="f4")})
    columns = PandasCodec.encode_request(table)
    added = InferenceResponse.model_validate_json(ask(base, "/v2/models/columns/infer", columns.model_dump_json()))
    model = MetadataModelResponse.model_validate_json(ask(base, "/v2/models/m1"))
    return {
        "infer": [answer.id, answer.model_name, NumpyCodec.decode_output(answer.outputs[0]).tolist()],
        "request_codec": NumpyRequestCodec.decode_response(again).tolist(),
        "words": StringCodec.decode_output(said.outputs[0]),
        "columns": NumpyCodec.decode_output(added.outputs[0]).tolist(),
        "server": MetadataServerResponse.model_validate_json(ask(base, "/v2")).name,
        "model": [model.name, model.versions, [each.shape for each in model.inputs]],
    }


def over_grpc(address: str) -> dict:
    with grpc.insecure_channel(address) as channel:
        stub = dataplane_pb2_grpc.GRPCInferenceServiceStub(channel)
        found = {}
        for raw in (False, True):
            request = InferenceRequest(id="r1", inputs=[NumpyCodec.encode_input("x", ROWS)])
            message = converters.ModelInferRequestConverter.from_types(request, model_name="m1", use_raw=raw)
            answer = converters.ModelInferResponseConverter.to_types(stub.ModelInfer(message, timeout=20))
            found[f"infer_{raw}"] = [answer.id, NumpyCodec.decode_output(answer.outputs[0]).tolist()]
        found["ready"] = stub.ModelReady(dataplane_pb2.ModelReadyRequest(name="m1"), timeout=20).ready
        about = stub.ModelMetadata(dataplane_pb2.ModelMetadataRequest(name="m1"), timeout=20)
        found["model"] = converters.ModelMetadataResponseConverter.to_types(about).name
        return found


print(json.dumps({"rest": rest(sys.argv[1]), "grpc": over_grpc(sys.argv[2])}))
