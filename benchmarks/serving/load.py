"""Drive a server with wrk: bodies that differ from request to request, and what it cost on both sides."""

import json
import re
import resource
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.models import Array, Model
from benchmarks.serving.trees import busy_seconds, cpu_seconds

_SCRIPT = """
wrk.method = "POST"
%(headers)s
local file = io.open("%(bodies)s", "rb")
local made, at = {}, %(first)d
local function number()
  local a, b, c, d = file:read(4):byte(1, 4)
  return a + b * 256 + c * 65536 + d * 16777216
end
function init(args)
  local count = number()
  for i = 1, count do made[i] = wrk.format(nil, nil, nil, file:read(number())) end
  file:close()
end
function request() at = at %% #made + 1; return made[at] end
"""
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One round of one case. Times in milliseconds, CPU in microseconds a request; `bad` answers were not 2xx.

    `foreign` is how much of a core others took meanwhile: neither the server nor the load.
    """

    rate: float
    p50: float
    p99: float
    cpu: float
    bad: int
    foreign: float = 0.0


def json_body(model: Model, rows: Array) -> bytes:
    """An Open Inference Protocol V2 request with its data in JSON."""
    data = [round(float(value), 4) for value in rows.ravel()]
    one = {"name": "x", "shape": [len(rows), *model.shape], "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [one]}, separators=(",", ":")).encode()


def binary_body(model: Model, rows: Array) -> tuple[bytes, int]:
    """The same with binary tensor data in both directions; also the size of the JSON part."""
    raw = rows.astype("<f4").tobytes()
    one = {"name": "x", "shape": [len(rows), *model.shape], "datatype": "FP32"}
    head = {
        "inputs": [{**one, "parameters": {"binary_data_size": len(raw)}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    return text + raw, len(text)


def write_script(path: Path, bodies: Sequence[bytes], headers: dict[str, str]) -> None:
    """A wrk script that sends `bodies` in turn."""
    data = path.with_suffix(".bodies")
    data.write_bytes(struct.pack("<I", len(bodies)) + b"".join(struct.pack("<I", len(b)) + b for b in bodies))
    lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
    path.write_text(_SCRIPT % {"headers": lines, "bodies": data, "first": 0})


def drive(url: str, script: Path, *, connections: int, seconds: int, core: str | None, pids: Sequence[int]) -> Sample:
    """One round. `core` is where the load runs; the CPU time of the process trees of `pids` is booked."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", "-s", str(script), url]
    if core is not None:
        command = ["taskset", "-c", core, *command]
    before, all_before, load_before = cpu_seconds(pids), busy_seconds(), _children_seconds()
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = cpu_seconds(pids) - before
    foreign = busy_seconds() - all_before - spent - (_children_seconds() - load_before)
    answered = int(_find(r"(\d+) requests in", text)[0])
    bad = sum(int(each) for each in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    bad += sum(map(int, errors.groups())) if errors else 0
    return Sample(
        rate=float(_find(r"Requests/sec:\s+([\d.]+)", text)[0]),
        p50=_milliseconds(*_find(r"50%\s+([\d.]+)(us|ms|s|m)", text)),
        p99=_milliseconds(*_find(r"99%\s+([\d.]+)(us|ms|s|m)", text)),
        cpu=spent / max(1, answered) * 1e6,
        bad=bad,
        foreign=max(0.0, foreign / seconds),
    )


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _milliseconds(value: str, unit: str) -> float:
    return float(value) * _UNITS[unit]


def _find(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"wrk said:\n{text}")
    return found.groups()
