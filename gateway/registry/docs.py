"""Writes the tables of fields into ``docs/registry.md``: ``python -m gateway.registry.docs docs/registry.md``.

Invariant: each kind has one row per field, in the order of its model, and nothing that the models do not say. The text
around the tables is written by hand and kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.registry import template, values
from gateway.registry.parse import KINDS
from gateway.registry.schema import json_schemas

BEGIN = "<!-- registry: begin; made by `python -m gateway.registry.docs docs/registry.md` -->\n"
END = "<!-- registry: end -->\n"

_HEAD = "| field | what is accepted | default | what it does |\n|---|---|---|---|\n"
_FIRST = ("apiVersion", "kind", "metadata", "spec")
_NOTATIONS: Mapping[str, str] = {
    values.DURATION_PATTERN: "a duration",
    values.MONEY_PATTERN: "an amount of USD",
    values.SUBDOMAIN_PATTERN: "a name",
    values.LABEL_PATTERN: "a label",
    values.SECRET_ENV_PATTERN: "`LLM_GATEWAY_SECRET_...`",
    values.SHA256_PATTERN: "64 hexadecimal digits",
    values.ISSUER_PATTERN: "an `https://` URL",
    values.HEADER_NAME_PATTERN: "a header name",
    values.HEADER_VALUE_PATTERN: "visible ASCII",
    template.VARIABLE_PATTERN: "a variable name",
}
_JSON_TYPES = {"string": "text", "boolean": "true or false", "object": "a mapping"}


def render() -> str:
    """Return the tables of every kind, and of the bare form of a prompt, in Markdown."""
    schemas = json_schemas()
    parts = [_section(kind, schemas[kind.lower()]) for kind in KINDS]
    return "\n" + "\n".join([*parts, _section("The file `prompts/NAME/VERSION.yaml`", schemas["prompt-file"])]) + "\n"


def _section(title: str, schema: Mapping[str, Any]) -> str:
    rows = "".join(_rows(schema, _Definitions(schema.get("$defs", {})), ""))
    return f"## {title}\n\n{schema['description']}\n\n{_HEAD}{rows}"


class _Definitions(dict[str, Any]):
    """The definitions of one kind, and where in its table the fields of each were listed: they are so only once."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        super().__init__(definitions)
        self.listed: dict[int, str] = {}

    def place(self, definition: Mapping[str, Any], path: str) -> str:
        """Where its fields are listed, which is here where they were not yet."""
        return self.listed.setdefault(id(definition), path)


def _rows(schema: Mapping[str, Any], definitions: _Definitions, above: str) -> Iterator[str]:
    required = schema.get("required", ())
    names = sorted(schema["properties"], key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    for name in names:
        field = schema["properties"][name]
        path = above + name
        default = "required" if name in required else _default(field)
        below, inside = _definition(field, definitions), f"{path}."
        if below is None:
            below, inside = _definition(field.get("items", {}), definitions), f"{path}[]."
        place = inside if below is None else definitions.place(below, inside)
        accepted = _accepted(field, definitions) + ("" if place == inside else f" with the fields of `{place[:-1]}`")
        yield f"| `{path}` | {_cell(accepted)} | {default} | {_cell(field['description'])} |\n"
        if below is not None and place == inside:
            yield from _rows(below, definitions, inside)


def _definition(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any] | None:
    reference = field.get("$ref")
    return None if reference is None else definitions[reference.rpartition("/")[2]]


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    if default is None or default == "":
        return "-"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _accepted(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Say in words what may stand there."""
    if _definition(field, definitions) is not None:
        return "a mapping"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    if "anyOf" in field:
        return " or ".join(_accepted(option, definitions) for option in field["anyOf"])
    if field.get("type") == "array":
        return f"a list{_count(field, 'Items')}" + _of(field["items"], definitions)
    if "patternProperties" in field:
        (value,) = field["patternProperties"].values()
        return f"a mapping{_count(field, 'Properties')}" + _of(value, definitions)
    return _scalar(field)


def _of(item: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    return ": each " + (_accepted(item, definitions) if _definition(item, definitions) is None else "a mapping")


def _count(field: Mapping[str, Any], what: str) -> str:
    least, most = field.get(f"min{what}"), field.get(f"max{what}")
    if most is None:
        return ""
    return f" of at most {most:,}" if least is None else f" of {least} to {most:,}"


def _scalar(field: Mapping[str, Any]) -> str:
    kind = str(field.get("type", "anything"))
    if kind == "integer":
        return f"{field['minimum']:,} to {field['maximum']:,}" if "minimum" in field else "an integer"
    if kind == "number":
        return f"a number from {field['minimum']:g} to {field.get('maximum', field.get('exclusiveMaximum')):g}"
    if kind != "string":
        return _JSON_TYPES.get(kind, kind) + (_count(field, "Properties") if kind == "object" else "")
    if field.get("pattern") in _NOTATIONS:
        return _NOTATIONS[field["pattern"]]
    if field.get("format") == "uri":
        return "an `http://` or `https://` URL"
    if field.get("format") == "date-time":
        return "a time such as `2030-01-01T00:00:00Z`"
    if "examples" in field:
        return f"such as `{field['examples'][0]}`"
    return "text" + (
        f" of {field.get('minLength', 0)} to {field['maxLength']:,} characters" if "maxLength" in field else ""
    )


def replace_tables(document: str) -> str:
    """Return the document with what is between its two marks made anew. Raises ``ValueError`` for a missing mark."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the document has no marks around the tables of the registry")
    return before + BEGIN + render() + END + after


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(replace_tables(target.read_text(encoding="utf-8")), encoding="utf-8")
