"""Import contract: other capabilities see only a capability's face, its package, never its inner modules.

Options: `container` is the package that holds the capabilities; `open_to_api` and `open_to_processes` name inner
modules that the composition roots (`<container>.api`, `modelyard.processes`) may import besides.
"""

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

API, PROCESSES = "api", "modelyard.processes"


class SliceFaceContract(Contract):
    """Refuses direct imports of `container.capability.inner` from outside `container.capability`."""

    container = fields.StringField()
    open_to_api = fields.StringField(required=False, default="")
    open_to_processes = fields.StringField(required=False, default="")

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001
        """List every import that goes past a face."""
        container = str(self.container)
        broken = [
            (importer, inner)
            for capability in graph.find_children(container)
            for inner in graph.find_descendants(capability)
            for importer in graph.find_modules_that_directly_import(inner)
            if not self._allowed(importer, capability=capability, inner=inner)
        ]
        return ContractCheck(kept=not broken, metadata={"broken": sorted(broken)})

    def _allowed(self, importer: str, *, capability: str, inner: str) -> bool:
        if importer == capability or importer.startswith(capability + "."):
            return True
        first = inner.removeprefix(capability + ".").split(".")[0]
        if importer.startswith(f"{self.container}.{API}"):
            return first in str(self.open_to_api).split()
        return importer.startswith(PROCESSES) and first in str(self.open_to_processes).split()

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Say who imports what."""
        for importer, inner in check.metadata["broken"]:
            output.print_error(f"{importer} imports {inner} past its face")
