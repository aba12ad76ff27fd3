"""A scripted upstream that speaks Anthropic Messages, and refuses what Anthropic's API would refuse.

What is received is held against the types of Anthropic's own client, strictly: a member that they do not know is a
violation. So are the rules that the public reference states beside them
(https://platform.claude.com/docs/en/api/messages, .../docs/en/agents-and-tools/tool-use/implement-tool-use and
.../docs/en/build-with-claude/extended-thinking). The sampling fields are no longer in the client's types; the API takes
them for the models before Claude Opus 4.7 (the client's MIGRATION.md).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import anthropic.types
from anthropic.types import message_create_params
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import SchemaValidator
from typing_extensions import is_typeddict

from tests.support.scripts import Received, Script, json_reply, stream

OLD_MODEL = "claude-sonnet-4-5"
NEW_MODEL = "claude-opus-5"
KEY = "sk-ant-of-the-operator"
_SAMPLING = ("temperature", "top_p", "top_k")

Event = tuple[str, dict[str, Any]]


@cache
def _validator() -> SchemaValidator:
    for name, module in list(sys.modules.items()):
        if name.startswith("anthropic.types"):
            for value in vars(module).values():
                if is_typeddict(value) and not hasattr(value, "__pydantic_config__"):
                    value.__pydantic_config__ = ConfigDict(extra="forbid")
    return SchemaValidator(_at_once(TypeAdapter(message_create_params.MessageCreateParams).core_schema))


def _at_once(schema: Any) -> Any:
    """The schema with lists for iterables, whose items would be checked only when they are taken.

    The client's own objects, such as a block of an answer, are taken of it for what they are, not as they are written.
    """
    if isinstance(schema, dict):
        if schema.get("type") == "model":
            ref = {"ref": schema["ref"]} if "ref" in schema else {}
            return {"type": "is-instance", "cls": schema["cls"], **ref}
        told = {name: _at_once(part) for name, part in schema.items()}
        return told | {"type": "list"} if schema.get("type") == "generator" else told
    if isinstance(schema, list | tuple):
        return type(schema)(map(_at_once, schema))
    return schema


def violations(body: bytes) -> list[str]:
    """What Anthropic's API would not take of a request."""
    fields = json.loads(body)
    sampling = {name: fields.pop(name) for name in _SAMPLING if name in fields}
    found = []
    if sampling and fields.get("model") != OLD_MODEL:
        found.append(f"{', '.join(sampling)}: deprecated for this model")
    found += [f"{name}: {value} is not in 0..1" for name, value in sampling.items() if name != "top_k" and value > 1]
    try:
        _validator().validate_python(fields, strict=True)
    except ValidationError as error:
        return [*found, str(error)]
    return [*found, *_broken_rules(fields)]


def _broken_rules(fields: dict[str, Any]) -> Iterator[str]:
    thinking, limit = fields.get("thinking", {}), fields["max_tokens"]
    if limit < 1:
        yield "max_tokens: less than 1"
    if thinking.get("type") == "enabled" and not 1024 <= thinking["budget_tokens"] < limit:
        yield "thinking.budget_tokens: not in 1024..max_tokens"
    if thinking.get("type") in {"enabled", "adaptive"}:
        if fields.get("tool_choice", {}).get("type") in {"any", "tool"}:
            yield "thinking: not with a forced tool"
        if "temperature" in fields:
            yield "temperature: not with thinking"
    known = {tool["name"] for tool in fields.get("tools", ())}
    awaited: set[str] = set()
    before = ""
    for place, turn in enumerate(fields["messages"]):
        if turn["role"] == before:
            yield f"messages.{place}: the same role again"
        before = turn["role"]
        blocks = [{"type": "text", "text": turn["content"]}] if isinstance(turn["content"], str) else turn["content"]
        yield from _broken_turn(f"messages.{place}", blocks, known, awaited)
        awaited = {block["id"] for block in blocks if block["type"] == "tool_use"}


def _broken_turn(place: str, blocks: Sequence[Any], known: set[str], awaited: set[str]) -> Iterator[str]:
    if not blocks:
        yield f"{place}: empty content"
    results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    if set(results) != awaited or len(results) != len(awaited):
        yield f"{place}: results {results} for calls {awaited}"
    if [block["type"] for block in blocks[: len(results)]] != ["tool_result"] * len(results):
        yield f"{place}: results have to come first"
    for block in blocks:
        if block["type"] == "text" and not block["text"].strip():
            yield f"{place}: a text that says nothing"
        if block["type"] == "tool_use" and block["name"] not in known:
            yield f"{place}: a call of a tool that is not known"


