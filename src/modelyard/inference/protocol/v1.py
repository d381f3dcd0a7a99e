"""The V1 dialect (KServe, TensorFlow Serving): `{"instances": […]}` to `{"predictions": […]}`.

With one output a prediction is that output's row. With several it is an object by output name, as TensorFlow Serving
does it: for a classifier `{"label": "setosa", "probabilities": [0.9, 0.1, 0.0]}`.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from modelyard.domain.errors.inference import InferenceInvalid
from modelyard.inference.protocol.answers import listed
from modelyard.inference.protocol.careful import load_document
from modelyard.inference.protocol.examples import example_instances
from modelyard.inference.protocol.options import kind_of
from modelyard.inference.protocol.request import Encoded, InferRequest
from modelyard.inference.protocol.rows import from_instances
from modelyard.inference.protocol.signature import Signature

Array = np.ndarray[Any, Any]


def read_v1(body: bytes, *, signature: Signature) -> InferRequest:
    """The request in a V1 `:predict` body.

    Raises:
        InferenceInvalid: the request cannot be given to the model. The example is a V1 body.
    """
    try:
        document = load_document(body, signature)
        if not isinstance(document, dict) or "instances" not in document:
            raise signature.refusal(
                InferenceInvalid,
                'the body must be an object with "instances", one entry a row',
                field="instances",
                expected="a list",
                received="nothing" if isinstance(document, dict) else kind_of(document),
            )
        return from_instances(document["instances"], signature)
    except InferenceInvalid as error:
        error.example = example_instances(signature.example)
        raise


def write_v1(request: InferRequest, outputs: Mapping[str, Array], *, signature: Signature) -> Encoded:
    """The answer as `{"predictions": […]}`, one entry a row."""
    return Encoded(msgspec.json.encode({"predictions": predictions(request, outputs, signature)}))


def predictions(request: InferRequest, outputs: Mapping[str, Array], signature: Signature) -> list[Any]:
    """One entry a row: the only output's value, or an object by output name."""
    plain = listed(outputs, signature.outputs)
    if not signature.batched:
        plain = {name: [value] for name, value in plain.items()}
    names = list(signature.outputs)
    if len(names) == 1:
        return plain[names[0]]
    return [{name: plain[name][row] for name in names} for row in range(request.rows)]
