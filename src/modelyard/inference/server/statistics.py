"""Statistics of a service for the whole group of processes (Triton, statistics extension).

Nothing falls when a process dies. Counts are of requests where the extension says requests, of rows where it says
inferences. What is not measured apart (input and output conversion, the last inference) stays 0.
"""

from modelyard.foundation.metrics import Family, Group
from modelyard.inference.protocol import ModelStatistics, Spent
from modelyard.inference.routing import measures
from modelyard.inference.routing.services import Service

_NS = 1e9


def model_statistics(group: Group, service: Service, *, version: str | None = None) -> list[ModelStatistics]:
    """One entry a live version; `version` chooses one."""
    versions = {backend.backend.version: backend.backend.model for backend in service.live}
    return [
        _entry(group, service.name, version=each, labels=(service.project, service.name, model, each))
        for each, model in sorted(versions.items())
        if version in (None, each)
    ]


def _entry(group: Group, name: str, *, version: str, labels: tuple[str, ...]) -> ModelStatistics:
    success = _spent(group, measures.REQUEST_DURATION, labels)
    return ModelStatistics(
        name=name,
        version=version,
        inference_count=int(group.value(measures.ROWS, *labels)),
        execution_count=int(group.value(measures.RUNS, *labels)),
        success=success,
        fail=Spent(count=int(group.value(measures.FAILURES, *labels))),
        queue=_spent(group, measures.QUEUE_DURATION, labels),
        compute_input=Spent(count=success.count),
        compute_infer=_spent(group, measures.INFERENCE_DURATION, labels),
        compute_output=Spent(count=success.count),
        cache_hit=_spent(group, measures.CACHE_LOOKUP, (*labels, "hit")),
        cache_miss=_spent(group, measures.CACHE_LOOKUP, (*labels, "miss")),
        memory_bytes=int(group.value(measures.MODEL_MEMORY, *labels)),
    )


def _spent(group: Group, family: Family, labels: tuple[str, ...]) -> Spent:
    """Count and nanoseconds of a histogram in seconds."""
    cells = group.series.get((family.name, labels))
    return Spent() if cells is None else Spent(count=int(sum(cells[:-1])), ns=int(cells[-1] * _NS))
