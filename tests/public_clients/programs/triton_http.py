"""tritonclient.http and tritonclient.http.aio as they are published; prints what they got as JSON."""

import asyncio
import json
import sys

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

ROWS = np.array([[1, 2, 3], [4, 5, 6]], dtype="f4")


def inputs(*, binary: bool) -> list:
    tensor = triton.InferInput("x", [2, 3], "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=binary)
    return [tensor]


def words(*, binary: bool) -> list:
    tensor = triton.InferInput("s", [3], "BYTES")
    tensor.set_data_from_numpy(np.array(["", "é", "long " * 50], dtype=object), binary_data=binary)
    return [tensor]


def text(array) -> list:
    return [each.decode() if isinstance(each, bytes) else each for each in array.tolist()]


def sync(address: str) -> dict:
    client = triton.InferenceServerClient(address, concurrency=4)
    found = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": [client.is_model_ready("m1"), client.is_model_ready("m1", "9"), client.is_model_ready("no")],
        "server": client.get_server_metadata()["name"],
        "metadata": client.get_model_metadata("m1"),
        "config": client.get_model_config("m1")["max_batch_size"],
        "index": client.get_model_repository_index(),
    }
    for binary in (False, True):
        outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
        answer = client.infer("m1", inputs(binary=binary), outputs=outputs, request_id="r1")
        found[f"infer_{binary}"] = [answer.as_numpy("y").tolist(), answer.get_response()["id"]]
        found[f"all_outputs_{binary}"] = client.infer("m1", inputs(binary=binary)).as_numpy("y").tolist()
        outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
        found[f"words_{binary}"] = text(client.infer("words", words(binary=binary), outputs=outputs).as_numpy("y"))
        classes = [triton.InferRequestedOutput("p", binary_data=binary, class_count=1)]
        found[f"classes_{binary}"] = text(
            client.infer("sorter", inputs(binary=binary), outputs=classes).as_numpy("p").ravel()
        )
        for way in ("gzip", "deflate"):
            answer = client.infer("m1", inputs(binary=binary), request_compression_algorithm="gzip")
            found[f"compressed_{binary}_{way}"] = answer.as_numpy("y").tolist()
    later = client.async_infer("m1", inputs(binary=True))
    found["async"] = later.get_result().as_numpy("y").tolist()
    found["versioned"] = client.infer("m1", inputs(binary=True), model_version="3", priority=1, timeout=5_000_000)
    found["versioned"] = found["versioned"].as_numpy("y").tolist()
    found["errors"] = []
    wrong = triton.InferInput("x", [1, 4], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 4), "f4"))
    for name, given in (("m1", [wrong]), ("no", inputs(binary=True))):
        try:
            client.infer(name, given)
        except InferenceServerException as error:
            found["errors"].append([error.status(), error.message()])
    found["statistics"] = client.get_inference_statistics("m1")["model_stats"][0]["inference_count"]
    client.unload_model("columns")
    found["loading"] = [client.is_model_ready("columns")]
    client.load_model("columns")
    found["loading"].append(client.is_model_ready("columns"))
    found["log"] = client.update_log_settings({"log_verbose_level": 1})["log_verbose_level"]
    client.update_log_settings({"log_verbose_level": 0})
    found["log"] = [found["log"], client.get_log_settings()["log_verbose_level"]]
    try:
        client.load_model("columns", config="{}")
    except InferenceServerException as error:
        found["errors"].append([error.status(), error.message()])
    client.close()
    return found


async def aio(address: str) -> dict:
    async with triton_aio.InferenceServerClient(address) as client:
        ready = await client.is_model_ready("m1")
        answers = await asyncio.gather(*(client.infer("m1", inputs(binary=n % 2 == 0)) for n in range(8)))
        return {"ready": ready, "infer": [answer.as_numpy("y").tolist() for answer in answers]}


print(json.dumps({"sync": sync(sys.argv[1]), "aio": asyncio.run(aio(sys.argv[1]))}))
