"""Which core is whose: the server has the first, the load the last. On a machine of one core nothing is pinned."""

import os

_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
SERVER_CORE: str | None = str(_CORES[0]) if len(_CORES) > 1 else None
LOAD_CORE: str | None = str(_CORES[-1]) if len(_CORES) > 1 else None
