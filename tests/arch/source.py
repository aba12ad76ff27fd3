"""The source files of the project, parsed once, for the tests of its architecture."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "gateway"


class Source:
    """One Python file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.relative_to(ROOT).as_posix()
        self.text = path.read_text(encoding="utf-8")
        self.lines = self.text.splitlines()
        self.tree = ast.parse(self.text, self.name)

    def at(self, node: ast.stmt | ast.expr | ast.ExceptHandler) -> str:
        """Where a node is, as editors link it."""
        return f"{self.name}:{node.lineno}"

    def names(self) -> Iterator[tuple[str, ast.expr | ast.stmt]]:
        """Every dotted name that is read, and every name that is imported, with its module."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute | ast.Name):
                yield dotted(node), node
            elif isinstance(node, ast.Import):
                yield from ((alias.name, node) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of an attribute of a name; what is not a name in front is left out."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@cache
def package() -> tuple[Source, ...]:
    """The files of the gateway itself."""
    return tuple(Source(path) for path in sorted(PACKAGE.rglob("*.py")))


@cache
def everything() -> tuple[Source, ...]:
    """The gateway, its tests, its benchmarks and its tools."""
    folders = (PACKAGE, ROOT / "tests", ROOT / "bench", ROOT / "tools")
    return tuple(Source(path) for folder in folders for path in sorted(folder.rglob("*.py")))
