"""The reference page of the data plane's figures, made from their declarations.

python -m modelyard.inference.server.reference > docs/reference/metrics.md
"""

import sys

from modelyard.foundation.metrics import DURATION_BUCKETS_S
from modelyard.foundation.metrics.exposition import PROCESS_FAMILIES
from modelyard.inference.deferred import FAMILIES as DEFERRED
from modelyard.inference.routing import FAMILIES

_HEAD = """# Metrics

Prometheus text at `/metrics` of the inference listener. Any model server answers for all servers of its machine, and no
counter falls when one of them dies. With keys required the page asks for the scope `metrics`.

Made from the declarations by `python -m modelyard.inference.server.reference`; a test compares the two.

| figure | kind | labels | meaning |
|---|---|---|---|
"""
_TAIL = f"""
Histograms have the bounds {", ".join(f"{bound:g}" for bound in DURATION_BUCKETS_S)} seconds (OpenTelemetry's
`http.server.request.duration`).

One input is one inference request. At every moment, for each service,

    received = answered + rejected + lost + in flight

where answered includes requests on which the model failed, rejected are those a model never saw, and lost are those
accepted that got no prediction: `timeout`, `cancelled` (the client went away), `worker_died`, `process_died`.
"""


def page() -> str:
    """The page, in Markdown."""
    rows = [
        f"| `{family.name}` | {family.kind} | {', '.join(f'`{label}`' for label in family.labels)} | {family.help} |"
        for family in (*FAMILIES, *DEFERRED, *PROCESS_FAMILIES)
    ]
    return _HEAD + "\n".join(rows) + "\n" + _TAIL


if __name__ == "__main__":
    sys.stdout.write(page())
