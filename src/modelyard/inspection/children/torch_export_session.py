"""Ask an exported PyTorch program as its worker will: by the same lines, on one thread, behind the probe's walls."""

from collections.abc import Mapping
from pathlib import Path

from modelyard.domain.contract import ModelContract
from modelyard.inspection.children.facts import Array
from modelyard.inspection.children.torch_export_predict import Program


class TorchExportSession:
    """A program in memory."""

    def __init__(self, path: Path, contract: ModelContract) -> None:
        self._program = Program(str(path))
        label = contract.labelling.output if contract.labelling is not None else None
        self._wanted = {spec.name for spec in contract.outputs if spec.name != label}
        if contract.labelling is not None:
            self._wanted.add(contract.labelling.source)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs that the contract needs."""
        answers: dict[str, Array] = self._program.run(inputs)  # type: ignore[no-untyped-call]  # it stands alone
        return {name: value for name, value in answers.items() if name in self._wanted}


def load_library() -> None:
    """Import what loading a program imports, before the walls stand."""
    import torch
    import torch._inductor.cpp_builder
    import torch.export.pt2_archive

    torch.set_num_threads(1)
