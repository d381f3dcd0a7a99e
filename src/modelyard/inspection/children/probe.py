"""The program `probe`: does the package answer, and how (`python -I -m modelyard.inspection.children.probe`)."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

from modelyard.inspection.children.program import Channel, Program, Request

_HERE: Final = "modelyard.inspection.children"
_ORIGINALS: Final = ("sklearn.pipeline", f"{_HERE}.unpickle", f"{_HERE}.skops_file")


def preload(runtime: str) -> None:
    """Import what asking needs; for a runtime of its own also its library."""
    import_module(f"{_HERE}.probing")
    match runtime:
        case "sklearn_original":
            for name in _ORIGINALS:
                import_module(name)
        case "openvino":
            import_module(f"{_HERE}.openvino_session").load_library()
        case "torch_export":
            import_module(f"{_HERE}.torch_export_session").load_library()
        case _:
            import_module("onnxruntime")


def work(request: Request, channel: Channel) -> None:
    """Ask the package in the request's directory the rows that lie beside it."""
    from modelyard.foundation.documents import read_package, to_plain
    from modelyard.inspection.children.probing import Probe
    from modelyard.inspection.children.v2_values import array_of

    directory = Path(request.body["directory"])
    document = json.loads((directory / request.body["rows"]).read_bytes())
    rows = {item["name"]: array_of(item) for item in document["inputs"]}
    probe = Probe(directory, read_package(directory), channel)
    contract, golden = probe.run(rows, source=document["source"])
    channel.done({"contract": to_plain(contract), "golden": to_plain(golden)})


PROGRAM: Final = Program("probe", preload, work)

if __name__ == "__main__":
    sys.exit(PROGRAM.main(sys.argv[1:]))
