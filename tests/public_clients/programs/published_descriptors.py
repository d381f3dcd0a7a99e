"""Prints the field numbers of the published protocol, and of ours as the published compiler reads it, as JSON.

Arguments: the directory of our .proto files.
"""

import json
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from tritonclient.grpc import model_config_pb2, service_pb2


def fields(prefix: str, messages) -> dict:
    found = {}
    for message in messages:
        name = f"{prefix}.{message.name}"
        found[name] = {field.name: [field.number, field.type, field.label, field.type_name] for field in message.field}
        found |= fields(name, message.nested_type)
    return found


published = {}
for module in (service_pb2, model_config_pb2):
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    published |= fields(file.package, file.message_type)
    published |= {
        f"{file.package}.{service.name}": {
            method.name: [method.client_streaming, method.server_streaming, method.input_type, method.output_type]
            for method in service.method
        }
        for service in file.service
    }
with tempfile.TemporaryDirectory() as place:
    out = Path(place) / "set"
    names = ["open_inference.proto", "health.proto", "reflection.proto", "reflection_v1alpha.proto"]
    assert protoc.main(["protoc", f"-I{sys.argv[1]}", f"--descriptor_set_out={out}", *names]) == 0
    print(json.dumps({"published": published, "compiled": out.read_bytes().hex()}))
