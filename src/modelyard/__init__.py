"""Modelyard takes a trained model file to a service that people trust.

`from modelyard import Client` is the way in for scripts and notebooks; the client is imported when it is first named.
"""

from typing import TYPE_CHECKING

from modelyard.version import __version__

if TYPE_CHECKING:
    from modelyard.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> object:
    if name in {"AsyncClient", "Client"}:
        import modelyard.client

        return getattr(modelyard.client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