def text(said: str) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": said, "citations": None}


def tool_use(name: str, given: dict[str, Any], call_id: str = "toolu_01A") -> dict[str, Any]:
    """A call of a tool."""
    return {"type": "tool_use", "id": call_id, "name": name, "input": given}


def thinking(thought: str, signature: str = "c2lnbmVk") -> dict[str, Any]:
    """A thought."""
    return {"type": "thinking", "thinking": thought, "signature": signature}


USAGE = {
    "input_tokens": 7,
    "cache_creation_input_tokens": 20,
    "cache_read_input_tokens": 300,
    "cache_creation": {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5},
    "output_tokens": 40,
    "output_tokens_details": {"thinking_tokens": 11},
    "service_tier": "standard",
}


def message(*content: dict[str, Any], stop_reason: str = "end_turn", **more: Any) -> dict[str, Any]:
    """A whole answer."""
    answer = {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": NEW_MODEL,
        "content": list(content),
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": USAGE,
    } | more
    anthropic.types.Message.model_validate(answer)
    return answer


def events_of(answer: dict[str, Any], piece: int = 7) -> Iterator[Event]:
    """The same as a stream, texts in pieces of so many characters, a ping after the first event."""
    end = {name: answer.get(name) for name in ("stop_reason", "stop_sequence", "stop_details") if name in answer}
    begun = answer["usage"] | {"output_tokens": 1}
    begun.pop("output_tokens_details", None)
    start = answer | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": begun}
    yield "message_start", {"type": "message_start", "message": start}
    yield "ping", {"type": "ping"}
    for index, block in enumerate(answer["content"]):
        for kind, more in _block_events(block, piece):
            yield kind, {"type": kind, "index": index} | more
    usage = {name: value for name, value in answer["usage"].items() if name.startswith("output")}
    yield "message_delta", {"type": "message_delta", "delta": end, "usage": usage}
    yield "message_stop", {"type": "message_stop"}


def _block_events(block: dict[str, Any], piece: int) -> Iterator[Event]:
    empty: dict[str, dict[str, Any]] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
    }
    yield "content_block_start", {"content_block": block | empty.get(block["type"], {})}
    deltas: list[dict[str, Any]] = []
    if block["type"] == "text":
        deltas = [{"type": "text_delta", "text": part} for part in _cut(block["text"], piece)]
    elif block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": part} for part in _cut(block["thinking"], piece)]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    elif block["type"] == "tool_use":
        given = json.dumps(block["input"]) if block["input"] else ""
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in ["", *_cut(given, piece)]]
    for delta in deltas:
        yield "content_block_delta", {"delta": delta}
    yield "content_block_stop", {}


def _cut(whole: str, piece: int) -> list[str]:
    return [whole[at : at + piece] for at in range(0, len(whole), piece)]


def sse(event: Event) -> bytes:
    """An event as the API writes it."""
    name, data = event
    return b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps(data).encode())


def error(kind: str, said: str, status: int = 400, headers: Sequence[tuple[str, str]] = ()) -> Script:
    """A refusal."""
    body = {"type": "error", "error": {"type": kind, "message": said}, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}
    return json_reply(body, status=status, headers=[*headers, ("request-id", "req_011CSHoEeqs5C35K2UUqR7Fy")])


def error_event(kind: str, said: str) -> bytes:
    """An error in a stream."""
    return sse(("error", {"type": "error", "error": {"type": kind, "message": said}}))


class Claude:
    """Answers with ``answer``, whole or streamed as it is asked for; what is not allowed is refused and noted."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.answer = message(text("Good morning to you"))

    def __call__(self, request: Received) -> Script:
        """See Behaviour."""
        found = self.look_at(request)
        if found:
            return error("invalid_request_error", found[0])
        if not request.wants_stream():
            return json_reply(self.answer, headers=[("request-id", "req_1")])
        return stream([sse(event) for event in events_of(self.answer)])

    def look_at(self, request: Received) -> list[str]:
        """What is wrong with a request; it is noted."""
        found = violations(request.body)
        if request.target != "/v1/messages":
            found.append(f"target {request.target}")
        if request.header("anthropic-version") != "2023-06-01":
            found.append("no anthropic-version")
        if request.header("x-api-key") != KEY or request.header("authorization") is not None:
            found.append("not the key of the operator")
        self.violations += found
        return found
