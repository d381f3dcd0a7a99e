"""Fail when a file or a function of the product is larger than the house allows.

A file has at most 600 lines and a function at most 60, counted as they stand. Files over 400 lines and functions over
40 are listed with `--all`: they are the next to be split.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES, FUNCTION_LINES = 600, 60
AIM_FILE_LINES, AIM_FUNCTION_LINES = 400, 40
SOURCE = Path(__file__).parent.parent / "src"


def sizes(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """(name, lines, limit, aim) of the file and of every function in it."""
    text = path.read_text(encoding="utf-8")
    name = str(path.relative_to(SOURCE))
    yield name, text.count("\n"), FILE_LINES, AIM_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            first = min((d.lineno for d in node.decorator_list), default=node.lineno)
            lines = node.end_lineno - first + 1 - _docstring_lines(node)
            yield f"{name}:{node.lineno} {node.name}", lines, FUNCTION_LINES, AIM_FUNCTION_LINES


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return (first.end_lineno or first.lineno) - first.lineno + 1
    return 0


def main() -> int:
    """Print what is too large; 1 when there is any."""
    show_all = "--all" in sys.argv[1:]
    found = [row for path in sorted(SOURCE.rglob("*.py")) for row in sizes(path)]
    broken = [row for row in found if row[1] > (row[3] if show_all else row[2])]
    for name, lines, limit, _ in sorted(broken, key=lambda row: -row[1]):
        print(f"{lines:5} lines (limit {limit}): {name}")
    return int(any(row[1] > row[2] for row in found))


if __name__ == "__main__":
    sys.exit(main())
