"""`modelyard serve PATH`: one process group from a bare file to an endpoint, with no database and nothing to write."""

from modelyard.processes.serve.session import Narrator, Served, ServeOptions, serve

__all__ = ["Narrator", "ServeOptions", "Served", "serve"]
