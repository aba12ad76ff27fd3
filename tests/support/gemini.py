"""A scripted Gemini: answers as the reference has them, and requests checked by the types of Google's own SDK.

Sources: https://ai.google.dev/api/generate-content, https://ai.google.dev/gemini-api/docs/function-calling,
https://ai.google.dev/gemini-api/docs/thought-signatures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pydantic
from google.genai import types
from google.genai._common import BaseModel

from tests.support.scripts import Behaviour, Received, Script, json_reply, stream

Document = dict[str, Any]

_TARGET = re.compile(
    r"(?:/v1beta|/v1/projects/[a-z0-9-]+/locations/[a-z0-9-]+/publishers/google)"
    r"/(?:models|tunedModels)/[A-Za-z0-9._-]+:(generateContent|streamGenerateContent\?alt=sse)"
)
_FREE = ("args", "response", "parametersJsonSchema", "responseJsonSchema")


class GenerateContentRequest(BaseModel):
    """The body of ``generateContent``, put together of the SDK's types; unknown fields are errors."""

    contents: list[types.Content]
    system_instruction: types.Content | None = None
    tools: list[types.Tool] | None = None
    tool_config: types.ToolConfig | None = None
    safety_settings: list[types.SafetySetting] | None = None
    generation_config: types.GenerationConfig | None = None
    cached_content: str | None = None


class Gemini:
    """A behaviour that answers as ``replies`` say and notes in ``problems`` what no request may be.

    A whole answer is a document, a streamed one a list of them; a script is sent as it is.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.bodies: list[Document] = []
        self.reply: Document | list[Document] | Script | None = None

    def __call__(self, request: Received) -> Script:
        """The script for one request."""
        try:
            self.bodies.append(check(request))
        except (AssertionError, pydantic.ValidationError) as error:
            self.problems.append(str(error))
            return error_reply(400, f"not valid: {error}")
        reply = self.reply if self.reply is not None else answer("Hello from Gemini")
        if isinstance(reply, Script):
            return reply
        if request.target.endswith("alt=sse"):
            return stream(events(reply if isinstance(reply, list) else [reply]))
        assert isinstance(reply, dict)
        return json_reply(reply)

    def forget(self) -> None:
        """As new."""
        self.problems, self.bodies, self.reply = [], [], None


def check(request: Received) -> Document:
    """The body of a request that the reference allows. Raises AssertionError or ValidationError."""
    assert _TARGET.fullmatch(request.target), request.target
    assert request.header("content-type") == "application/json"
    body: Document = json.loads(request.body)
    parsed = GenerateContentRequest.model_validate_json(request.body)
    _check_names(body)
    for content in parsed.contents:
        assert content.role in ("user", "model"), content
        assert content.parts
    if parsed.system_instruction is not None:
        assert parsed.system_instruction.role is None
    _check_calls(parsed.contents, signed=":" in request.target and "/gemini-3" in request.target)
    config = parsed.generation_config
    if config is not None:
        thinking = config.thinking_config
        assert thinking is None or thinking.thinking_budget is None or thinking.thinking_level is None
        assert config.response_json_schema is None or config.response_mime_type == "application/json"
        assert config.logprobs is None or config.response_logprobs
    return body


def _check_names(value: object) -> None:
    """All names are those of JSON: the SDK's types would take those of Python, too."""
    if isinstance(value, dict):
        for name, item in value.items():
            assert "_" not in name, name
            if name not in _FREE:
                _check_names(item)
    elif isinstance(value, list):
        for item in value:
            _check_names(item)


def _check_calls(contents: Sequence[types.Content], *, signed: bool) -> None:
    """Each turn with calls is followed by as many results; with Gemini 3 its first call is signed."""
    for place, content in enumerate(contents):
        calls = [part for part in content.parts or () if part.function_call is not None]
        if not calls:
            continue
        assert not signed or calls[0].thought_signature, "a call without its signature"
        results = contents[place + 1].parts or []
        assert [part.function_response.name for part in results if part.function_response is not None] == [
            part.function_call.name for part in calls if part.function_call is not None
        ]
        assert len(results) == len(calls), "results and something else in one turn"


def candidate(*parts: Document | str, finish: str | None = "STOP", index: int = 0, **fields: Any) -> Document:
    """One candidate, or a piece of it."""
    told = [{"text": part} if isinstance(part, str) else part for part in parts]
    content = {"content": {"parts": told, "role": "model"}} if told else {}
    ending = {} if finish is None else {"finishReason": finish}
    return {"index": index} | content | ending | fields


def usage(prompt: int = 11, candidates: int = 3, **fields: int) -> Document:
    """``usageMetadata``."""
    given = {"promptTokenCount": prompt, "candidatesTokenCount": candidates}
    total = prompt + candidates + fields.get("thoughtsTokenCount", 0) + fields.get("toolUsePromptTokenCount", 0)
    return given | fields | {"totalTokenCount": total}


def response(*candidates: Document, used: Document | None = None, **fields: Any) -> Document:
    """A whole answer, or an event of a streamed one."""
    document = {
        "candidates": list(candidates),
        "usageMetadata": usage() if used is None else used,
        "modelVersion": "gemini-3-flash-001",
        "responseId": "resp-1",
    }
    types.GenerateContentResponse.model_validate(document | fields)  # what no Gemini would say proves nothing
    return document | fields


def answer(*parts: Document | str, finish: str = "STOP", **fields: Any) -> Document:
    """An answer of one candidate."""
    return response(candidate(*parts, finish=finish), **fields)


def call(name: str, args: Document, *, call_id: str | None = None, signature: str | None = None) -> Document:
    """A part that is a function call."""
    ids = {} if call_id is None else {"id": call_id}
    signed = {} if signature is None else {"thoughtSignature": signature}
    return {"functionCall": ids | {"name": name, "args": args}} | signed


def events(documents: Sequence[Document]) -> list[bytes]:
    """Server-sent events as Gemini writes them: CRLF, pretty JSON on one line."""
    return [b"data: " + json.dumps(document).encode() + b"\r\n\r\n" for document in documents]


def error(code: int, message: str = "scripted failure", status: str = "", *details: Document) -> Document:
    """``google.rpc.Status``."""
    names = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
    return {"error": {"code": code, "message": message, "status": status or names[code], "details": list(details)}}


def error_reply(code: int, message: str = "scripted failure", status: str = "", *details: Document) -> Script:
    """An error with its HTTP status."""
    return json_reply(error(code, message, status, *details), code)


def retry_info(seconds: str) -> Document:
    """The detail that says how long to wait, such as ``7s``."""
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": seconds}


def error_info(reason: str) -> Document:
    """The detail that says why, by a name."""
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}


__all__ = ["Behaviour", "Gemini", "answer", "call", "candidate", "error", "error_reply", "events", "response", "usage"]
