"""The first prediction: the audit's golden request, asked through the real address, and the command to repeat it."""

import json
import shlex
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any, Final

from modelyard.domain.contract import ServingPackage
from modelyard.domain.errors.inference import RunFailed

_TIMEOUT_S: Final = 30.0
_RELATIVE, _ABSOLUTE = 1e-4, 1e-5
_SHOWN: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenAnswer:
    """What the endpoint said, in one line, and how long it took over an open connection."""

    text: str
    milliseconds: float


def ask_golden(base: str, name: str, package: ServingPackage, *, tls_cert: str | None) -> GoldenAnswer:
    """Ask the golden request and hold the answer against the recorded one.

    Raises:
        RunFailed: the endpoint answers something else than the audit's probe saw.
    """
    if package.golden is None:
        return GoldenAnswer(text="(the audit recorded no golden answer)", milliseconds=0.0)
    import httpx  # after the audit, which does not need it

    verify = ssl.create_default_context(cafile=tls_cert) if tls_cert else True
    with httpx.Client(base_url=base, verify=verify, timeout=_TIMEOUT_S, trust_env=False) as client:
        path = f"/v2/models/{name}/infer"
        response = client.post(path, json=package.golden.request)
        if response.is_success:
            began = time.perf_counter()
            response = client.post(path, json=package.golden.request)
            elapsed = time.perf_counter() - began
        if not response.is_success:
            raise RunFailed(
                f"the endpoint answered its golden request with {response.status_code}: {response.text[:200]}"
            )
    outputs = response.json()["outputs"]
    if not same_outputs(outputs, package.golden.outputs):
        raise RunFailed("the endpoint's golden answer differs from the one that the audit recorded")
    return GoldenAnswer(text=in_words(outputs), milliseconds=elapsed * 1000)


def curl_of(base: str, name: str, package: ServingPackage) -> str:
    """A command that answers when it is pasted into a shell."""
    from modelyard.inference.protocol.examples import example_request  # after the audit: it loads numpy

    body = example_request(package.contract, package.golden) or {"inputs": []}
    data = shlex.quote(json.dumps(body, separators=(",", ":"), ensure_ascii=False))
    insecure = " -k" if base.startswith("https") else ""
    return f"curl -s{insecure} {base}/v2/models/{name}/infer -H 'content-type: application/json' -d {data}"


def same_outputs(found: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every recorded output is there with equal values (relative 1e-4, absolute 1e-5)."""
    by_name = {output["name"]: output for output in found}
    return all(
        output["name"] in by_name and _same_values(by_name[output["name"]]["data"], output["data"]) for output in wanted
    )


def in_words(outputs: Sequence[Mapping[str, Any]]) -> str:
    """The first row of each output in one line: the label with its probability where there is one."""
    parts = []
    for output in outputs:
        data, shape = output["data"], output["shape"]
        width = len(data) // shape[0] if shape and shape[0] else len(data)
        row = data[:width]
        shown = ", ".join(_short(value) for value in row[:_SHOWN]) + (", …" if width > _SHOWN else "")
        parts.append(f"{output['name']}={shown}" if width == 1 else f"{output['name']}=[{shown}]")
    return "  ".join(sorted(parts, key=lambda part: not part.startswith("label")))


def _same_values(found: Sequence[Any], wanted: Sequence[Any]) -> bool:
    if len(found) != len(wanted):
        return False
    return all(
        isclose(a, b, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
        if isinstance(a, int | float) and isinstance(b, int | float)
        else a == b
        for a, b in zip(found, wanted, strict=True)
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
