"""Ask a service for held-out digits at a steady rate until Ctrl-C, whatever the answers do; print a tally.

Ends with 1 when a request failed. A request whose connection breaks before its answer came is asked once more, as a
client may do with a prediction, and is counted in a column of its own.
"""

import argparse
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from modelyard import Client


class Asking:
    """The clients of one service."""

    def __init__(self, url: str, rows: np.ndarray) -> None:
        self._url = url
        self._rows = rows
        self._http = httpx.Client(trust_env=False, timeout=15)
        self._lock = threading.Lock()
        self.answered: Counter[str] = Counter()
        self.right: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.asked_again = 0

    def ask(self, number: int) -> None:
        """One request, and what became of it."""
        *image, digit = self._rows[number]
        body = {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": image}]}
        try:
            answer = self._post(body)
        except httpx.TransportError as error:
            with self._lock:
                self.failed[type(error).__name__] += 1
            return
        with self._lock:
            if answer.status_code != httpx.codes.OK:
                self.failed[f"{answer.status_code} {answer.text[:100]}"] += 1
                return
            version = answer.headers["x-model-version"]
            label = next(output["data"][0] for output in answer.json()["outputs"] if output["name"] == "label")
            self.answered[version] += 1
            self.right[version] += int(label) == int(digit)

    def _post(self, body: Mapping[str, object]) -> httpx.Response:
        try:
            return self._http.post(self._url, json=body)
        except httpx.TransportError:
            with self._lock:
                self.asked_again += 1
            return self._http.post(self._url, json=body)

    def tally(self) -> str:
        """A line: answers by version with the share of right ones, broken connections, failures."""
        with self._lock:
            versions = [
                f"version {version}: {count} answers, {self.right[version] / count:.0%} right"
                for version, count in sorted(self.answered.items())
            ]
            return f"{'  '.join(versions)}  asked again: {self.asked_again}  failed: {self.failed.total()}"


def main() -> int:
    """0 when no request failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("service")
    parser.add_argument("--rows", type=Path, default=Path("held-out.csv"))
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second")
    given = parser.parse_args()
    with Client() as client:
        url = client.service(given.service).info.url + "/infer"
    rows = np.loadtxt(given.rows, delimiter=",")
    asking = Asking(url, rows)
    chance = random.Random(7)
    due = shown = time.monotonic()
    stopping = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stopping.set())
    with ThreadPoolExecutor(64) as clients:
        while not stopping.wait(max(0.0, due - time.monotonic())):
            clients.submit(asking.ask, chance.randrange(len(rows)))
            due += 1 / given.rate
            if due > shown:
                print(asking.tally(), flush=True)
                shown = due + 5
        print("stopping", flush=True)
        clients.shutdown(wait=False, cancel_futures=True)  # what waits for a turn was not sent
    print(asking.tally())
    for what, count in asking.failed.items():
        print(f"{count} × {what}")
    return 1 if asking.failed or not asking.answered else 0


if __name__ == "__main__":
    sys.exit(main())
