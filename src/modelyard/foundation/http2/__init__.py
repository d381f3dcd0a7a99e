"""HTTP/2 for unary gRPC on our own event loop: no task, future or timer a call, one write a connection and turn.

def predict(call: Call) -> None:
    call.reply(answer(call.message))

listener = await serve_grpc(UnaryMethods({b"/package.Service/Predict": predict}), sockets=[bound])
...
await listener.close()
"""

from modelyard.foundation.http2.call import Call, UnaryHandler
from modelyard.foundation.http2.limits import Http2Limits
from modelyard.foundation.http2.listener import GrpcListener, GrpcSettings, UnaryMethods, serve_grpc

__all__ = ["Call", "GrpcListener", "GrpcSettings", "Http2Limits", "UnaryHandler", "UnaryMethods", "serve_grpc"]
