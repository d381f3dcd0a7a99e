"""The Open Inference Protocol over gRPC, with health and reflection: another way in, the same way through.

Import it only where a gRPC port is asked for: grpcio costs memory and start-up time (docs/reference/grpc.md).
"""

from modelyard.inference.grpc.listener import GrpcListener, GrpcSettings, serve_grpc

__all__ = ["GrpcListener", "GrpcSettings", "serve_grpc"]
