"""The house keeps its own rules: floors, sizes, and what is used in one place only."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "modelyard"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_every_import_keeps_to_its_floor() -> None:
    done = run(
        sys.executable,
        "-c",
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; sys.exit(lint_imports())",
    )
    assert done.returncode == 0, done.stdout


def test_no_file_and_no_function_has_grown_too_large() -> None:
    done = run(sys.executable, "tools/check_sizes.py")
    assert done.returncode == 0, done.stdout


HOMES = {
    r"\bos\.environ\b": {
        "client/connection.py",
        "inspection/child_process.py",
        "integrations/tuning/errands.py",  # writes it, for a script of the user's
        "processes/all_in_one/children.py",
        "processes/control_plane.py",
        "processes/model_worker.py",
        "processes/restoring.py",
        "testing/platform.py",
    },
    r"^\s*(import|from) pickle\b": {"inspection/children/unpickle.py"},
    r"\bdatetime\.now\(": {"foundation/clock.py"},
}


def test_what_has_one_home_is_used_nowhere_else() -> None:
    strays = []
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        name = str(path.relative_to(SOURCE))
        strays += [
            f"{name}: {rule}"
            for rule, homes in HOMES.items()
            if name not in homes and re.search(rule, text, re.MULTILINE)
        ]
    assert strays == []


def test_nothing_names_where_it_was_made() -> None:
    kept = run("git", "ls-files").stdout.split()
    words = re.compile(r"pypi\.org|pythonhosted|registry\.npmjs|deb\.debian\.org|/work/(main|shared|\.library)")
    named = []
    for name in kept:
        path = ROOT / name
        if path == Path(__file__) or not path.is_file() or path.stat().st_size > 5_000_000:
            continue
        if words.search(path.read_text(encoding="utf-8", errors="replace")):
            named.append(name)
    assert named == []


def test_the_index_of_the_documentation_names_every_page_once() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([^)#]+)\)", index)
    pages = {
        str(path.relative_to(ROOT / "docs"))
        for path in (ROOT / "docs").rglob("*")
        if path.suffix in (".md", ".ipynb") and path.name != "README.md"
    }
    assert sorted(linked) == sorted(pages)
