"""`modelyard import mlflow`: a registry or a folder of models, read without mlflow, planned first, then carried out.

Names, aliases, tags, run ids and the order of versions are kept. Nothing of a model is opened here: files are handed to
the upload centre, whose audit decides.
"""

from pathlib import Path

from modelyard.client.mlflow.folder import ModelFolder
from modelyard.client.mlflow.plan import Fate, Imported, PlanLine, Uploader, carry_out, plan
from modelyard.client.mlflow.registry import RegisteredVersion, Source
from modelyard.client.mlflow.server import MlflowServer

__all__ = [
    "Fate",
    "Imported",
    "MlflowServer",
    "ModelFolder",
    "PlanLine",
    "RegisteredVersion",
    "Source",
    "Uploader",
    "carry_out",
    "open_source",
    "plan",
]


def open_source(uri: str, *, token: str | None = None) -> Source:
    """The server at `http(s)://…` (with `token` as bearer), or the folder at a path."""
    return MlflowServer(uri, token=token) if uri.startswith(("http://", "https://")) else ModelFolder(Path(uri))
