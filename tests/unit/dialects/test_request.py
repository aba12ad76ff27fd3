"""Reading chat requests: repeated keys in any spelling, fields that route, limit or bill, and what leaves again."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.dialects.openai.members import read_members
from gateway.dialects.openai.request import encode_chat_request, read_chat_request, request_head
from gateway.errors import InvalidRequest
from gateway.model import Backend, Origin

MAX_MEMBERS = 256
BACKEND = Backend(name="main", provider="openai", origin=Origin(scheme="http", host="h", port=80), model="upstream")
GOOD = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}

GOVERNED = (
    "model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "prompt_variables",
)  # fmt: skip

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
    distinct = {name.casefold(): name for name in extra if name.casefold() not in GOVERNED}.values()
    fields = {name: extra[name] for name in distinct}
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
        (b'{"model":"chat","messages":[\n\t\r ]}', "invalid_value", "messages"),
        (b'{"model":"chat","messages":1}', "invalid_type", "messages"),
        (b'{"model":"chat","messages":[{}],"n":' + b"1" * 100_000 + b"}", "invalid_type", "n"),
        (b'{"model":"chat","messages":[{}],"stream":"yes"}', "invalid_type", "stream"),
        (b'{"model":"chat","messages":[{}],"stream":1}', "invalid_type", "stream"),
        (b'{"model":"chat","messages":[{}],"stream":true,"stream_options":1}', "invalid_type", "stream_options"),
        (b'{"model":"chat","messages":[{}],"stream_options":{}}', "invalid_value", "stream_options"),
        (
            b'{"model":"chat","messages":[{}],"stream":true,"stream_options":{"x":"' + b"x" * 4096 + b'"}}',
            "invalid_value",
            "stream_options",
        ),
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


MANY = 200_000
HOSTILE = {
    "one key repeated": (b"{" + b'"a":1,' * MANY + b'"a":1}', "repeated_field"),
    "many keys": (b"{" + b",".join(b'"%x":1' % number for number in range(MANY)) + b"}", "too_many_fields"),
    "many keys, no end": (b"{" + b",".join(b'"%x":1' % number for number in range(MANY)), "too_many_fields"),
    "many messages": (b'{"model":"m","messages":[' + b"1," * MANY + b'1],"stream":1}', "invalid_type"),
    "many options": (
        b'{"model":"m","messages":[{}],"stream":true,"stream_options":{'
        + b",".join(b'"%x":1' % number for number in range(MANY))
        + b"}}",
        "invalid_value",
    ),
}


@pytest.mark.parametrize(("body", "code"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_too_much_is_refused_before_it_is_built(body: bytes, code: str) -> None:
    """A large body of very many small things makes no object of each: memory stays far below the body's own size."""
    with pytest.raises(InvalidRequest):  # whatever is made once and kept
        read_chat_request(body[:70_000], MAX_MEMBERS)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest) as refusal:
            read_chat_request(body, MAX_MEMBERS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refusal.value.code == code
    assert peak < 500_000


@pytest.mark.parametrize("space", [b"", b" "])
@pytest.mark.parametrize("size", [10, 100_000])
def test_bounds_hold_at_every_size(space: bytes, size: int) -> None:
    """Small and large bodies, compact or not, are read alike and refused alike, at the bound exactly."""

    def body(*names: bytes) -> bytes:
        return b"{" + b",".join(b'"%b":%b"%b"' % (name, space, b"x" * size) for name in names) + b"}"

    assert list(read_members(body(b"a", b"b", b"c"), 3)) == ["a", "b", "c"]
    for names, code in (((b"a", b"b", b"c", b"d"), "too_many_fields"), ((b"a", b"b", b"\\u0061"), "repeated_field")):
        with pytest.raises(InvalidRequest) as refusal:
            read_members(body(*names), 3)
        assert refusal.value.code == code
    for broken in (body(b"a") + b"x", body(b"a")[:-1], b"[" + body(b"a") + b"]", body(b"a", b"\xff")):
        with pytest.raises(InvalidRequest) as refusal:
            read_members(broken, 3)
        assert refusal.value.code == "invalid_json"


@pytest.mark.parametrize(
    ("members", "code", "param"),
    [
        ('"Model":"other"', "unsupported_field", "Model"),
        ('"MAX_TOKENS":99999', "unsupported_field", "MAX_TOKENS"),
        ('"Stream":true', "unsupported_field", "Stream"),
        ('"\u017ftream":true', "unsupported_field", "\u017ftream"),
        ('"max_to\u212aens":9', "unsupported_field", "max_to\u212aens"),
        ('"\\u004dessages":[]', "unsupported_field", "Messages"),
        ('"Stream_Options":null', "unsupported_field", "Stream_Options"),
        ('"N":2', "unsupported_field", "N"),
        ('"Max_Completion_Tokens":2', "unsupported_field", "Max_Completion_Tokens"),
        ('"Prompt_variables":{}', "unsupported_field", "Prompt_variables"),
        ('"temperature":1,"Temperature":0', "repeated_field", "Temperature"),
        ('"TopK":1,"topk":0', "repeated_field", "topk"),
    ],
)
def test_names_that_differ_in_case_alone_are_refused(members: str, code: str, param: str) -> None:
    """A backend may match names without regard to case: no other spelling of a name that decides anything leaves."""
    body = f'{{"model":"chat","messages":[{{}}],{members}}}'.encode()
    with pytest.raises(InvalidRequest) as refusal:
        read_chat_request(body, MAX_MEMBERS)
    assert (refusal.value.code, refusal.value.param) == (code, param)


def test_other_names_may_have_capitals() -> None:
    """A field that the gateway does not know passes in its own spelling, once."""
    body = json.dumps(GOOD | {"TopK": 1, "Models": 2, "Temperature": 3}).encode()
    left = json.loads(encode_chat_request(read_chat_request(body, MAX_MEMBERS), BACKEND))
    assert (left["TopK"], left["Models"], left["Temperature"]) == (1, 2, 3)


def test_usage_is_asked_for_once_in_any_case() -> None:
    """No other spelling of the one option that the gateway sets goes beside it."""
    options = {"INCLUDE_USAGE": False, "x": 1}
    body = json.dumps(GOOD | {"stream": True, "stream_options": options}).encode()
    left = json.loads(encode_chat_request(read_chat_request(body, MAX_MEMBERS), BACKEND))
    assert left["stream_options"] == {"x": 1, "include_usage": True}


def test_a_long_repeated_key_is_shown_shortened() -> None:
    """A refusal repeats only the beginning of what a caller wrote."""
    key = "k" * 100_000
    with pytest.raises(InvalidRequest) as refusal:
        read_members(f'{{"{key}":1,"{key}":1}}'.encode(), MAX_MEMBERS)
    assert refusal.value.param == key[:256]


def test_the_fields_that_matter_are_decoded() -> None:
    """Stream, usage, the looser of two output limits, choices and size; null counts as absent."""
    fields = GOOD | {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 7, "n": 3}
    body = json.dumps(fields | {"max_completion_tokens": 5}).encode()
    request = read_chat_request(body, MAX_MEMBERS)
    assert (request.model, request.stream, request.include_usage) == ("chat", True, True)
    assert (request.max_output_tokens, request.choices, request.body_bytes) == (7, 3, len(body))
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


@pytest.mark.parametrize(
    ("asked", "limit", "sent"),
    [
        ({}, 500, {"max_tokens": 100}),
        ({}, 60, {"max_tokens": 60}),
        ({"max_tokens": 80}, 60, {"max_tokens": 60}),
        ({"max_tokens": 50}, 60, {"max_tokens": 50}),
        ({"max_completion_tokens": 80}, 60, {"max_completion_tokens": 60}),
        ({"max_tokens": 10, "max_completion_tokens": 80}, 60, {"max_tokens": 10, "max_completion_tokens": 60}),
        ({"max_tokens": None, "max_completion_tokens": 9000}, 500, {"max_completion_tokens": 100}),
        ({"max_tokens": None}, 500, {"max_tokens": 100}),
    ],
)
def test_output_is_limited_under_the_name_that_the_request_has_for_it(
    asked: dict[str, Any], limit: int, sent: dict[str, Any]
) -> None:
    """Only ever lowered, and never above what the backend can make."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **asked}).encode()
    request = msgspec.structs.replace(read_chat_request(body, MAX_MEMBERS), output_limit=limit)
    left = json.loads(encode_chat_request(request, msgspec.structs.replace(BACKEND, max_output_tokens=100)))
    given = {name: left[name] for name in ("max_tokens", "max_completion_tokens") if left.get(name) is not None}
    assert given == sent


@pytest.mark.parametrize(
    ("members", "unsupported", "sent"),
    [
        (b"", {"max_tokens"}, {"max_completion_tokens": 5}),
        (b"", {"max_completion_tokens"}, {"max_tokens": 5}),
        (b',"max_tokens":9', {"max_tokens"}, {"max_completion_tokens": 5}),
        (b',"max_completion_tokens":null', {"max_tokens"}, {"max_completion_tokens": 5}),
    ],
)
def test_an_output_limit_is_sent_under_a_name_that_the_backend_takes(
    members: bytes, unsupported: set[str], sent: dict[str, int]
) -> None:
    """What was reserved binds the backend, also where it does not take the caller's name for it."""
    request = read_chat_request(b'{"model":"m","messages":[{}]' + members + b"}", MAX_MEMBERS)
    backend = Backend(name="b", provider="openai", origin=None, unsupported_fields=frozenset(unsupported))
    body = json.loads(encode_chat_request(msgspec.structs.replace(request, output_limit=5), backend))
    assert {name: value for name, value in body.items() if name.startswith("max_")} == sent
