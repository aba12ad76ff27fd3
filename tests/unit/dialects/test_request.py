"""Reading chat requests: repeated keys in any spelling, fields that route, limit or bill, and what leaves again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.dialects.openai.request import encode_chat_request, read_chat_request, read_members, request_head
from gateway.errors import InvalidRequest
from gateway.model import Backend, Origin

MAX_MEMBERS = 256
BACKEND = Backend(name="main", provider="openai", origin=Origin(scheme="http", host="h", port=80), model="upstream")
GOOD = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}

WHITE_SPACE = st.text(" \t\n\r", max_size=2)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
KEYS = st.sampled_from(["a", "b", "model", "ä", "\U0001f600", '"', "\\", "/", "", "a b", "\x7f"]) | st.text(max_size=2)


@st.composite
def spelled(draw: st.DrawFn, name: str) -> str:
    """A JSON string literal for ``name``, any of its characters escaped or not."""
    parts = []
    for char in name:
        plain = json.dumps(char, ensure_ascii=False)[1:-1]
        units = char.encode("utf-16-be", "surrogatepass")
        escaped = "".join(f"\\u{units[at]:02x}{units[at + 1]:02X}" for at in range(0, len(units), 2))
        parts.append(draw(st.sampled_from([plain, escaped, "\\/" if char == "/" else plain])))
    return '"' + "".join(parts) + '"'


@st.composite
def objects(draw: st.DrawFn) -> str:
    """A JSON object as text, with keys that may repeat, white space anywhere and values of any kind."""
    members = []
    for key in draw(st.lists(KEYS.filter(lambda key: key.isprintable() or not key.isascii()), max_size=6)):
        if any("\ud800" <= char <= "\udfff" for char in key):
            continue
        space = [draw(WHITE_SPACE) for _ in range(4)]
        value = json.dumps(draw(VALUES), ensure_ascii=draw(st.booleans()))
        members.append(f"{space[0]}{draw(spelled(key))}{space[1]}:{space[2]}{value}{space[3]}")
    return "{" + ",".join(members) + "}"


def pairs_of(text: str) -> list[tuple[str, Any]]:
    """The members of an object as Python's decoder sees them, repeated ones too."""
    pairs: list[tuple[str, Any]] = []
    depth: list[list[tuple[str, Any]]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        depth.append(found)
        return dict(found)

    json.loads(text, object_pairs_hook=keep)
    pairs.extend(depth[-1])  # the outermost object is complete last
    return pairs


@settings(max_examples=400, deadline=None)
@given(objects())
@example('{"a":1,"a":1}')
@example('{"a":1,"\\u0061":2}')
@example('{"ä":1,"\\u00e4":2}')
@example('{"\\ud83d\\ude00":1,"\U0001f600":2}')
@example('{ "a" : 1 , "b" : 2 }')
@example("{}")
def test_repeated_keys_are_refused_and_nothing_else(text: str) -> None:
    """A key that appears twice at the top, however it is spelled, is a 400; any other object is read as it is."""
    pairs = pairs_of(text)
    if len({name for name, _ in pairs}) != len(pairs):
        with pytest.raises(InvalidRequest) as refusal:
            read_members(text.encode(), MAX_MEMBERS)
        assert refusal.value.code == "repeated_field"
        assert refusal.value.param in {name for name, _ in pairs}
        return
    fields = read_members(text.encode(), MAX_MEMBERS)
    assert [(name, json.loads(bytes(raw))) for name, raw in fields.items()] == pairs


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=5), st.booleans(), st.data())
def test_what_leaves_is_what_was_read(extra: dict[str, Any], stream: bool, data: st.DataObject) -> None:
    """The body for a backend is the caller's, with the backend's model and usage asked for on streams."""
    known = ("model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens")
    fields = {name: value for name, value in extra.items() if name not in known}
    fields |= GOOD | {"stream": stream}
    options = data.draw(st.sampled_from([None, {}, {"include_usage": False}, {"x": [1], "include_usage": True}]))
    if stream and data.draw(st.booleans()):
        fields["stream_options"] = options
    indent = data.draw(st.sampled_from([None, 1]))
    request = read_chat_request(json.dumps(fields, indent=indent).encode(), MAX_MEMBERS)
    expected = fields | {"model": "upstream"}
    if stream:
        expected["stream_options"] = (fields.get("stream_options") or {}) | {"include_usage": True}
    left = encode_chat_request(request, BACKEND)
    assert json.loads(left) == expected
    assert len(pairs_of(left.decode())) == len(expected)


def test_untouched_values_leave_byte_for_byte() -> None:
    """A value that the gateway has no business with is never decoded: spelling, order and white space stay."""
    messages = b'[ {"role":"user", "content":"\\u0041\\/ 1e2"} ]'
    body = b'{"messages":%b,"model":"chat","x":1.50e+3}' % messages
    left = encode_chat_request(read_chat_request(body, MAX_MEMBERS), BACKEND)
    assert left == b'{"model":"upstream","messages":%b,"x":1.50e+3}' % messages


