"""What answers for a service that is no version of the library: a server elsewhere."""

from dataclasses import dataclass

from modelyard.control.identity import require_secrets
from modelyard.control.records import Transaction
from modelyard.domain.contract import Isolation
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.service import ServiceSpec
from modelyard.domain.upstreams import Upstream, UpstreamProtocol, problems_of, upstream_digest, upstream_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerer:
    """It stands where a version of the library would: under a name, a version and a digest of its own."""

    model: str
    version: str
    digest: str
    isolation: Isolation = Isolation.SHARED
    upstream: Upstream | None = None


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
    """The secrets that a service needs."""
    auth = None if spec.upstream is None else spec.upstream.auth
    return frozenset() if auth is None else frozenset({auth.secret})
