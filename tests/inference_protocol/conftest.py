"""Makes this folder's own modules (models, the independent reader) importable by its tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
