"""Modelyard takes a trained model file to a service that people trust."""

from modelyard.version import __version__

__all__ = ["__version__"]
