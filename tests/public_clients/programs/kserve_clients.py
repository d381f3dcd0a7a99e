"""The KServe SDK's inference clients as they are published; prints what they got as JSON."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

ROWS = np.array([[1, 2, 3], [4, 5, 6]], dtype="f4")


def request(*, binary: bool = False) -> InferRequest:
    tensor = InferInput("x", [2, 3], "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=binary)
    return InferRequest(model_name="m1", infer_inputs=[tensor], request_id="r1")


async def rest(base: str) -> dict:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    found = {
        "live": await client.is_server_live(base),
        "ready": await client.is_server_ready(base),
        "model_ready": await client.is_model_ready(base, "m1"),
    }
    for binary in (False, True):
        answer = await client.infer(base, request(binary=binary), model_name="m1")
        found[f"infer_{binary}"] = [answer.id, answer.model_name, answer.outputs[0].as_numpy().tolist()]
    found["dict"] = (await client.infer(base, request().to_rest()[0], model_name="m1")).outputs[0].as_numpy().tolist()
    old = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
    found["v1"] = await old.infer(base, {"instances": ROWS.tolist()}, model_name="m1")
    found["v1_ready"] = await old.is_model_ready(base, "m1")
    return found


async def over_grpc(address: str) -> dict:
    client = InferenceGRPCClient(address, retries=0)
    answers = [await client.infer(request(binary=binary)) for binary in (False, True)]
    found = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready("m1"),
        "infer": [[answer.id, answer.model_name, answer.outputs[0].as_numpy().tolist()] for answer in answers],
    }
    await client.close()
    return found


async def main() -> None:
    print(json.dumps({"rest": await rest(sys.argv[1]), "grpc": await over_grpc(sys.argv[2])}))


asyncio.run(main())
