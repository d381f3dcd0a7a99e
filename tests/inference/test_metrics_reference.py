"""The reference page of the figures is complete, and so is what a server shows."""

from pathlib import Path

from modelyard.inference.routing import FAMILIES
from modelyard.inference.server.reference import page

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "metrics.md"


def test_the_page_is_what_the_declarations_say() -> None:
    assert PAGE.read_text() == page(), "python -m modelyard.inference.server.reference > docs/reference/metrics.md"


def test_every_figure_a_server_shows_is_on_the_page(packages, servers, kit) -> None:
    server = servers.start(kit.table(kit.service("m1", kit.backend(packages.linear()))))
    with server.client() as client:
        client.post("/v2/models/m1/infer", json=kit.question())
        text = client.get("/metrics").text
    shown = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    known = {line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")}
    assert shown <= known
    assert {family.name for family in FAMILIES} <= known
