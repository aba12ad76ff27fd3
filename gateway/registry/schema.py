"""JSON Schemas (draft 2020-12) of the registry's documents, for editors and for validation elsewhere. Pure.

Made from the models that validate, so that the two cannot differ in fields, types and bounds; rules that span fields
are the loader's alone. The output is deterministic.
"""

from __future__ import annotations

from typing import Any

from gateway.registry.accounts import PromptFile
from gateway.registry.parse import KINDS, MODELS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas by file name without ``.json``: one per kind, ``registry`` for any, ``prompt-file``."""
    schemas = {kind.lower(): _schema(MODELS[kind].model_json_schema(), kind) for kind in KINDS}
    schemas["prompt-file"] = _schema(PromptFile.model_json_schema(), "Prompt file")
    schemas["registry"] = _any_kind()
    return schemas


def _any_kind() -> dict[str, Any]:
    """Pick the schema by kind, so that an editor complains of the field and not of every kind that does not fit."""
    definitions: dict[str, Any] = {}
    for kind in KINDS:
        schema = _tidy(MODELS[kind].model_json_schema())
        definitions |= schema.pop("$defs")
        definitions[kind] = schema
    return {
        "$schema": _DIALECT,
        "title": "LLM Gateway registry document",
        "type": "object",
        "properties": {"kind": {"enum": sorted(KINDS)}},
        "required": ["apiVersion", "kind"],
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": {"$ref": f"#/$defs/{kind}"},
            }
            for kind in sorted(KINDS)
        ],
        "$defs": dict(sorted(definitions.items())),
    }


def _schema(schema: dict[str, Any], title: str) -> dict[str, Any]:
    return {"$schema": _DIALECT, **_tidy(schema), "title": f"LLM Gateway {title}"}


def _tidy(node: Any) -> Any:
    """Drop generated titles, empty defaults and the nulls of optional fields: a field is left out, never null."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy = {key: _tidy(value) for key, value in node.items() if not _is_noise(key, value)}
    if "patternProperties" in tidy:
        tidy["additionalProperties"] = False
    options = tidy.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        left = [option for option in options if option != {"type": "null"}]
        del tidy["anyOf"]
        tidy = {**left[0], **tidy} if len(left) == 1 else {**tidy, "anyOf": left}
    return tidy


def _is_noise(key: str, value: object) -> bool:
    return (key == "title" and isinstance(value, str)) or (key == "default" and not isinstance(value, bool | int | str))
