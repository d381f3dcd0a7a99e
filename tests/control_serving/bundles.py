"""Small bundles that intake accepts, and other bytes that uploads are made of."""

import json
import struct

Files = list[tuple[str, tuple[str, bytes]]]


def bundle(*, bias: float = 1.0, labels: tuple[str, str] = ("cat", "dog")) -> Files:
    """A linear model of three inputs and two classes, as parts of an upload; `bias` makes it another one."""
    tensors = {
        "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]},
    }
    head = json.dumps(tensors).encode()
    weights = struct.pack("<Q", len(head)) + head + struct.pack("<8f", 1, 0, 0, 0, 1, 0, bias, 0)
    config = {
        "format": "safetensors",
        "task": "classification",
        "num_labels": 2,
        "architecture": [{"linear": {"weight": "w", "bias": "b"}}],
        "input": {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
        "output": {"name": "y", "datatype": "FP32", "shape": [-1, 2]},
    }
    return [
        ("files", ("config.json", json.dumps(config).encode())),
        ("files", ("weights.safetensors", weights)),
        ("files", ("labels.json", json.dumps(dict(zip("01", labels, strict=True))).encode())),
    ]


def concatenated(files: Files) -> tuple[list[dict[str, object]], bytes]:
    """The same for a resumable upload: what is announced, and the bytes of all files."""
    return [{"name": name, "size": len(data)} for _, (name, data) in files], b"".join(data for _, (_, data) in files)
