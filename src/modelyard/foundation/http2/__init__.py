"""HTTP/2 for gRPC on our own event loop: no task, future or timer a call, one write a connection and turn.

def predict(call: Call) -> None:
    call.reply(answer(call.message))

listener = await serve_grpc(Methods({b"/package.Service/Predict": predict}), sockets=[bound])
...
await listener.close()
"""

from modelyard.foundation.http2.answers import ok_block
from modelyard.foundation.http2.call import Call
from modelyard.foundation.http2.handling import GrpcHandler
from modelyard.foundation.http2.head import CallHead
from modelyard.foundation.http2.limits import Http2Limits
from modelyard.foundation.http2.listener import GrpcListener, GrpcSettings, Methods, serve_grpc
from modelyard.foundation.http2.status import METHOD, Status
from modelyard.foundation.http2.streaming import StreamCall

__all__ = [
    "METHOD",
    "Call",
    "CallHead",
    "GrpcHandler",
    "GrpcListener",
    "GrpcSettings",
    "Http2Limits",
    "Methods",
    "Status",
    "StreamCall",
    "ok_block",
    "serve_grpc",
]
