"""The artifact stores there are, by the name that settings give them."""

from typing import Final

from modelyard.foundation.registry import Registry
from modelyard.ports.artifact_store import ArtifactStore

ARTIFACT_STORES: Final = Registry[ArtifactStore](
    group="modelyard.artifact_stores",
    builtin={"files": "modelyard.integrations.artifact_stores.files:FileArtifactStore"},
)
