"""What is spoken over gRPC, by name: known without loading protobuf."""

from typing import Final

INFERENCE: Final = "inference.GRPCInferenceService"
HEALTH: Final = "grpc.health.v1.Health"
REFLECTION: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
SERVICES: Final = (INFERENCE, HEALTH, *REFLECTION)
STREAMS: Final = frozenset(
    path.encode()
    for path in (
        f"/{INFERENCE}/ModelStreamInfer",
        f"/{HEALTH}/Watch",
        *(f"/{name}/ServerReflectionInfo" for name in REFLECTION),
    )
)
"""Paths of the methods that take or give more than one message; a test holds them against the descriptors."""
