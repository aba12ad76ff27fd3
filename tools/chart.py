"""Makes what belongs to the chart's values: ``python -m tools.chart charts/llm-gateway``.

From ``values.yaml`` and its comments: ``values.schema.json``, which refuses unknown keys at every level, and the table
of the chart's README. From ``registry/``: the example registry that the chart can serve, one file per object.

A comment above a key is its description, beginning with ``--``; ``@schema`` lines hold JSON Schema in YAML's flow form,
laid over what the type of the default says; ``@section`` begins a section of the table. What Kubernetes defines comes
from the schemas of the oldest version that is supported, what the registry holds from the gateway itself.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tools.chart_definitions import definitions

ROOT: Final = Path(__file__).resolve().parents[1]
BEGIN: Final = "<!-- values: begin; made by `make docs` -->\n"
END: Final = "<!-- values: end -->\n"
OLDEST_KUBERNETES: Final = "v1.34.0-local-strict"

_TYPES: Final[Mapping[type, str]] = {str: "string", bool: "boolean", int: "integer", list: "array", dict: "object"}
_REFERENCE: Final = re.compile(r'"#/\$defs/([^"]+)"')


class Value(NamedTuple):
    """One key of the values with what its comment says; ``children`` where it is no leaf."""

    path: tuple[str, ...]
    default: Any
    description: str
    schema: dict[str, Any]
    section: str
    children: tuple[Value, ...]


def read_values(text: str) -> tuple[Value, ...]:
    """The keys of a ``values.yaml`` in their order. Raises ValueError for a leaf without a description."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return tuple(_values(root, (), text.splitlines()))


def _values(node: yaml.MappingNode, above: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    for key, value in node.value:
        path, line = (*above, str(key.value)), key.start_mark.line
        description, schema = _comment(lines, line)
        default = yaml.safe_load(yaml.serialize(value, Dumper=yaml.SafeDumper))
        nested = isinstance(value, yaml.MappingNode) and value.value and not schema and not value.flow_style
        children = tuple(_values(value, path, lines)) if nested else ()
        if not children and not description:
            raise ValueError(f"{'.'.join(path)} has no description")
        yield Value(path, default, description, schema, _section(lines, line), children)


def _comment(lines: list[str], line: int) -> tuple[str, dict[str, Any]]:
    first = line
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    texts = [text.lstrip().removeprefix("#").strip() for text in lines[first:line]]
    schemas = [yaml.safe_load(text.removeprefix("@schema")) for text in texts if text.startswith("@schema")]
    words = [text.removeprefix("--").strip() for text in texts if not text.startswith("@")]
    begins = any(text.startswith("--") for text in texts)
    return " ".join(words) if begins else "", {name: part for schema in schemas for name, part in schema.items()}


def _section(lines: list[str], line: int) -> str:
    marks = [text.removeprefix("# @section ") for text in lines[:line] if text.startswith("# @section ")]
    return marks[-1] if marks else ""


# -- the schema ------------------------------------------------------------------------------------------------------


def values_schema(values: tuple[Value, ...]) -> dict[str, Any]:
    """The JSON Schema of the values."""
    schema = _closed(values)
    schema["properties"]["global"] = {"type": "object"}  # Helm's own, for charts of which this one is a part
    known = definitions() | _kubernetes()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart llm-gateway",
        **schema,
        "$defs": _used(schema, known),
    }


def _closed(values: tuple[Value, ...]) -> dict[str, Any]:
    properties = {value.path[-1]: _schema_of(value) for value in values}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _schema_of(value: Value) -> dict[str, Any]:
    if value.children:
        return _closed(value.children)
    if "$ref" in value.schema or "type" in value.schema:
        return {"description": value.description, **value.schema}
    if type(value.default) is dict:
        raise ValueError(f"{'.'.join(value.path)} needs a schema")
    return {"description": value.description, "type": _TYPES[type(value.default)], **value.schema}


