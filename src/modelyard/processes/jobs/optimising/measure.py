"""The job `measure`: what 99 of 100 requests to a service are answered within, under a load like its users'."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from modelyard.domain.errors.platform import JobFailed
from modelyard.domain.job_kinds import KINDS
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.foundation.samples import read_sample
from modelyard.ports.job_runner import JobContext
from modelyard.processes.jobs.asking import Asking
from modelyard.processes.jobs.optimising.figures import expected
from modelyard.processes.jobs.optimising.load import Door, Round
from modelyard.processes.jobs.optimising.pool import made_requests
from modelyard.processes.jobs.optimising.search import ROUNDS

if TYPE_CHECKING:
    import numpy as np


class Measure:
    """See `JobRunner`."""

    def check(self, parameters: Mapping[str, Any]) -> None:
        """As the kind says."""
        KINDS["measure"].check(parameters, {"sample": {}})

    def run(self, job: JobContext) -> Mapping[str, Any]:
        """Load the service round by round."""
        import numpy as np

        asking = Asking(job)
        described = asking.metadata()
        inputs, outputs = (_specs(described[which]) for which in ("inputs", "outputs"))
        sample = read_sample(job.input("sample"), inputs, target=job.parameters.get("target"))
        chance = np.random.default_rng(job.seed)
        key = asking.address.key
        requests = made_requests(
            f"{urlsplit(asking.address.url).path}/infer",
            inputs,
            outputs,
            sample,
            rows=int(job.parameters["rows"]),
            chance=chance,
            headers=(("authorization", f"Bearer {key}"),) if key else (),
        )
        rounds = asyncio.run(_rounds(job, asking.address.url, requests, chance))
        return _document(job, rounds)


async def _rounds(
    job: JobContext, url: str, requests: Sequence[bytes], chance: "np.random.Generator"
) -> Sequence[Round]:
    door, rate = Door(url), float(job.parameters["rate"])
    seconds = float(job.parameters["seconds"]) / ROUNDS
    found = []
    try:
        for number in range(ROUNDS):
            if job.is_cancelled():
                raise JobFailed("it was ended before it was done")
            job.report(done=number / ROUNDS, text=f"round {number + 1} of {ROUNDS}")
            warm = await door.warm(requests)
            if warm.failed:
                raise JobFailed(f"the service does not answer the sample: {warm.reason}")
            found.append(await door.drive(requests, rate=rate, seconds=seconds, chance=chance))
    finally:
        door.close()
    job.report(done=1.0, text=f"{ROUNDS} rounds")
    return found


def _document(job: JobContext, rounds: Sequence[Round]) -> dict[str, Any]:
    failed = sum(each.failed for each in rounds)
    answered = [each for each in rounds if each.latencies_ms]
    if not answered:
        raise JobFailed(f"no request was answered: {next(each.reason for each in rounds if each.reason)}")
    p99 = expected([each.quantile(0.99) for each in answered])
    limit, predicted = job.parameters.get("p99_ms"), job.parameters.get("predicted_ms")
    return {
        "p50_ms": expected([each.quantile(0.5) for each in answered]).document(),
        "p99_ms": p99.document(),
        "answered": sum(len(each.latencies_ms) for each in answered),
        "failed": failed,
        "reason": next((each.reason for each in rounds if each.reason), ""),
        "lag_ms": round(max(each.lag_ms for each in rounds), 3),
        "rounds": len(answered),
        "predicted_ms": predicted,
        "within_target": None if limit is None else failed == 0 and p99.value <= limit,
        "prediction": None if predicted is None else _prediction(p99.value, *predicted),
        "seed": job.seed,
    }


def _prediction(value: float, low: float, high: float) -> str:
    """How the value lies to what was predicted; a promise is broken by what is slower."""
    return "slower" if value > high else "quicker" if value < low else "within"


def _specs(described: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=each["name"], datatype=DataType(each["datatype"]), shape=tuple(each["shape"]))
        for each in described
    )
