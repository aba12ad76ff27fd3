"""The variables of a prompt: found in a request, taken out of it, and put into the template; pure.

Invariants:
- A value is text and stays text: it is joined with the parts of a template that was split when it was loaded.
- Variables are the gateway's own: what ``take_variables`` has found is no longer in the fields that are sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from gateway.dialects.openai.members import read_nested
from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.model import Prompt

METADATA_FIELD = "metadata"
METADATA_MEMBERS_MAX = 64
"""OpenAI takes 16 (https://platform.openai.com/docs/api-reference/chat/create)."""

RENDERED_CHARS_MAX = 32 * 2**20
"""Most characters of a rendered prompt: a template may repeat a variable."""

_SMALL_BYTES = 65_536  # up to this size variables are decoded first and compared with the prompt's then
_IN_METADATA = "variables"
_decode_variables = msgspec.json.Decoder(dict[str, str]).decode
_encode = msgspec.json.Encoder().encode

Fields = dict[str, msgspec.Raw | bytes]


def take_variables(fields: Fields, field: str, prompt: Prompt | None) -> dict[str, str]:
    """The variables of a request by name, from ``field`` and from ``metadata.variables``; both are taken out.

    Raises InvalidRequest, naming the place: for a variable that the prompt has not, for two values of one variable, and
    where there are variables and no prompt.
    """
    values: dict[str, str] = {}
    for path, raw in _sources(fields, field, keep_text=prompt is None):
        if prompt is None:
            if bytes(raw).strip(b"{} \t\r\n"):
                raise InvalidRequest(
                    f"`{path}` was given but the scenario has no prompt.", code="unsupported_field", param=path
                )
            continue
        for name, value in _decode(prompt, path, raw).items():
            if values.setdefault(name, value) != value:
                place = f"{path}.{name}"
                raise InvalidRequest(f"`{place}` and `{field}.{name}` differ.", code="conflicting_fields", param=place)
    return values


def fill(prompt: Prompt, values: Mapping[str, str]) -> str:
    """The template with its variables, all of which are given. Raises RequestTooLarge."""
    parts = [part if position % 2 == 0 else values[part] for position, part in enumerate(prompt.parts)]
    if sum(map(len, parts)) > RENDERED_CHARS_MAX:
        raise RequestTooLarge(f"The rendered prompt is longer than {RENDERED_CHARS_MAX} characters.")
    return "".join(parts)


def _sources(fields: Fields, field: str, *, keep_text: bool) -> Iterator[tuple[str, msgspec.Raw | bytes]]:
    """Yield each place with variables and takes it out; with ``keep_text`` metadata keeps what is no object."""
    raw = fields.pop(field, None)
    if raw is not None and not is_null(raw):
        yield field, raw
    metadata = fields.get(METADATA_FIELD)
    if metadata is None or is_null(metadata):
        return
    try:
        members = read_nested(metadata, METADATA_MEMBERS_MAX, METADATA_FIELD)
    except InvalidRequest:
        if keep_text:
            return  # without a prompt it is the backend's to judge
        raise
    found = members.get(_IN_METADATA)
    if found is None or (keep_text and bytes(memoryview(found)[:1]) != b"{"):
        return
    del members[_IN_METADATA]
    if members:
        fields[METADATA_FIELD] = _encode(members)
    else:
        del fields[METADATA_FIELD]
    if not is_null(found):
        yield f"{METADATA_FIELD}.{_IN_METADATA}", found


def is_null(raw: msgspec.Raw | bytes) -> bool:
    """Tell whether a raw value is null, which says as much as its absence."""
    return len(raw) == 4 and bytes(raw) == b"null"


def _decode(prompt: Prompt, path: str, raw: msgspec.Raw | bytes) -> dict[str, str]:
    try:
        if len(raw) > _SMALL_BYTES:
            return _decode_bounded(prompt, path, raw)
        values = _decode_variables(raw)
    except msgspec.DecodeError:
        raise InvalidRequest(
            f"`{path}` must be an object whose values are strings.", code="invalid_type", param=path
        ) from None
    for name in values:
        if name not in prompt.input_vars:
            raise _unknown(path, name)
    return values


def _unknown(path: str, name: str) -> InvalidRequest:
    return InvalidRequest(
        f"The prompt has no variable `{name[:64]}`.", code="unsupported_field", param=f"{path}.{name[:64]}"
    )


class _Name:
    """A variable's name as it was found."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def _decode_bounded(prompt: Prompt, path: str, raw: msgspec.Raw | bytes) -> dict[str, str]:
    """Large variables, read only as far as they are the prompt's, each once. Raises InvalidRequest, DecodeError."""
    seen: set[str] = set()

    def to_name(_: type, found: object) -> _Name:
        name = str(found)
        if name not in prompt.input_vars:
            raise _unknown(path, name)
        if name in seen:
            param = f"{path}.{name}"
            raise InvalidRequest(f"The field `{param}` appears more than once.", code="repeated_field", param=param)
        seen.add(name)
        return _Name(name)

    values = msgspec.json.Decoder(dict[_Name, str], dec_hook=to_name).decode(raw)
    return {name.text: value for name, value in values.items()}
