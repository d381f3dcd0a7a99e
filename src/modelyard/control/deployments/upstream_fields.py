"""An upstream as people write it, in a manifest and in a body, both ways."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from modelyard.domain.names import NAME_PATTERN
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.domain.upstreams import (
    MOST_MODEL_CHARS,
    MOST_MS,
    MOST_URL_CHARS,
    Upstream,
    UpstreamAuth,
    UpstreamProtocol,
)
from modelyard.foundation.documents import to_plain


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TensorBody(_Strict):
    """An input or output, in the terms of V2; -1 is a dimension that varies."""

    name: str = Field(min_length=1, max_length=200)
    datatype: DataType
    shape: list[Annotated[int, Field(ge=-1, le=2**31)]] = Field(max_length=16)


class UpstreamAuthBody(_Strict):
    """How we show who we are there."""

    secret: str = Field(pattern=f"^{NAME_PATTERN}$", max_length=63, description="Name of a secret of the project.")
    header: str = Field(default="Authorization", max_length=64)
    scheme: str = Field(default="Bearer", max_length=32, description='What stands before the secret; "" for nothing.')


class UpstreamBody(_Strict):
    """A server elsewhere that answers for this service."""

    protocol: UpstreamProtocol = Field(description="openai or v2.")
    url: str = Field(max_length=MOST_URL_CHARS, description="Its base, as in https://api.example.com/v1.")
    model: str | None = Field(default=None, max_length=MOST_MODEL_CHARS, description="Its name there; default: ours.")
    version: str | None = Field(default=None, max_length=63, description="A version there (v2).")
    auth: UpstreamAuthBody | None = None
    timeout_ms: int = Field(
        default=60_000, ge=1, le=MOST_MS, description="For the head of an answer, and for the rest."
    )
    stream_timeout_ms: int = Field(default=600_000, ge=1, le=MOST_MS, description="For a whole stream.")
    max_connections: int = Field(default=64, ge=1, le=1024, description="Of each model server.")
    check_s: float = Field(default=0.0, ge=0, le=3600, description="Ask for a sign of life that often; 0 never.")
    stream_usage: bool = Field(default=True, description="Ask streams to tell their token counts (openai).")
    inputs: list[TensorBody] = Field(default=[], max_length=64, description="Where a v2 server does not say itself.")
    outputs: list[TensorBody] = Field(default=[], max_length=64)

    def value(self, service: str) -> Upstream:
        """The same in the terms of the domain."""
        given = self.model_dump(exclude={"auth", "inputs", "outputs", "model"})
        return Upstream(
            **given,
            model=self.model or service,
            auth=None if self.auth is None else UpstreamAuth(**self.auth.model_dump()),
            inputs=_specs(self.inputs),
            outputs=_specs(self.outputs),
        )


def upstream_fields(upstream: Upstream) -> dict[str, Any]:
    """The manifest's form of `upstream`; what has its default is left out."""
    plain = to_plain(upstream)
    usual = UpstreamBody(protocol=upstream.protocol, url="").model_dump()
    fields = {name: value for name, value in plain.items() if value != usual[name]}
    fields["protocol"] = upstream.protocol.value
    for side in ("inputs", "outputs"):
        fields.pop(side, None)
        specs = getattr(upstream, side)
        if specs:
            fields[side] = [{"name": s.name, "datatype": s.datatype.value, "shape": list(s.shape)} for s in specs]
    if upstream.auth is not None:
        usual_auth = to_plain(UpstreamAuth(secret=""))
        fields["auth"] = {k: v for k, v in to_plain(upstream.auth).items() if k == "secret" or v != usual_auth[k]}
    return fields


def _specs(bodies: list[TensorBody]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=body.name, datatype=body.datatype, shape=tuple(body.shape), allows_nan=True) for body in bodies
    )
