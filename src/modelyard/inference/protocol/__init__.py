"""The dialects that callers speak, as pure functions between bytes and arrays.

`Signature` is a loaded model as its callers see it, compiled once. `read_infer` and `write_infer` speak the Open
Inference Protocol V2 with its extensions for binary data, classification and schedule policy; `read_v1`/`write_v1` and
`read_mlflow`/`write_mlflow` the two older dialects. `write_error` is the one place where an error gets its status here.
"""

from modelyard.inference.protocol.answers import write_infer
from modelyard.inference.protocol.asking import (
    answer_signature,
    contract_of,
    read_answer,
    read_described,
    takes_binary,
    write_question,
)
from modelyard.inference.protocol.datatypes import to_raw
from modelyard.inference.protocol.errors import STATUS, status_of, write_error
from modelyard.inference.protocol.forms import Form, Forms, Lot, forms_of
from modelyard.inference.protocol.generate import read_generate, write_generate
from modelyard.inference.protocol.metadata import (
    ModelStatistics,
    Spent,
    model_configuration,
    model_metadata,
    repository_index,
    server_metadata,
    statistics,
)
from modelyard.inference.protocol.mlflow import read_mlflow, write_mlflow
from modelyard.inference.protocol.reading import parse_json_size, read_infer
from modelyard.inference.protocol.request import Encoded, InferRequest, Wanted
from modelyard.inference.protocol.signature import Signature
from modelyard.inference.protocol.tensors import read_tensors, typed_outputs
from modelyard.inference.protocol.together import Written, write_together
from modelyard.inference.protocol.v1 import read_v1, write_v1

__all__ = [
    "STATUS",
    "Encoded",
    "Form",
    "Forms",
    "InferRequest",
    "Lot",
    "ModelStatistics",
    "Signature",
    "Spent",
    "Wanted",
    "Written",
    "answer_signature",
    "contract_of",
    "forms_of",
    "model_configuration",
    "model_metadata",
    "parse_json_size",
    "read_answer",
    "read_described",
    "read_generate",
    "read_infer",
    "read_mlflow",
    "read_tensors",
    "read_v1",
    "repository_index",
    "server_metadata",
    "statistics",
    "status_of",
    "takes_binary",
    "to_raw",
    "typed_outputs",
    "write_error",
    "write_generate",
    "write_infer",
    "write_mlflow",
    "write_question",
    "write_together",
    "write_v1",
]
