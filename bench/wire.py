"""The bytes that the bench and the soak send: requests, replies and streams, the same for every candidate.

What the upstream does is chosen by the ``model`` of the request, so that a plain proxy needs to know nothing:
``plain`` answers 900 bytes, ``burst`` streams 100 chunks at once, ``paced`` the same 10 ms apart, ``idle`` sends one
chunk and holds the stream open, ``soak`` streams numbered chunks for as long as the soak's stream id says.
"""

from __future__ import annotations

import json
import zlib

PLAIN, BURST, PACED, IDLE, SOAK = MODELS = ("plain", "burst", "paced", "idle", "soak")
CLAUDE, CLAUDE_BURST = CLAUDE_MODELS = ("claude", "claudeburst")
"""The first two in the dialect of Anthropic Messages."""

CHAT_PATH, MESSAGES_PATH, RESPONSES_PATH = "/v1/chat/completions", "/v1/messages", "/v1/responses"

CHUNKS_PER_STREAM = 100
PACE_S = 0.01
REQUEST_BYTES = 250
REPLY_BYTES = 900
SOAK_PACE_S = 0.1

DONE_EVENT = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def _compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def chat_body(model: str, *, size: int = REQUEST_BYTES, stream: bool = False) -> bytes:
    """A chat request of exactly ``size`` bytes, its length made up by the prompt."""
    document: dict[str, object] = {"model": model, "messages": _messages(""), "temperature": 0.3}
    if stream:
        document["stream"] = True
    bare = len(_compact(document))
    document["messages"] = _messages(_prompt(size - bare))
    return _compact(document)


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _prompt(size: int) -> str:
    """Text that takes ``size`` bytes in JSON: words with some line ends and quotes, as prompts have."""
    unit = 'The quick brown fox jumps over the lazy dog, and "why" is what we ask.\n'
    in_json = len(_compact(unit)) - 2
    return unit * (size // in_json) + "x" * (size % in_json)


def messages_body(model: str, *, stream: bool = False) -> bytes:
    """The same request of a caller who speaks Anthropic Messages."""
    document = json.loads(chat_body(model)) | {"max_tokens": 1000}
    return _compact(document | ({"stream": True} if stream else {}))


def responses_body(model: str, *, stream: bool = False) -> bytes:
    """The same request of a caller who speaks OpenAI Responses, and does not want to go on from it."""
    document = json.loads(chat_body(model))
    document["input"] = document.pop("messages")[0]["content"]
    return _compact(document | {"store": False} | ({"stream": True} if stream else {}))


def request(port: int, body: bytes, key: str, path: str = CHAT_PATH) -> bytes:
    """A whole HTTP request as wrk would send it."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def plain_reply() -> bytes:
    """A chat completion with a body of exactly 900 bytes, head included in what is returned."""
    document = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1760000000,
        "model": "bench-model",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}],
        "usage": usage(),
    }
    filler = "x" * (REPLY_BYTES - len(_compact(document)))
    document["choices"] = [{"index": 0, "message": {"role": "assistant", "content": filler}, "finish_reason": "stop"}]
    body = _compact(document)
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def claude_reply() -> bytes:
    """The same answer in the dialect of Anthropic Messages, head included."""
    text = json.loads(plain_reply().partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"]
    body = _compact(_claude([{"type": "text", "text": text}], "end_turn", 100))
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _claude(content: list[dict[str, str]], reason: str | None, output: int) -> dict[str, object]:
    counts = {"input_tokens": 31, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": "bench-model",
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": counts | {"output_tokens": output},
    }


def claude_events() -> list[bytes]:
    """The events of a stream of 100 pieces of text, each with its name, in the dialect of Anthropic Messages."""
    events: list[dict[str, object]] = [
        {"type": "message_start", "message": _claude([], None, 1)},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"token {number}"}}
            for number in range(CHUNKS_PER_STREAM)
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 100},
        },
        {"type": "message_stop"},
    ]
    return [b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), _compact(event)) for event in events]


def usage() -> dict[str, object]:
    """Usage as an OpenAI-compatible server reports it."""
    counts = {"prompt_tokens": 31, "completion_tokens": 100, "total_tokens": 131}
    return counts | {"prompt_tokens_details": {"cached_tokens": 0}}


def stream_event(reply_id: str, text: str) -> bytes:
    """One content event of a stream."""
    return (
        b'data: {"id":"%b","object":"chat.completion.chunk","created":1760000000,"model":"bench-model",'
        b'"choices":[{"index":0,"delta":{"content":"%b"},"logprobs":null,"finish_reason":null}]}\n\n'
    ) % (reply_id.encode(), text.encode())


def usage_event(reply_id: str) -> bytes:
    """The usage event that comes where ``stream_options.include_usage`` asks for it."""
    head = {"id": reply_id, "object": "chat.completion.chunk", "created": 1760000000, "model": "bench-model"}
    return b"data: " + _compact(head | {"choices": [], "usage": usage()}) + b"\n\n"


def as_chunk(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def soak_length(stream_id: str) -> int:
    """How many content events the soak's stream with this id has: 20 to 80."""
    return 20 + zlib.crc32(stream_id.encode()) % 61


def soak_event(stream_id: str, number: int) -> bytes:
    """Event ``number`` of a soak stream; its length varies with the number."""
    return stream_event(stream_id, f"{stream_id}:{number} " + "abcdefghij"[: number % 11] * (number % 5))


def soak_request_body(stream_id: str, *, with_usage: bool) -> bytes:
    """The request for a soak stream."""
    document = {"model": SOAK, "messages": _messages("count"), "user": stream_id, "stream": True}
    return _compact(document | ({"stream_options": {"include_usage": True}} if with_usage else {}))


def soak_body(stream_id: str, *, with_usage: bool) -> bytes:
    """The whole body that a soak client must read, byte for byte."""
    events = [soak_event(stream_id, number) for number in range(soak_length(stream_id))]
    return b"".join(events) + (usage_event(stream_id) if with_usage else b"") + DONE_EVENT
