"""A scripted Bedrock: behaviours of a scripted upstream that check each request by AWS's own service model.

A request that the model does not allow, or whose signature AWS's library would not have made, is answered 500 and noted
in ``faults``. What is scripted as an answer is held against the model, too. Messages of streams are encoded by their
specification (https://smithy.io/2.0/aws/amazon-eventstream.html); AWS's library only decodes, and a property test has
it decode what is made here.
"""

from __future__ import annotations

import base64
import datetime
import itertools
import re
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock
from urllib.parse import unquote
from zlib import crc32

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.validate import ParamValidator

from tests.support.scripts import Behaviour, Gate, Received, Script, Send, Step, compact, json_reply, stream

HeaderValue = str | bytes | bool | int | uuid.UUID | datetime.datetime
Event = tuple[str, dict[str, Any]]

REGION = "eu-central-1"
USAGE = {"inputTokens": 12, "outputTokens": 5, "totalTokens": 17}
CACHED_USAGE = {
    "inputTokens": 3,
    "outputTokens": 7,
    "totalTokens": 1110,
    "cacheReadInputTokens": 1000,
    "cacheWriteInputTokens": 100,
}
_TARGET = re.compile(r"/model/([^/?]+)/(converse|converse-stream)")
_MODEL = botocore.session.Session().get_service_model("bedrock-runtime")
_OPERATIONS = {"converse": "Converse", "converse-stream": "ConverseStream"}


class Bedrock:
    """Makes behaviours. ``secrets`` are those of the access keys that may sign, with their session tokens."""

    def __init__(self, secrets: Mapping[str, tuple[str, str | None]], bearer: str = "") -> None:
        self._secrets = secrets
        self._bearer = bearer
        self.faults: list[str] = []
        self.signed_by: list[str] = []

    def answers(self, content: Sequence[Mapping[str, Any]], stop: str = "end_turn", **more: Any) -> Behaviour:
        """A whole answer."""
        document = {
            "output": {"message": {"role": "assistant", "content": list(content)}},
            "stopReason": stop,
            "usage": USAGE,
            "metrics": {"latencyMs": 7},
        } | more
        return self._checked("converse", lambda _: json_reply(allowed("ConverseResponse", document)))

    def streams(self, *events: Event, pieces: Sequence[int] = (), ending: Sequence[Step] | None = None) -> Behaviour:
        """A stream of these events; ``pieces`` are where its bytes are cut into writes, if not after each event."""
        encoded = [encode_event(name, allowed_event(name, payload)) for name, payload in events]
        return self.says(encoded, pieces=pieces, ending=ending)

    def says(
        self,
        encoded: Sequence[bytes],
        *,
        pieces: Sequence[int] = (),
        ending: Sequence[Step] | None = None,
        gate: Gate | None = None,
    ) -> Behaviour:
        """A stream of these bytes; ``gate`` stands before the last of them."""
        whole = b"".join(encoded)
        cuts = [0, *pieces, len(whole)]
        chunks = [whole[a:b] for a, b in itertools.pairwise(cuts)] if pieces else list(encoded)
        script = stream(chunks, ending=ending)
        start, *rest = script.steps
        assert isinstance(start, Send)
        told = start.data.replace(b"text/event-stream; charset=utf-8", b"application/vnd.amazon.eventstream")
        steps: list[Step] = [Send(told), *rest]
        if gate is not None:
            steps.insert(-2, gate)
        return self._checked("converse-stream", lambda _: Script(tuple(steps)))

    def fails(self, status: int, kind: str, message: str, **headers: str) -> Behaviour:
        """An error of the service."""
        fields = [
            ("x-amzn-errortype", f"{kind}:http://internal.amazon.com/coral/"),
            *headers.items(),
        ]
        return self._checked(None, lambda _: json_reply({"message": message}, status, headers=fields))

    def _checked(self, operation: str | None, script: Callable[[Received], Script]) -> Behaviour:
        def behave(request: Received) -> Script:
            try:
                self._check(request, operation)
            except AssertionError as fault:
                self.faults.append(str(fault))
                return json_reply({"message": str(fault)}, 500)
            return script(request)

        return behave

    def _check(self, request: Received, operation: str | None) -> None:
        match = _TARGET.fullmatch(request.target)
        assert request.method == "POST", request.method
        assert match is not None, request.target
        assert operation in (None, match[2]), f"{match[2]} was called"
        assert request.header("content-type") == "application/json"
        document = request.json() | {"modelId": unquote(match[1])}
        allowed(_OPERATIONS[match[2]] + "Request", document)
        self._check_credential(request)

    def _check_credential(self, request: Received) -> None:
        given = request.header("authorization") or ""
        if self._bearer and given == f"Bearer {self._bearer}":
            self.signed_by.append("bearer")
            return
        match = re.match(r"AWS4-HMAC-SHA256 Credential=([^/]+)/", given)
        assert match is not None, "no signature"
        secret, token = self._secrets[match[1]]
        at = datetime.datetime.fromisoformat(request.header("x-amz-date") or "")
        assert abs((datetime.datetime.now(datetime.UTC) - at).total_seconds()) < 300, "signed at another time"
        assert request.header("x-amz-security-token") == token
        url = f"http://{request.header('host')}{request.target}"
        theirs = AWSRequest("POST", url, data=request.body, headers={"host": request.header("host")})
        with mock.patch("botocore.auth.get_current_datetime", return_value=at):
            SigV4Auth(Credentials(match[1], secret, token), "bedrock", REGION).add_auth(theirs)
        assert given == theirs.headers["Authorization"], "another signature"
        self.signed_by.append(match[1])


