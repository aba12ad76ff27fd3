"""Writes the table of settings into ``docs/settings.md``: ``python -m gateway.settings.docs docs/settings.md``.

Invariant: the table has one row per field of ``Settings``, in their order, and nothing that the code does not say.
The text around the table is written by hand and kept.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.settings.explain import accepted_text, default_text
from gateway.settings.schema import Settings
from gateway.settings.sources import environment_name, extra_of, is_secret, option_name

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

BEGIN = "<!-- settings: begin; made by `python -m gateway.settings.docs docs/settings.md` -->\n"
END = "<!-- settings: end -->\n"
_HEAD = (
    "| setting | option of `serve` | unit | what is accepted | default | what it does |\n|---|---|---|---|---|---|\n"
)


def render_table() -> str:
    """The table of every setting in Markdown."""
    return _HEAD + "".join(_render_row(name, info) for name, info in Settings.model_fields.items())


def _render_row(name: str, info: FieldInfo) -> str:
    option = option_name(name)
    if info.annotation is bool:
        option += "` / `--no-" + option.removeprefix("--")
    variable = f"`{environment_name(name)}`" + (f" or `{environment_name(name)}_FILE`" if is_secret(info) else "")
    unit = extra_of(info).get("unit", "-")
    accepted = accepted_text(info).replace("|", "\\|")
    default = f"`{value}`" if (value := default_text(info)) else "none"
    return f"| {variable} | `{option}` | {unit} | {accepted} | {default} | {info.description} |\n"


def replace_table(document: str) -> str:
    """The document with the table between its two marks made anew. Raises ``ValueError`` when a mark is missing."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the document has no marks around the table of settings")
    return before + BEGIN + render_table() + END + after


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(replace_table(target.read_text(encoding="utf-8")), encoding="utf-8")
