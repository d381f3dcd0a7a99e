"""Statistics of a service for the whole group of processes (Triton, statistics extension).

Nothing falls when a process dies. Counts are of requests where the extension says requests, of rows where it says
inferences. What is not measured apart (input and output conversion) stays 0, as the extension allows.
"""

from collections.abc import Mapping

from modelyard.foundation.metrics import Family, Group
from modelyard.inference.routing import measures
from modelyard.inference.routing.services import Service

Figures = Mapping[str, object]
_NS = 1e9


def model_statistics(group: Group, service: Service, *, version: str | None = None) -> list[Figures]:
    """One entry a live version; `version` chooses one."""
    versions = {backend.backend.version: backend.backend.model for backend in service.live}
    return [
        _entry(group, service, version=each, labels=(service.project, service.name, model, each))
        for each, model in sorted(versions.items())
        if version in (None, each)
    ]


def _entry(group: Group, service: Service, *, version: str, labels: tuple[str, ...]) -> Figures:
    requests, request_ns = _sum(group, measures.REQUEST_DURATION, labels)
    queued, queue_ns = _sum(group, measures.QUEUE_DURATION, labels)
    _, infer_ns = _sum(group, measures.INFERENCE_DURATION, labels)
    failed = int(group.value(measures.FAILURES, *labels))
    nothing = {"count": 0, "ns": 0}
    return {
        "name": service.name,
        "version": version,
        "last_inference": 0,
        "inference_count": int(group.value(measures.ROWS, *labels)),
        "execution_count": int(group.value(measures.RUNS, *labels)),
        "inference_stats": {
            "success": {"count": requests, "ns": request_ns},
            "fail": {"count": failed, "ns": 0},
            "queue": {"count": queued, "ns": queue_ns},
            "compute_input": {"count": requests, "ns": 0},
            "compute_infer": {"count": requests, "ns": infer_ns},
            "compute_output": {"count": requests, "ns": 0},
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": [],
        "memory_usage": [
            {"type": "CPU", "id": 0, "byte_size": int(group.value(measures.MODEL_MEMORY, *labels))},
        ],
        "response_stats": {},
    }


def _sum(group: Group, family: Family, labels: tuple[str, ...]) -> tuple[int, int]:
    """Count and nanoseconds of a histogram in seconds."""
    cells = group.series.get((family.name, labels))
    return (0, 0) if cells is None else (int(sum(cells[:-1])), int(cells[-1] * _NS))
