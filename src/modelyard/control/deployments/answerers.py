"""What answers for a service that is no version of the library: a server elsewhere, or other services together."""

from dataclasses import dataclass

from modelyard.control.catalog import resolve
from modelyard.control.identity import require_secrets
from modelyard.control.records import Transaction
from modelyard.domain.contract import Isolation
from modelyard.domain.digests import PREFIX
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict, InvalidRequest, NotFound
from modelyard.domain.graph import Graph, GraphPart, graph_digest
from modelyard.domain.graph import problems_of as graph_problems
from modelyard.domain.names import DEFAULT_PROJECT
from modelyard.domain.service import ServiceSpec
from modelyard.domain.upstreams import (
    VERSION_DIGITS,
    Upstream,
    UpstreamProtocol,
    problems_of,
    upstream_digest,
    upstream_version,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerer:
    """It stands where a version of the library would: under a name, a version and a digest of its own."""

    model: str
    version: str
    digest: str
    isolation: Isolation = Isolation.SHARED
    upstream: Upstream | None = None
    graph: Graph | None = None
    parts: tuple[GraphPart, ...] = ()


def graph_answerer(tx: Transaction, project: str, name: str, graph: Graph) -> Answerer:
    """The answerer that a graph is; the versions of the library that it names are resolved now.

    Raises:
        InvalidRequest: its form has a mistake, or a version cannot run in the shared servers; details name the fields.
        NotFound, Conflict: a version is not there, or not approved.
    """
    problems = list(graph_problems(graph))
    if problems:
        raise InvalidRequest(
            f"graph.{problems[0].path}: {problems[0].what}",
            hint=problems[0].expected,
            details=[{"field": f"graph.{problem.path}", "expected": problem.expected} for problem in problems],
        )
    named = ((path, step.model) for path, step in graph.leaves() if step.model is not None)
    found = {reference: _part(tx, project, path, reference) for path, reference in named}
    parts = tuple(found[reference] for reference in sorted(found))
    digest = graph_digest(graph, parts)
    version = digest.removeprefix(PREFIX)[:VERSION_DIGITS]
    return Answerer(model=name, version=version, digest=digest, graph=graph, parts=parts)


def split_model(text: str) -> tuple[str, str | None, str | None]:
    """Name, version and alias of `NAME`, `NAME:VERSION` or `NAME@ALIAS`."""
    name, mark, rest = text.partition("@") if "@" in text else text.partition(":")
    return (name, None, rest) if mark == "@" else (name, rest or None, None)


def _part(tx: Transaction, project: str, path: str, reference: str) -> GraphPart:
    model, version, alias = split_model(reference)
    field = f"graph.{path}.model"
    try:
        found = resolve(tx, project, model, version=version, alias=alias).version
    except (NotFound, Conflict, InvalidRequest) as error:
        details = [{"field": field, "expected": error.hint or error.detail}]
        raise type(error)(error.detail, hint=error.hint, details=details) from error
    alone = found.isolation is not Isolation.SHARED or project != DEFAULT_PROJECT
    if alone or not found.has_package:
        why = "runs only in a process of its own here" if alone else "has no form that can be served here"
        raise InvalidRequest(
            f"{field}: {quote(reference)} {why}",
            hint="deploy it as a service, and name that",
            details=[{"field": field, "expected": "service: the name of a service"}],
        )
    return GraphPart(reference=reference, model=found.model, version=found.version, digest=found.digest)


def upstream_answerer(tx: Transaction, project: str, upstream: Upstream) -> Answerer:
    """The answerer that an upstream is.

    Raises:
        InvalidRequest: the specification has a problem; the details name the fields.
        NotFound: the secret that it names is not set.
    """
    problems = list(problems_of(upstream))
    if problems:
        path, what, expected = problems[0]
        raise InvalidRequest(
            f"upstream.{path}: {what}",
            hint=expected,
            details=[{"field": f"upstream.{field}", "expected": right} for field, _, right in problems],
        )
    if upstream.auth is not None:
        require_secrets(tx, project, [upstream.auth.secret])
    return Answerer(
        model=upstream.model,
        version=upstream_version(upstream),
        digest=upstream_digest(upstream),
        upstream=upstream,
    )


def require_same_dialect(present: ServiceSpec | None, upstream: Upstream | None) -> None:
    """Refuse that a service changes what its callers have to speak."""
    if present is None or is_relayed(present.upstream) is is_relayed(upstream):
        return
    old, new = ("the OpenAI dialect", "tensors") if is_relayed(present.upstream) else ("tensors", "the OpenAI dialect")
    raise InvalidRequest(
        f"{quote(present.name)} speaks {old}, and would speak {new} from one moment to the next",
        hint="give it another name, or undeploy this one first",
        details=[{"field": "upstream", "expected": f"something that speaks {old}"}],
    )


def is_relayed(upstream: Upstream | None) -> bool:
    """Whether callers speak the OpenAI dialect."""
    return upstream is not None and upstream.protocol is UpstreamProtocol.OPENAI


def secrets_of(spec: ServiceSpec) -> frozenset[str]:
    """The secrets that a service needs: for what answers elsewhere, and for variables of its workers."""
    auth = None if spec.upstream is None else spec.upstream.auth
    return frozenset(spec.env.values()) | (frozenset() if auth is None else frozenset({auth.secret}))
