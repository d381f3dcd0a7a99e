"""Asking a deployed model: the V2 request and its answer, shared by the synchronous and the asynchronous service."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from modelyard.client.columns import to_inputs
from modelyard.client.documents import Prediction, ServiceInfo
from modelyard.client.tensors import HEADER_LENGTH, decode_answer, encode_request


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """A binary V2 request ready to be sent."""

    url: str
    body: bytes
    headers: Mapping[str, str]


def metadata_url(info: ServiceInfo, version: str | None) -> str:
    """Where the model's V2 metadata is."""
    return f"{info.url}/versions/{version}" if version else info.url


def infer_request(info: ServiceInfo, metadata: Mapping[str, Any], data: object, *, version: str | None) -> InferRequest:
    """`data` for the model that `metadata` describes."""
    inputs = to_inputs(data, metadata["inputs"])
    body, json_size = encode_request(inputs, outputs=[output["name"] for output in metadata["outputs"]])
    return InferRequest(
        url=metadata_url(info, version) + "/infer",
        body=body,
        headers={"content-type": "application/octet-stream", HEADER_LENGTH: str(json_size)},
    )


def read_prediction(response: httpx.Response, info: ServiceInfo) -> Prediction:
    """The answer as arrays, with who gave it."""
    size = response.headers.get(HEADER_LENGTH)
    head, outputs = decode_answer(response.content, int(size) if size else None)
    contract = info.document.get("contract") or {}
    return Prediction(
        outputs=outputs,
        service=info.name,
        version=response.headers.get("x-model-version", str(head.get("model_version", ""))),
        digest=response.headers.get("x-model-digest", ""),
        request_id=response.headers.get("x-request-id", ""),
        labels=tuple(contract.get("labels") or ()),
    )
