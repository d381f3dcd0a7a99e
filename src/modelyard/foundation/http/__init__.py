"""HTTP/1.1 that may stand on the edge: our framing checks, limits and deadlines on asyncio (uvloop where installed).

Both listeners use it: the data plane by a `Handler` that gets whole requests, the control plane by `AsgiHandler`.

    listener = await serve(handler, address=("127.0.0.1", 8000))
    ...
    await listener.close()
"""

from modelyard.foundation.http.asgi import AsgiHandler
from modelyard.foundation.http.body import BodyStream
from modelyard.foundation.http.edge import AccessLog, EdgeSettings
from modelyard.foundation.http.exchange import Handler, Reply, Request
from modelyard.foundation.http.hosts import HostPolicy, TrustedProxies
from modelyard.foundation.http.limits import EdgeLimits, RouteRule, RouteRules
from modelyard.foundation.http.listener import Listener, serve
from modelyard.foundation.http.loop import new_event_loop, run
from modelyard.foundation.http.refusal import ErrorWriter, inference_errors, problem_errors
from modelyard.foundation.http.tls import TlsFiles
from modelyard.foundation.http.wire import HeaderLines, header_lines

__all__ = [
    "AccessLog",
    "AsgiHandler",
    "BodyStream",
    "EdgeLimits",
    "EdgeSettings",
    "ErrorWriter",
    "Handler",
    "HeaderLines",
    "HostPolicy",
    "Listener",
    "Reply",
    "Request",
    "RouteRule",
    "RouteRules",
    "TlsFiles",
    "TrustedProxies",
    "header_lines",
    "inference_errors",
    "new_event_loop",
    "problem_errors",
    "run",
    "serve",
]
