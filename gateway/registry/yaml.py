"""Strict YAML: documents of JSON types, read the YAML 1.2 way, bounded, and refused with line and column.

Built on PyYAML's event parser (libyaml where it is there); nothing of PyYAML's own YAML 1.1 typing is used. Plain
scalars follow the core schema of YAML 1.2.2 (section 10.3.2): ``yes``, ``on`` and ``12:30`` are strings. Refused are
anchors, aliases, tags, merge keys, duplicate keys, keys that are not strings, numbers that JSON does not have
(``.inf``, ``.nan``) or that YAML 1.1 tools read differently (``010``), and integers beyond 64 bits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import yaml

MAX_DEPTH = 64
"""How deep a document may nest."""

_LOADER: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]")
_NOT_JSON = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NUMBER_CHARS_MAX = 64
_INTEGER_MIN, _INTEGER_MAX = -(2**63), 2**64 - 1


class YamlError(Exception):
    """The text is not what this loader accepts; ``line`` and ``column`` count from one."""

    def __init__(self, reason: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {reason}")
        self.reason = reason
        self.line = line
        self.column = column


class Document(NamedTuple):
    """One document of a file: the line where it starts (from one) and its value, made of JSON types only."""

    line: int
    value: object


def load_documents(content: bytes) -> tuple[Document, ...]:
    """Read every document of a UTF-8 text; empty documents are left out.

    Raises YamlError. The caller bounds the size of ``content``; time and memory are linear in it, since nothing can
    be referred to twice.
    """
    text = _decode(content)
    try:
        loader = _LOADER(text)  # looks for unacceptable characters at once, or while it reads
        try:
            return tuple(_documents(loader))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        start = f" that starts at line {error.context_mark.line + 1}" if error.context_mark else ""
        reason = f"{error.context}{start}, {error.problem}" if error.context else str(error.problem)
        raise YamlError(reason, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        raise YamlError(
            f"unacceptable character: {error.reason}", before.count("\n") + 1, len(before) - before.rfind("\n")
        ) from None


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise YamlError("not UTF-8", line, column) from None


def _next(loader: yaml.SafeLoader | yaml.CSafeLoader) -> yaml.Event:
    event = loader.get_event()
    assert event is not None, "the stream's end is an event"
    return event


def _documents(loader: yaml.SafeLoader | yaml.CSafeLoader) -> Iterator[Document]:
    while True:
        event = _next(loader)
        if isinstance(event, yaml.StreamEndEvent):
            return
        if isinstance(event, yaml.DocumentStartEvent):
            if event.version not in (None, (1, 2)):
                raise _error(event, "a %YAML directive other than 1.2")
            first = _next(loader)
            value = _node(loader, first, 0)
            if value is not None:
                yield Document(_place(first)[0], value)


def _node(loader: yaml.SafeLoader | yaml.CSafeLoader, event: yaml.Event, depth: int) -> object:
    if isinstance(event, yaml.AliasEvent):
        raise _error(event, "an alias (*name) is not allowed; write the value again")
    if not isinstance(event, yaml.ScalarEvent | yaml.MappingStartEvent | yaml.SequenceStartEvent):
        raise _error(event, "a value was expected")
    if event.anchor is not None:
        raise _error(event, "an anchor (&name) is not allowed; write the value where it is used")
    if event.tag is not None:
        raise _error(event, "a tag (!name) is not allowed")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event)
    if depth >= MAX_DEPTH:
        raise _error(event, f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(event, yaml.MappingStartEvent):
        return _mapping(loader, depth)
    return _sequence(loader, depth)


def _mapping(loader: yaml.SafeLoader | yaml.CSafeLoader, depth: int) -> dict[str, object]:
    result: dict[str, object] = {}
    while not isinstance(event := _next(loader), yaml.MappingEndEvent):
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and not event.style:
            raise _error(event, "a merge key (<<) is not allowed")
        key = _node(loader, event, depth + 1)
        if not isinstance(key, str):
            raise _error(event, "a key must be a string; put it in quotes")
        if key in result:
            raise _error(event, f"duplicate key `{key[:64]}`")
        result[key] = _node(loader, _next(loader), depth + 1)
    return result


def _sequence(loader: yaml.SafeLoader | yaml.CSafeLoader, depth: int) -> list[object]:
    result: list[object] = []
    while not isinstance(event := _next(loader), yaml.SequenceEndEvent):
        result.append(_node(loader, event, depth + 1))
    return result


def _scalar(event: yaml.ScalarEvent) -> object:
    text: str = event.value
    if event.style:  # libyaml says "" for plain, PyYAML None
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise _error(event, "a lone surrogate is not a character")
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in "+-.0123456789":
        return text
    return _number(event, text)


def _number(event: yaml.ScalarEvent, text: str) -> object:
    """Read a plain scalar that starts like a number; it is a string when it does not go on like one."""
    if _NOT_JSON.fullmatch(text):
        raise _error(event, f"{text} is not a JSON number; put it in quotes if it is a string")
    based = _BASED.fullmatch(text)
    integer = based or _INTEGER.fullmatch(text)
    if not integer and not _FLOAT.fullmatch(text):
        return text
    if len(text) > _NUMBER_CHARS_MAX:
        raise _error(event, "a number this long must be in quotes")
    if _LEADING_ZERO.match(text):
        raise _error(event, f"{text} has a leading zero, which YAML tools read differently; quote it or drop the zero")
    if integer:
        number = int(text, 0) if based else int(text)
        if not _INTEGER_MIN <= number <= _INTEGER_MAX:
            raise _error(event, f"{text} does not fit into 64 bits")
        return number
    value = float(text)
    if not math.isfinite(value):
        raise _error(event, f"{text} is too large for a number")
    return value


def _error(event: yaml.Event, reason: str) -> YamlError:
    return YamlError(reason, *_place(event))


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)
