"""tritonclient.grpc and tritonclient.grpc.aio as they are published; prints what they got as JSON."""

import asyncio
import json
import queue
import sys

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

ROWS = np.array([[1, 2, 3], [4, 5, 6]], dtype="f4")


def inputs() -> list:
    tensor = triton.InferInput("x", [2, 3], "FP32")
    tensor.set_data_from_numpy(ROWS)
    return [tensor]


def text(array) -> list:
    return [each.decode() for each in array.ravel().tolist()]


def sync(address: str) -> dict:
    client = triton.InferenceServerClient(address)
    words = triton.InferInput("s", [3], "BYTES")
    words.set_data_from_numpy(np.array(["", "é", "long " * 50], dtype=object))
    found = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("m1"),
        "server": client.get_server_metadata().name,
        "metadata": client.get_model_metadata("m1", as_json=True),
        "config": client.get_model_config("m1").config.max_batch_size,
        "index": client.get_model_repository_index(as_json=True)["models"],
        "words": text(client.infer("words", [words]).as_numpy("y")),
    }
    answer = client.infer("m1", inputs(), outputs=[triton.InferRequestedOutput("y")], request_id="r1", priority=1)
    found["infer"] = [answer.as_numpy("y").tolist(), answer.get_response().id]
    found["compressed"] = client.infer("m1", inputs(), compression_algorithm="gzip").as_numpy("y").tolist()
    found["classes"] = text(
        client.infer("sorter", inputs(), outputs=[triton.InferRequestedOutput("p", class_count=1)]).as_numpy("p")
    )
    found["errors"] = []
    wrong = triton.InferInput("x", [1, 4], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 4), "f4"))
    for name, given in (("m1", [wrong]), ("no", inputs())):
        try:
            client.infer(name, given)
        except InferenceServerException as error:
            found["errors"].append([error.status(), error.message()])
    got = queue.Queue()
    client.async_infer("m1", inputs(), lambda result, error: got.put((result, error)))
    found["async"] = got.get(timeout=20)[0].as_numpy("y").tolist()
    client.start_stream(lambda result, error: got.put((result, error)))
    for n in range(5):
        client.async_stream_infer("m1", inputs() if n != 2 else [wrong], request_id=str(n))
    streamed = [got.get(timeout=20) for _ in range(5)]
    client.stop_stream()
    found["stream"] = [
        [result.get_response().id, result.as_numpy("y").tolist()] if error is None else error.message()
        for result, error in streamed
    ]
    found["statistics"] = client.get_inference_statistics("m1").model_stats[0].inference_count
    client.unload_model("columns")
    found["loading"] = [client.is_model_ready("columns")]
    client.load_model("columns")
    found["loading"].append(client.is_model_ready("columns"))
    client.update_log_settings({"log_verbose_level": 1})
    found["log"] = client.get_log_settings(as_json=True)["settings"]["log_verbose_level"]
    client.update_log_settings({"log_verbose_level": 0})
    try:
        client.load_model("columns", config="{}")
    except InferenceServerException as error:
        found["errors"].append([error.status(), error.message()])
    client.close()
    return found


async def aio(address: str) -> dict:
    async with triton_aio.InferenceServerClient(address) as client:
        ready = await client.is_model_ready("m1")
        answers = await asyncio.gather(*(client.infer("m1", inputs()) for _ in range(8)))

        async def questions():
            for n in range(3):
                yield {"model_name": "m1", "inputs": inputs(), "request_id": str(n)}

        streamed = [
            [result.get_response().id, result.as_numpy("y").tolist()]
            async for result, error in client.stream_infer(questions())
            if error is None
        ]
        return {"ready": ready, "infer": [answer.as_numpy("y").tolist() for answer in answers], "stream": streamed}


print(json.dumps({"sync": sync(sys.argv[1]), "aio": asyncio.run(aio(sys.argv[1]))}))
