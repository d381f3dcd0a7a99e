"""A soak: half of what the machine can, over every protocol, for minutes, with memory and descriptors watched.

    python -m benchmarks.soak [--minutes 10] [--clients 8]

Starts a platform with two model servers and the digits example, finds by a short burst how many requests a second the
clients can get through, then asks at half of that over V2 JSON, V2 binary, V1, MLflow, CloudEvents and gRPC. Every
answer is compared with the first of its client. Each half minute it prints requests, wrong answers, memory of the tree
(PSS) and open descriptors; the verdict compares the last quarter with the second one. Ends with 1 when it is not flat.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import psutil

from modelyard.testing.platform import Platform, running_platform

ROOT: Final = Path(__file__).parents[1]
BURST_S: Final = 3.0
SAMPLE_S: Final = 30.0
MOST_GROWTH: Final = 0.05
MOST_GROWTH_BYTES: Final = 16 << 20
MOST_DESCRIPTORS: Final = 8
Ask = Callable[[], object]
"""Asks once; what was answered, as plain values."""


@dataclass
class Ledger:
    """What all clients saw."""

    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    by_kind: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, trouble: str | None) -> None:
        """One answer, and what was wrong with it."""
        with self.lock:
            self.answered += 1
            self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
            if trouble is not None:
                self.wrong.append(f"{kind}: {trouble[:200]}")


@dataclass(frozen=True)
class Sample:
    """The tree at one moment."""

    answered: int
    memory: int
    descriptors: int


def kinds(url: str, grpc_address: str, row: np.ndarray[Any, Any]) -> dict[str, Callable[[], Ask]]:
    """By name, what makes a client of that kind: each client has its own connection."""
    values = row.astype("f4").reshape(1, -1)
    tensor = {"name": "input", "shape": list(values.shape), "datatype": "FP32"}
    v2 = json.dumps({"inputs": [tensor | {"data": values.ravel().tolist()}]}).encode()
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": values.nbytes}}]}).encode()
    instances = json.dumps({"instances": values.tolist()}).encode()
    event = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/soak", "ce-type": "soak"}
    binary = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    infer = "/v2/models/digits/infer"

    def over_http(path: str, body: bytes, headers: dict[str, str]) -> Callable[[], Ask]:
        def make() -> Ask:
            client = httpx.Client(base_url=url, timeout=30, trust_env=False)
            sent = {"content-type": "application/json"} | headers

            def ask() -> object:
                answer = client.post(path, content=body, headers=sent)
                answer.raise_for_status()
                return answer.json()

            return ask

        return make

    def over_grpc() -> Ask:
        import grpc

        from modelyard.inference.grpc.messages import message

        request = message("inference.ModelInferRequest")(model_name="digits")
        request.inputs.add(name="input", datatype="FP32", shape=values.shape)
        request.raw_input_contents.append(values.tobytes())
        call = grpc.insecure_channel(grpc_address).unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def ask() -> object:
            answer = message("inference.ModelInferResponse").FromString(call(request.SerializeToString(), timeout=30))
            label, probabilities = answer.raw_output_contents
            return [label.decode(), np.frombuffer(probabilities, "<f4").tolist()]

        return ask

    return {
        "V2 JSON": over_http(infer, v2, {}),
        "V2 binary": over_http(infer, head + values.tobytes(), binary),
        "V1": over_http("/v1/models/digits:predict", instances, {}),
        "MLflow": over_http("/invocations", instances, {}),
        "CloudEvents": over_http(infer, v2, event),
        "gRPC": over_grpc,
    }


def load(made: dict[str, Callable[[], Ask]], ledger: Ledger, *, clients: int, seconds: float, rate: float) -> None:
    """Ask from so many threads for so long, at `rate` requests a second in all (0: as fast as they can)."""
    names, end = list(made), time.monotonic() + seconds
    pause = clients / rate if rate else 0.0

    def work(index: int) -> None:
        kind = names[index % len(names)]
        ask = made[kind]()
        right: object = None
        due = time.monotonic() + pause * index / clients
        while time.monotonic() < end:
            if pause:
                time.sleep(max(0.0, due - time.monotonic()))
                due += pause
            trouble = None
            try:
                answer = ask()
                right = right or answer
                if not same(answer, right):
                    trouble = f"another answer: {answer!r}"
            except Exception as error:  # noqa: BLE001  (whatever went wrong is what the soak looks for)
                trouble = f"{type(error).__name__}: {error}"
            ledger.note(kind, trouble)

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def same(one: object, other: object) -> bool:
    """Equal, numbers within what the order of a batch may change (rtol 1e-4, atol 1e-5)."""
    match one, other:
        case dict(), dict():
            return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        case list(), list():
            return len(one) == len(other) and all(map(same, one, other))
        case float(), float():
            return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-5)
    return one == other


def sample(platform: Platform, ledger: Ledger) -> Sample:
    """Memory (PSS) and descriptors of the whole tree."""
    assert platform.command is not None
    assert platform.command.process is not None
    parent = psutil.Process(platform.command.process.pid)
    memory = descriptors = 0
    for process in [parent, *parent.children(recursive=True)]:
        try:
            memory += process.memory_full_info().pss
            descriptors += process.num_fds()
        except psutil.Error:
            continue
    return Sample(ledger.answered, memory, descriptors)


def verdict(samples: list[Sample], ledger: Ledger) -> list[str]:
    """What is not as it should be: wrong answers, and growth from the second quarter to the last one."""
    found = [f"{len(ledger.wrong)} wrong answers, the first: {ledger.wrong[0]}"] if ledger.wrong else []
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter] or samples[:1], samples[-quarter:]
    before, after = (statistics.median(each.memory for each in part) for part in (early, late))
    if after - before > max(MOST_GROWTH * before, MOST_GROWTH_BYTES):
        found.append(f"memory grew from {before / 2**20:.1f} to {after / 2**20:.1f} MiB")
    before, after = (statistics.median(each.descriptors for each in part) for part in (early, late))
    if after - before > MOST_DESCRIPTORS:
        found.append(f"descriptors grew from {before:.0f} to {after:.0f}")
    return found


def digits(place: Path) -> np.ndarray[Any, Any]:
    """The example's bundle in `place`, and one held-out image."""
    sys.path.insert(0, str(ROOT / "examples" / "digits"))
    try:
        from train import train
    finally:
        sys.path.pop(0)
    images: np.ndarray[Any, Any] = train(place)[0]
    return images[0]