def allowed(shape_name: str, document: dict[str, Any]) -> dict[str, Any]:
    """``document``, which is one of this shape as JSON. Raises AssertionError."""
    shape = _MODEL.shape_for(shape_name)
    report = ParamValidator().validate(document, shape)
    assert not report.has_errors(), report.generate_report()
    _check_more(document, shape, shape_name)
    return document


def allowed_event(name: str, payload: dict[str, Any]) -> dict[str, Any]:
    """The payload of an event of the stream."""
    shape = _MODEL.shape_for("ConverseStreamOutput").members[name]
    report = ParamValidator().validate(payload, shape)
    assert not report.has_errors(), report.generate_report()
    _check_more(payload, shape, name)
    return payload


def _check_more(value: Any, shape: Any, place: str) -> None:
    """What the library leaves to the service: choices, patterns, lengths, unions, base64."""
    if shape.metadata.get("document"):
        return
    if shape.type_name == "structure":
        assert not shape.metadata.get("union") or len(value) == 1, f"{place} has {list(value)}, and must have one"
        for name, member in value.items():
            _check_more(member, shape.members[name], f"{place}.{name}")
    elif shape.type_name == "list":
        for index, member in enumerate(value):
            _check_more(member, shape.member, f"{place}[{index}]")
    elif shape.type_name == "blob":
        assert base64.b64decode(value, validate=True), f"{place} is no base64"
    elif shape.type_name == "string":
        assert not shape.enum or value in shape.enum, f"{place} is {value!r}"
        pattern = shape.metadata.get("pattern")
        assert pattern is None or re.fullmatch(pattern, value), f"{place} is {value!r}"
        assert len(value) <= shape.metadata.get("max", len(value)), f"{place} is too long"
    elif shape.type_name in {"float", "integer"}:
        assert value <= shape.metadata.get("max", value), f"{place} is {value}"


def text_events(*pieces: str, stop: str = "end_turn", usage: Mapping[str, int] = USAGE) -> list[Event]:
    """The events of an answer of text."""
    return [
        ("messageStart", {"role": "assistant"}),
        *(("contentBlockDelta", {"delta": {"text": piece}, "contentBlockIndex": 0}) for piece in pieces),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        *end_events(stop, usage),
    ]


def tool_events(index: int, call_id: str, name: str, *pieces: str) -> list[Event]:
    """The events of a call of a tool, whose input comes in pieces."""
    start = {"toolUse": {"toolUseId": call_id, "name": name}}
    return [
        ("contentBlockStart", {"start": start, "contentBlockIndex": index}),
        *(("contentBlockDelta", {"delta": {"toolUse": {"input": p}}, "contentBlockIndex": index}) for p in pieces),
        ("contentBlockStop", {"contentBlockIndex": index}),
    ]


def end_events(stop: str = "end_turn", usage: Mapping[str, int] = USAGE) -> list[Event]:
    """How every stream ends."""
    return [
        ("messageStop", {"stopReason": stop}),
        ("metadata", {"usage": dict(usage), "metrics": {"latencyMs": 7}}),
    ]


def encode_event(name: str, payload: dict[str, Any]) -> bytes:
    """An event, with the padding that the service adds to what it says."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode_message(headers, compact(payload | {"p": "abcdefgh"}))


def encode_exception(name: str, message: str) -> bytes:
    """An exception within a stream."""
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return encode_message(headers, compact({"message": message}))


def encode_message(headers: Mapping[str, HeaderValue], payload: bytes) -> bytes:
    """One message."""
    encoded = encode_headers(headers)
    prelude = struct.pack(">II", 16 + len(encoded) + len(payload), len(encoded))
    message = prelude + struct.pack(">I", crc32(prelude)) + encoded + payload
    return message + struct.pack(">I", crc32(message))


def encode_headers(headers: Mapping[str, HeaderValue]) -> bytes:
    """The headers of a message, each in the type that its value has."""
    return b"".join(
        bytes([len(encoded)]) + encoded + _value(value)
        for encoded, value in ((name.encode(), value) for name, value in headers.items())
    )


def _value(value: HeaderValue) -> bytes:
    match value:
        case bool():
            return b"\x00" if value else b"\x01"
        case int():
            return b"\x04" + struct.pack(">i", value)
        case bytes():
            return b"\x06" + struct.pack(">H", len(value)) + value
        case str():
            return b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()
        case datetime.datetime():
            return b"\x08" + struct.pack(">q", int(value.timestamp() * 1000))
        case uuid.UUID():
            return b"\x09" + value.bytes
