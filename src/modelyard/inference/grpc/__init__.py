"""The Open Inference Protocol over gRPC, with health and reflection: another way in, the same way through.

protobuf is imported with the first call, not with this package.

"""

from modelyard.inference.grpc.listener import GrpcListener, serve_grpc
from modelyard.inference.grpc.settings import GrpcSettings

__all__ = ["GrpcListener", "GrpcSettings", "serve_grpc"]