def test_without_a_model_of_its_own_a_backend_gets_the_name_asked_for() -> None:
    """A backend that names no model is sent the caller's."""
    backend = Backend(name="plain", provider="openai", origin=None)
    left = encode_chat_request(read_chat_request(json.dumps(GOOD).encode(), MAX_MEMBERS), backend)
    assert json.loads(left) == GOOD


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"[]", "invalid_json", None),
        (b"null", "invalid_json", None),
        (b'"text"', "invalid_json", None),
        (b'{"model":"chat",}', "invalid_json", None),
        (b'{"model":"chat"', "invalid_json", None),
        (b'{"model":"chat"} x', "invalid_json", None),
        (b'{"model":"\xff","messages":[{}]}', "invalid_json", None),
        (b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "invalid_json", None),
        (b'{"messages":[{}]}', "missing_field", "model"),
        (b'{"model":null,"messages":[{}]}', "missing_field", "model"),
        (b'{"model":"","messages":[{}]}', "invalid_value", "model"),
        (b'{"model":1,"messages":[{}]}', "invalid_type", "model"),
        (b'{"model":"chat"}', "missing_field", "messages"),
        (b'{"model":"chat","messages":null}', "invalid_type", "messages"),
        (b'{"model":"chat","messages":{}}', "invalid_type", "messages"),
        (b'{"model":"chat","messages":"[{"}', "invalid_type", "messages"),
        (b'{"model":"chat","messages":[]}', "invalid_value", "messages"),
        (b'{"model":"chat","messages":[ ]}', "invalid_value", "messages"),
        (b'{"model":"chat","messages":[{}],"stream":"yes"}', "invalid_type", "stream"),
        (b'{"model":"chat","messages":[{}],"stream":1}', "invalid_type", "stream"),
        (b'{"model":"chat","messages":[{}],"stream":true,"stream_options":1}', "invalid_type", "stream_options"),
        (b'{"model":"chat","messages":[{}],"stream_options":{}}', "invalid_value", "stream_options"),
        (b'{"model":"chat","messages":[{}],"max_tokens":0}', "invalid_value", "max_tokens"),
        (b'{"model":"chat","messages":[{}],"max_tokens":1.5}', "invalid_type", "max_tokens"),
        (b'{"model":"chat","messages":[{}],"max_completion_tokens":"9"}', "invalid_type", "max_completion_tokens"),
        (b'{"model":"chat","messages":[{}],"n":0}', "invalid_value", "n"),
        (b'{"model":"chat","messages":[{}],"n":129}', "invalid_value", "n"),
        (b'{"model":"chat","messages":[{}],"n":true}', "invalid_type", "n"),
    ],
)
def test_wrong_requests_name_their_field(body: bytes, code: str, param: str | None) -> None:
    """What is wrong is a 400 whose code and param say what, never anything else."""
    with pytest.raises(InvalidRequest) as refusal:
        read_chat_request(body, MAX_MEMBERS)
    assert (refusal.value.status, refusal.value.code, refusal.value.param) == (400, code, param)


def test_malformed_json_names_its_position() -> None:
    """The position of a syntax error is told."""
    with pytest.raises(InvalidRequest, match=r"byte \d+"):
        read_chat_request(b'{"model":"chat","messages":[}', MAX_MEMBERS)


def test_too_many_fields_are_refused() -> None:
    """The number of top-level fields is bounded; just at the bound is fine."""
    body = json.dumps({f"f{number}": 0 for number in range(5)}).encode()
    assert len(read_members(body, 5)) == 5
    with pytest.raises(InvalidRequest) as refusal:
        read_members(body, 4)
    assert refusal.value.code == "too_many_fields"


def test_a_long_repeated_key_is_shown_shortened() -> None:
    """A refusal repeats only the beginning of what a caller wrote."""
    key = "k" * 100_000
    with pytest.raises(InvalidRequest) as refusal:
        read_members(f'{{"{key}":1,"{key}":1}}'.encode(), MAX_MEMBERS)
    assert refusal.value.param == key[:256]


def test_the_fields_that_matter_are_decoded() -> None:
    """Stream, usage, the tighter of two output limits, choices and size; null counts as absent."""
    fields = GOOD | {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 7, "n": 3}
    body = json.dumps(fields | {"max_completion_tokens": 5}).encode()
    request = read_chat_request(body, MAX_MEMBERS)
    assert (request.model, request.stream, request.include_usage) == ("chat", True, True)
    assert (request.max_output_tokens, request.choices, request.body_bytes) == (5, 3, len(body))
    nulls = dict.fromkeys(("stream", "stream_options", "max_tokens", "max_completion_tokens", "n"))
    silent = read_chat_request(json.dumps(GOOD | nulls).encode(), MAX_MEMBERS)
    assert (silent.stream, silent.include_usage, silent.max_output_tokens, silent.choices) == (False, False, None, 1)


def test_a_default_model_serves_where_none_is_given() -> None:
    """The simple endpoints may leave the model out; one that is given wins."""
    body = json.dumps({"messages": GOOD["messages"]}).encode()
    assert read_chat_request(body, MAX_MEMBERS, "fallback").model == "fallback"
    assert read_chat_request(json.dumps(GOOD).encode(), MAX_MEMBERS, "fallback").model == "chat"


@pytest.mark.parametrize(
    ("scheme", "port", "host"),
    [("http", 80, b"h.test"), ("https", 443, b"h.test"), ("https", 8443, b"h.test:8443"), ("http", 443, b"h.test:443")],
)
def test_the_head_names_host_and_port_as_http_wants(scheme: Any, port: int, host: bytes) -> None:
    """``host`` carries the port where it is not the scheme's own (RFC 9110, 7.2); the backend's headers are added."""
    origin = Origin(scheme=scheme, host="h.test", port=port)
    backend = Backend(name="b", provider="openai", origin=origin, path="/v1", headers=((b"authorization", b"s"),))
    lines = request_head(backend, "/chat/completions").split(b"\r\n")
    assert lines[0] == b"POST /v1/chat/completions HTTP/1.1"
    assert b"host: " + host in lines
    assert b"authorization: s" in lines
    assert lines[-1] == b""
