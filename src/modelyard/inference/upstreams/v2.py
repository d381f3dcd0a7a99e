"""A V2 server elsewhere, as arrays in and arrays out."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from modelyard.domain.contract import ModelContract
from modelyard.domain.errors.inference import InferenceInvalid, UpstreamFailed
from modelyard.foundation.outbound import Question
from modelyard.inference.protocol import (
    Signature,
    answer_signature,
    contract_of,
    read_answer,
    read_described,
    takes_binary,
    write_question,
)
from modelyard.inference.upstreams.client import UpstreamClient, is_for_caller

Array = np.ndarray[Any, Any]
_OK: Final = 200
_SIZE: Final = b"inference-header-content-length"
_JSON: Final = ((b"accept", b"application/json"),)


class V2Upstream:
    """Learns once what the upstream takes, then asks it. `contract` and `platform` are there after `learn`."""

    def __init__(self, client: UpstreamClient) -> None:
        self.client = client
        upstream = client.upstream
        version = "" if upstream.version is None else f"/versions/{upstream.version}"
        self._model = f"/v2/models/{upstream.model}{version}"
        self._binary = False
        self._reader: Signature | None = None
        self.platform = ""
        self.contract: ModelContract | None = None

    async def learn(self) -> ModelContract:
        """What it takes and gives, by its own metadata or by the specification.

        Raises:
            ModelyardError: it cannot be reached, does not have the model, or does not say.
        """
        upstream = self.client.upstream
        answer, body = await self.client.read(Question("GET", "/v2", _JSON))
        self._binary = answer.status == _OK and takes_binary(body)
        if upstream.inputs:
            contract = contract_of(upstream.inputs, upstream.outputs)
        else:
            answer, body = await self.client.read(Question("GET", self._model, _JSON))
            if answer.status != _OK:
                raise UpstreamFailed(
                    f"the upstream has no model {upstream.model} (it answers {answer.status})",
                    hint="upstream.model is its name there",
                )
            self.platform, contract = read_described(body)
        self.contract = contract
        self._reader = answer_signature(upstream.model, contract)
        return contract

    async def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Its outputs for `inputs`.

        Raises:
            InferenceInvalid: it refuses the request itself, in its words.
            ModelyardError: as `UpstreamClient.read`.
        """
        assert self.contract is not None
        assert self._reader is not None
        encoded = write_question(inputs, self.contract, binary=self._binary)
        headers = [(b"content-type", b"application/json"), (b"accept", b"*/*")]
        if encoded.json_size is not None:
            headers = [
                (b"content-type", b"application/octet-stream"),
                (b"accept", b"*/*"),
                (_SIZE, b"%d" % encoded.json_size),
            ]
        answer, body = await self.client.read(Question("POST", f"{self._model}/infer", headers, encoded.body))
        if is_for_caller(answer.status):
            raise InferenceInvalid(f"the upstream refuses the request: {_words(body)}", hint="see the model's metadata")
        if answer.status != _OK:
            raise UpstreamFailed(f"the upstream answers {answer.status}")
        size = answer.headers.get(_SIZE)
        if size is not None and not (size.isdigit() and int(size) <= len(body)):
            raise UpstreamFailed("the upstream's answer is no V2 answer")
        return read_answer(body, None if size is None else int(size), self._reader)


def _words(body: bytes) -> str:
    """The reason in a V2 error document, as plain ASCII, cut short."""
    try:
        said = msgspec.json.decode(body, type=dict[str, Any]).get("error", "")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = ""
    return ascii(str(said))[1:-1][:300] or "it does not say why"
