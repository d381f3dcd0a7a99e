"""The typed HTTP client: what scripts, notebooks and the command line use.

`Client` and its asynchronous twin `AsyncClient` speak to the control plane; `Service` asks a deployed model with
DataFrames, arrays or records, over binary tensors.
"""

from modelyard.client.aio import AsyncClient, AsyncService
from modelyard.client.connection import Connection
from modelyard.client.documents import Prediction, ServiceInfo, Upload, Version
from modelyard.client.errors import RemoteError
from modelyard.client.later import AsyncLaterPrediction, LaterPrediction
from modelyard.client.sync import Client, Service

__all__ = [
    "AsyncClient",
    "AsyncLaterPrediction",
    "AsyncService",
    "Client",
    "Connection",
    "LaterPrediction",
    "Prediction",
    "RemoteError",
    "Service",
    "ServiceInfo",
    "Upload",
    "Version",
]
