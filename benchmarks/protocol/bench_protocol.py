"""Microseconds to read a request and write an answer, against the bare decoder and encoder in the same run.

`python benchmarks/protocol/bench_protocol.py [ROUNDS]`. S has 4 numbers, M 256, R 12,288. Read floors: msgspec decoding
the same body to a typed document, without a check; orjson to plain values. Write floor: orjson of the flat array.
Each figure is the best of the rounds: what the code costs when nothing else runs.
"""

import json
import math
import random
import sys
import timeit
from collections.abc import Callable

import numpy as np
import orjson

from modelyard.domain.contract import ModelContract
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.inference.protocol import InferRequest, Signature, read_infer, write_infer

SHAPES = {"S": (4,), "M": (256,), "R": (3, 64, 64)}


def model(shape: tuple[int, ...]) -> Signature:
    inputs = (TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, *shape)),)
    outputs = (TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, 3)),)
    return Signature("bench", ModelContract(inputs=inputs, outputs=outputs, max_batch_size=64))


def best_us(call: Callable[[], object], rounds: int) -> float:
    once = timeit.timeit(call, number=20) / 20
    number = max(20, math.ceil(0.02 / once))
    return min(timeit.repeat(call, number=number, repeat=rounds)) / number * 1e6


def bodies(shape: tuple[int, ...], values: list[float]) -> tuple[bytes, bytes, int]:
    tensor = {"name": "x", "shape": [1, *shape], "datatype": "FP32"}
    text = json.dumps({"inputs": [{**tensor, "data": values}]}).encode()
    raw = np.array(values, "f4").tobytes()
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]}).encode()
    return text, head + raw, len(head)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    pick = random.Random(7)
    answer = {"y": np.array([[0.7, 0.2, 0.1]], "f4")}
    print(f"{'':10}{'read':>9}{'msgspec':>9}{'orjson':>9}{'ratio':>8}{'write':>9}{'orjson':>9}")
    for name, shape in SHAPES.items():
        signature = model(shape)
        text, binary, size = bodies(shape, [round(pick.gauss(0, 1), 6) for _ in range(math.prod(shape))])
        read = best_us(lambda t=text, s=signature: read_infer(t, json_size=None, signature=s), rounds)
        typed = best_us(lambda t=text, s=signature: s.flat.decode(t), rounds)
        plain = best_us(lambda t=text: orjson.loads(t), rounds)
        request = InferRequest({}, 1)
        write = best_us(lambda r=request, s=signature: _write(r, answer, s), rounds)
        flat = best_us(lambda: orjson.dumps(answer["y"].ravel(), option=orjson.OPT_SERIALIZE_NUMPY), rounds)
        print(f"{name + ' json':10}{read:9.2f}{typed:9.2f}{plain:9.2f}{read / typed:8.2f}{write:9.2f}{flat:9.2f}")
        raw = best_us(lambda b=binary, n=size, s=signature: read_infer(b, json_size=n, signature=s), rounds)
        head = best_us(lambda b=binary[:size]: orjson.loads(b), rounds)
        request = InferRequest({}, 1, binary_default=True)
        write = best_us(lambda r=request, s=signature: _write(r, answer, s), rounds)
        print(f"{name + ' binary':10}{raw:9.2f}{'':>9}{head:9.2f}{raw / head:8.2f}{write:9.2f}")


def _write(request: InferRequest, outputs: dict[str, np.ndarray], signature: Signature) -> object:
    return write_infer(request, outputs, signature=signature, version="1", model_name="bench")


if __name__ == "__main__":
    main()