def _used(schema: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The definitions that the schema refers to, directly or through others."""
    found: dict[str, Any] = {}
    names = _REFERENCE.findall(json.dumps(schema))
    while names:
        name = names.pop()
        if name not in found:
            found[name] = known[name]
            names += _REFERENCE.findall(json.dumps(known[name]))
    return dict(sorted(found.items()))


@cache
def _kubernetes() -> dict[str, Any]:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / OLDEST_KUBERNETES
    described: dict[str, Any] = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))["$defs"]
    return {name: _terse(schema) for name, schema in described.items()}


def _terse(node: Any) -> Any:
    """Without descriptions and extensions, which Helm does not read and every release would carry in its Secret."""
    if isinstance(node, list):
        return [_terse(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        name: {field: _terse(schema) for field, schema in part.items()} if name == "properties" else _terse(part)
        for name, part in node.items()
        if name != "description" and not name.startswith("x-kubernetes-")
    }


# -- the table -------------------------------------------------------------------------------------------------------


def render_table(values: tuple[Value, ...]) -> str:
    """The values in Markdown, a table for each section."""
    text, section = "", ""
    for value in _leaves(values):
        if value.section != section:
            section = value.section
            text += f"\n### {section}\n\n| value | default | what it does |\n|---|---|---|\n"
        default = json.dumps(value.default, ensure_ascii=False).replace("|", "\\|")
        text += f"| `{'.'.join(value.path)}` | `{default}` | {value.description} |\n"
    return text.lstrip("\n")


def _leaves(values: tuple[Value, ...]) -> Iterator[Value]:
    for value in values:
        if value.children:
            yield from _leaves(value.children)
        else:
            yield value


def replace_table(document: str, table: str) -> str:
    """The document with the table between its marks made anew. Raises ValueError where a mark is missing."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the document has no marks around the table of values")
    return before + BEGIN + "\n" + table + "\n" + END + after


# -- the example registry --------------------------------------------------------------------------------------------


def example_files(registry: Path) -> dict[str, str]:
    """The documents of a registry's folder by a flat name, one object per file; bare prompt files become documents."""
    found: dict[str, str] = {}
    for path in sorted(registry.rglob("*.yaml")):
        where = path.relative_to(registry).parts
        if where[0] == "local":
            continue
        if where[0] == "prompts" and len(where) == 3:
            found |= dict([_prompt(where[1], yaml.safe_load(path.read_text(encoding="utf-8")))])
            continue
        for document in re.split(r"^---\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            content = yaml.safe_load(document)
            text = re.sub(r"^# yaml-language-server: .*\n", "", document, flags=re.MULTILINE)
            found[f"{content['kind'].lower()}.{content['metadata']['name']}.yaml"] = text.strip("\n") + "\n"
    return found


def _prompt(name: str, bare: Mapping[str, Any]) -> tuple[str, str]:
    known = {"version", "input_vars", "template"}
    if unknown := bare.keys() - known:
        raise ValueError(f"a bare prompt file has other fields than before: {sorted(unknown)}")
    full = f"{name}.{bare['version']}"
    spec = {"inputVars": bare.get("input_vars", []), "template": bare["template"]}
    document = {"apiVersion": "llmgateway.dev/v1alpha1", "kind": "Prompt", "metadata": {"name": full}, "spec": spec}
    return f"prompt.{full}.yaml", yaml.safe_dump(document, sort_keys=False, width=120)


# -- files -----------------------------------------------------------------------------------------------------------


def made_files(chart: Path) -> dict[str, str]:
    """Everything that is made, by its path below the chart."""
    values = read_values((chart / "values.yaml").read_text(encoding="utf-8"))
    readme = (chart / "README.md").read_text(encoding="utf-8")
    made = {f"example/{name}": text for name, text in example_files(ROOT / "registry").items()}
    made["values.schema.json"] = json.dumps(values_schema(values), indent=1) + "\n"
    made["README.md"] = replace_table(readme, render_table(values))
    return made


def main(chart: Path) -> None:
    """Write them, and remove examples that are none any more."""
    made = made_files(chart)
    (chart / "example").mkdir(exist_ok=True)
    for old in (chart / "example").glob("*.yaml"):
        if f"example/{old.name}" not in made:
            old.unlink()
    for name, text in made.items():
        (chart / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
