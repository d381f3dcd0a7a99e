"""The inference listener: bytes in, admission, routing, batching, bytes out."""

from modelyard.inference.server.access_log import AccessLog
from modelyard.inference.server.deferring import DeferredDoor, replay
from modelyard.inference.server.handler import InferenceHandler
from modelyard.inference.server.pages import Pages
from modelyard.inference.server.repository import Repository
from modelyard.inference.server.server_logs import ServerLogs

__all__ = ["AccessLog", "DeferredDoor", "InferenceHandler", "Pages", "Repository", "ServerLogs", "replay"]
