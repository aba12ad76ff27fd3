"""Rules that the linters do not know: who reads environment and clock, what a module may hold, how long it may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.arch.source import Source, dotted, everything, package

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400

_ENVIRONMENT = re.compile(r"os\.(environb?|getenvb?|putenv|unsetenv)")
_CLOCK = re.compile(r"time\.(?!sleep$).*|(.*\.)?(datetime\.(now|utcnow|today)|date\.today)")
_MUTABLE_CALLS = frozenset({"list", "dict", "set", "bytearray", "deque", "defaultdict", "Counter", "OrderedDict"})
_MUTATORS = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove"}
    | {"setdefault", "update"}
)


def test_only_settings_reads_the_environment() -> None:
    """What the gateway does is decided by a Settings value, which can be made and shown."""
    found = [
        source.at(node)
        for source in package()
        if source.name != "gateway/settings/sources.py"
        for name, node in source.names()
        if _ENVIRONMENT.match(name)
    ]
    assert found == []


def test_only_clock_tells_the_time() -> None:
    """Elsewhere time is an argument or gateway.clock, so that tests see where it enters."""
    found = [
        source.at(node)
        for source in package()
        if source.name != "gateway/clock.py"
        for name, node in source.names()
        if _CLOCK.fullmatch(name) and not isinstance(node, ast.Name)
    ]
    assert found == []


def test_no_middleware_that_buffers() -> None:
    """BaseHTTPMiddleware hides disconnects and copies every body."""
    found = [source.at(node) for source in package() for name, node in source.names() if "BaseHTTPMiddleware" in name]
    assert found == []


def test_no_module_rebinds_its_globals() -> None:
    """State lives in objects that the composition root builds."""
    found = [source.at(node) for source in package() for node in ast.walk(source.tree) if isinstance(node, ast.Global)]
    assert found == []


def test_containers_of_a_module_are_constants() -> None:
    """A list, dict or set at module level is a filled table with an upper-case name, and nothing changes it."""
    found = [f"{source.at(node)} {name}" for source in package() for name, node in _module_containers(source)]
    assert found == []


def _module_containers(source: Source) -> Iterator[tuple[str, ast.stmt]]:
    changed = set(_changed_names(source.tree))
    for statement in source.tree.body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for name in (target.id for target in targets if isinstance(target, ast.Name)):
            if name != "__all__" and _is_state(name, statement.value, changed):
                yield name, statement


def _is_state(name: str, value: ast.expr, changed: set[str]) -> bool:
    if isinstance(value, ast.Call):
        return dotted(value.func).rpartition(".")[2] in _MUTABLE_CALLS and (not value.args or name in changed)
    if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        empty = isinstance(value, ast.List | ast.Dict) and not (
            value.elts if isinstance(value, ast.List) else value.keys
        )
        return empty or name in changed or name != name.upper()
    return False


def _changed_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATORS:
            yield dotted(node.func.value)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            yield dotted(node.value)


def test_every_broad_except_says_why() -> None:
    """A reason stands on the line, unless the error goes on its way afterwards."""
    found = [
        source.at(node)
        for source in package()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler) and _is_broad(node) and "#" not in source.lines[node.lineno - 1]
    ]
    assert found == []


def _is_broad(handler: ast.ExceptHandler) -> bool:
    if isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None:
        return False
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or dotted(kind) in {"Exception", "BaseException"} for kind in kinds)


def test_no_function_is_too_long() -> None:
    """Seventy lines, docstring included, in the gateway, its tests and its benchmarks."""
    found = [
        f"{source.at(node)} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for source in everything()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert found == []


def test_no_file_is_too_long() -> None:
    """Four hundred lines."""
    found = {source.name: len(source.lines) for source in everything() if len(source.lines) > FILE_LINES_MAX}
    assert found == {}


def test_every_test_says_the_behaviour() -> None:
    """A test without a docstring cannot be judged."""
    found = [
        f"{source.at(node)} {node.name}"
        for source in everything()
        if source.path.name.startswith("test_")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert found == []