def soak(minutes: float, clients: int) -> int:
    """Run; the exit code."""
    with tempfile.TemporaryDirectory(prefix="modelyard-soak-") as folder:
        place = Path(folder)
        (place / "digits").mkdir()
        row = digits(place / "digits")
        with running_platform(place, "--servers", "2") as platform:
            with platform.client() as client:
                client.upload(place / "digits", name="digits", alias="champion")
                client.deploy("digits")
            made = kinds(platform.inference_url, str(platform.standing["grpc_address"]), row)
            burst = Ledger()
            load(made, burst, clients=clients, seconds=BURST_S, rate=0.0)
            rate = burst.answered / BURST_S / 2
            print(f"{burst.answered / BURST_S:.0f} requests a second at most; {rate:.0f} for {minutes:g} minutes")
            return watch(platform, made, minutes=minutes, clients=clients, rate=rate)


def watch(platform: Platform, made: dict[str, Callable[[], Ask]], *, minutes: float, clients: int, rate: float) -> int:
    """Load, sample, judge."""
    ledger, samples = Ledger(), []
    seconds = minutes * 60
    options = {"clients": clients, "seconds": seconds, "rate": rate}
    worker = threading.Thread(target=load, args=(made, ledger), kwargs=options)
    worker.start()
    every, began = min(SAMPLE_S, seconds / 8), time.monotonic()
    print(f"{'time':>7} {'requests':>10} {'wrong':>6} {'memory':>10} {'descriptors':>12}")
    while worker.is_alive():
        worker.join(every)
        taken = sample(platform, ledger)
        samples.append(taken)
        print(
            f"{time.monotonic() - began:6.0f}s {taken.answered:>10,} {len(ledger.wrong):>6}"
            f" {taken.memory / 2**20:>6.1f} MiB {taken.descriptors:>12}",
            flush=True,
        )
    print("  ".join(f"{kind} {count:,}" for kind, count in sorted(ledger.by_kind.items())))
    found = verdict(samples, ledger)
    print("flat, and every answer was right" if not found else "NOT GOOD: " + "; ".join(found))
    return 1 if found else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="Half load over every protocol.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=12)
    given = parser.parse_args()
    return soak(given.minutes, given.clients)


if __name__ == "__main__":
    sys.exit(main())
