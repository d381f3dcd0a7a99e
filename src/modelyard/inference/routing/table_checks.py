"""Whether a routing table can be put into effect at all. A bad one is refused whole, and the last good one stays.

Types and unknown values are refused by the decoder; here is what types cannot say. Each refusal names the field by its
path. What only loading can tell (a damaged package, a worker that does not come) is no matter of the table.
"""

from collections import Counter
from collections.abc import Iterator

import msgspec

from modelyard.domain.contract import Isolation
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.graph import problems_of
from modelyard.domain.routing import Backend, RoutingTable, ServiceRoute
from modelyard.foundation.documents import from_json

_SHOWN = 5
Problem = tuple[str, str]
"""The path of a field, and what is wrong with it."""


def read_table(data: bytes) -> RoutingTable:
    """The table in `data`.

    Raises:
        InvalidRequest: it is not one; text and details name the fields.
    """
    try:
        table = from_json(data, RoutingTable)
    except msgspec.DecodeError as error:
        text, _, path = str(error).partition(" - at `$")
        raise _refused([(path.rstrip("`").removeprefix(".") or "table", text)]) from error
    problems = list(_problems(table))
    if problems:
        raise _refused(problems)
    return table


def _refused(problems: list[Problem]) -> InvalidRequest:
    shown = problems[:_SHOWN]
    return InvalidRequest(
        "the routing table is refused: " + "; ".join(f"{field}: {why}" for field, why in shown),
        hint="the last good table stays in effect",
        details=[{"field": field, "received": why} for field, why in shown],
    )


def _problems(table: RoutingTable) -> Iterator[Problem]:
    if table.revision < 0:
        yield "revision", "is negative"
    names = Counter((route.project, route.name) for route in table.services)
    for index, route in enumerate(table.services):
        at = f"services[{index}]"
        if not route.name or not route.project:
            yield f"{at}.name", "a service needs a name and a project"
        if names[route.project, route.name] > 1:
            yield f"{at}.name", f"{route.name} stands twice in project {route.project}"
        yield from _route_problems(at, route)
    ids = Counter(key.id for key in table.keys)
    for index, key in enumerate(table.keys):
        if ids[key.id] > 1:
            yield f"keys[{index}].id", "stands twice"


def _route_problems(at: str, route: ServiceRoute) -> Iterator[Problem]:
    limits, batching = route.limits, route.batching
    for name, value in (
        ("limits.requests_per_s", limits.requests_per_s),
        ("limits.deadline_ms", limits.deadline_ms),
        ("limits.max_in_flight", limits.max_in_flight),
        ("batching.max_size", batching.max_size),
        ("resilience.breaker_failures", route.resilience.breaker_failures),
        ("resilience.slow_factor", route.resilience.slow_factor),
    ):
        if value is not None and value <= 0:
            yield f"{at}.{name}", "has to be above zero"
    if batching.max_wait_ms < 0:
        yield f"{at}.batching.max_wait_ms", "is negative"
    revisions = {backend.revision for backend in route.backends}
    held = Counter((backend.revision, backend.version, backend.digest) for backend in route.backends)
    for index, match in enumerate(route.matches):
        if match.revision not in revisions:
            yield f"{at}.matches[{index}].revision", f"no backend has revision {match.revision}"
    for index, backend in enumerate(route.backends):
        yield from _backend_problems(f"{at}.backends[{index}]", route, backend)
        if held[backend.revision, backend.version, backend.digest] > 1:
            yield f"{at}.backends[{index}].revision", f"revision {backend.revision} stands twice"


def _backend_problems(at: str, route: ServiceRoute, backend: Backend) -> Iterator[Problem]:
    if backend.weight < 0:
        yield f"{at}.weight", "is negative"
    if not 0 <= backend.shadow_percent <= 100:  # noqa: PLR2004  (per cent)
        yield f"{at}.shadow_percent", "is no share of a hundred"
    if backend.upstream is not None:
        return
    if backend.graph is not None:
        for problem in problems_of(backend.graph):
            yield f"{at}.graph.{problem.path}", problem.what
        for reference in sorted(backend.graph.models - {part.reference for part in backend.parts}):
            yield f"{at}.parts", f"{reference} is not resolved"
        return
    if not backend.package:
        yield f"{at}.package", "neither a package nor an upstream nor a graph is named"
    if backend.isolation_in(route) is Isolation.PROCESS and not backend.workers:
        yield f"{at}.workers", "an isolated model needs the address of a worker"
