"""Prompt templates: ``{name}`` is a variable, ``{{`` and ``}}`` are literal braces, all else is text. Pure.

The template is split once, here. Rendering joins the parts with values that are never read as syntax.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"


class TemplateError(ValueError):
    """The template is not well-formed; the text names line and column."""


def split(template: str) -> tuple[str, ...]:
    """Split into literal, variable, literal, ...: an odd number of parts, literals (maybe empty) at both ends.

    Raises TemplateError.
    """
    parts: list[str] = []
    literal: list[str] = []
    end = 0
    for token in _TOKEN.finditer(template):
        literal.append(template[end : token.start()])
        end = token.end()
        text, name = token.group(0), token.group(1)
        place = _place(template, token.start())
        if text in ("{{", "}}"):
            literal.append(text[0])
        elif name is None:
            raise TemplateError(f"{place}: a lone `{text}`; write `{text}{text}` for the brace")
        elif not re.fullmatch(VARIABLE_PATTERN[1:-1], name):
            raise TemplateError(f"{place}: `{text[:40]}` is not a variable; write `{{{{` for a brace")
        else:
            parts += ("".join(literal), name)
            literal = []
    parts.append("".join((*literal, template[end:])))
    return tuple(parts)


def mismatches(parts: Sequence[str], input_vars: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (field, reason) for each variable used and not declared, declared and not used, or declared twice."""
    used = dict.fromkeys(parts[1::2])
    for name in used:
        if name not in input_vars:
            yield "template", f"uses `{{{name}}}`, which inputVars does not declare"
    for index, name in enumerate(input_vars):
        if name in input_vars[:index]:
            yield f"inputVars[{index}]", f"`{name}` is declared twice"
        elif name not in used:
            yield f"inputVars[{index}]", f"`{name}` is not used by the template"


def _place(template: str, position: int) -> str:
    line = template.count("\n", 0, position) + 1
    column = position - template.rfind("\n", 0, position)
    return f"line {line}, column {column}"
