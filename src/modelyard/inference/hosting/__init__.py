"""Models that this process holds: load, warm up, check against the golden answer, measure, let go."""

from modelyard.inference.hosting.loading import HostedModel, load_model, require_whole
from modelyard.inference.hosting.runtimes import RUNTIMES

__all__ = ["RUNTIMES", "HostedModel", "load_model", "require_whole"]
