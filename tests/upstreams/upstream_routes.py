"""Routes to upstreams, as the control plane publishes them."""

from typing import Any

from modelyard.domain.routing import Backend, ServiceRoute
from modelyard.domain.upstreams import Upstream, UpstreamAuth, UpstreamProtocol, upstream_digest, upstream_version


def relayed(name: str, url: str, *, protocol: str = "openai", model: str = "small", **more: Any) -> ServiceRoute:
    """A route to an upstream; the rest are fields of the upstream, or of the route where they stand in `route`."""
    route = more.pop("route", {})
    secret = more.pop("secret", None)
    auth = None if secret is None else UpstreamAuth(secret=secret)
    wanted = Upstream(protocol=UpstreamProtocol(protocol), url=url, model=model, auth=auth, **more)
    backend = Backend(
        model=model,
        version=upstream_version(wanted),
        digest=upstream_digest(wanted),
        package="",
        revision=1,
        upstream=wanted,
    )
    return ServiceRoute(name=name, revision=1, backends=(backend,), **route)
