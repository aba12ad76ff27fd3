"""Audio that is uploaded: forms passed on as they come, in little memory, with one model and only one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import openai
import pytest
from openai.types.audio.transcription_create_params import TranscriptionCreateParamsStreaming

from tests.support.client import RawClient, Response
from tests.support.operations import Operating, operating
from tests.support.scripts import Received, Script, StopReading, error_reply, event, json_reply, reply, stream
from tests.support.waiting import eventually

MB = 2**20
HELD = MB
BOUNDARY = b"form-1234"
ANSWER = {"text": "hello", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 5, "total_tokens": 19}}


@pytest.fixture(scope="module")
def running() -> Iterator[Operating]:
    """One gateway for all."""
    with operating() as found:
        yield found


@pytest.fixture
def api(running: Operating) -> Iterator[Operating]:
    """It, with upstreams as new; nothing is left of a test."""
    running.upstream.forget()
    running.other.forget()
    running.upstream.behaviour = transcribed
    yield running
    running.gateway.assert_nothing_in_flight()


def parts_of(request: Received) -> list[tuple[str, bytes]]:
    """Names and contents of the form that the upstream got, in their order, as an independent reader has them."""
    head = f"content-type: {request.header('content-type')}\r\n\r\n".encode()
    parsed = message_from_bytes(head + request.body)
    assert parsed.is_multipart(), request.body[:200]
    parts: list[tuple[str, bytes]] = []
    for part in parsed.get_payload():
        assert isinstance(part, Message)
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        parts.append((str(part.get_param("name", header="content-disposition")), content))
    return parts


def transcribed(request: Received) -> Script:
    """Answers a form that OpenAI's types allow."""
    allowed = TranscriptionCreateParamsStreaming.__annotations__.keys()
    unknown = {name.removesuffix("[]") for name, _ in parts_of(request)} - allowed
    return error_reply(400, f"unknown: {unknown}") if unknown else json_reply(ANSWER)


def form(*parts: tuple[str, bytes], end: bytes = b"--\r\n") -> bytes:
    """A form; a name that begins with a dot is a file's."""
    body = b""
    for name, content in parts:
        kind = f'name="{name.lstrip(".")}"' + ('; filename="a.wav"' if name.startswith(".") else "")
        body += b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (BOUNDARY, kind.encode(), content)
    return body + b"--" + BOUNDARY + end


def post(api: Operating, body: bytes, request_id: str = "uploads-0000", **headers: str) -> Response:
    """The form, sent at once."""
    with api.gateway.client(timeout_s=20.0) as client:
        client.send(head_of(api, len(body), request_id, **headers) + body)
        return client.read_response()


def head_of(api: Operating, length: int | None, request_id: str = "uploads-0000", **headers: str) -> bytes:
    """The head of an upload."""
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    fields = {
        "host": "gateway",
        "authorization": f"Bearer {api.gateway.key}",
        "content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}",
        "x-request-id": request_id,
        "connection": "close",
    } | headers
    lines = ["POST /v1/audio/transcriptions HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), framing]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def test_a_transcription(api: Operating) -> None:
    """The official client's form arrives with the backend's model and all else as it was; usage is counted."""
    sound = bytes(range(256)) * 40
    answer = api.client("uploads-0001").audio.transcriptions.create(
        model="all", file=("a.wav", sound), language="en", timestamp_granularities=["word", "segment"]
    )
    assert answer.text == "hello"
    [request] = api.upstream.requests
    assert request.target == "/v1/audio/transcriptions"
    parts = parts_of(request)
    assert ("file", sound) in parts
    assert [value for name, value in parts if name == "model"] == [b"upstream-model"]
    assert ("language", b"en") in parts
    assert [value for name, value in parts if name.startswith("timestamp")] == [b"word", b"segment"]
    assert request.header("authorization") is None
    line = api.log_of("uploads-0001")
    assert line["tokens"] == {"input": 14, "cached": 0, "output": 5, "estimated": False}
    assert line["bytes"]["in"] > len(sound)


def test_a_translation_at_its_own_address(api: Operating) -> None:
    """Seconds are no tokens."""
    api.upstream.enqueue(json_reply({"text": "hi", "usage": {"type": "duration", "seconds": 3}}))
    with pytest.warns(DeprecationWarning, match="deprecated"):  # of the client, which has its reasons
        answer = api.client("uploads-0002").audio.translations.create(model="all", file=("a.wav", b"x"))
    assert answer.text == "hi"
    assert api.upstream.requests[0].target == "/v1/audio/translations"
    assert api.log_of("uploads-0002")["tokens"] is None


def test_other_forms_of_answers_pass(api: Operating) -> None:
    """Subtitles are text; events come as they come, and the last one has the usage."""
    subtitles = b"1\n00:00:00,000 --> 00:00:01,000\nhello\n"
    done = {"type": "transcript.text.done", "text": "hello"} | {"usage": ANSWER["usage"]}
    events = [event({"type": "transcript.text.delta", "delta": "hello"}), event(done)]
    api.upstream.enqueue(reply(body=subtitles, headers=[("content-type", "text/plain")]), stream(events))
    answer = api.client().audio.transcriptions.create(model="all", file=("a.wav", b"x"), response_format="srt")
    assert str(answer) == subtitles.decode()
    with api.client("uploads-0003") as client:
        told = list(client.audio.transcriptions.create(model="all", file=("a.wav", b"x"), stream=True))
    assert [each.type for each in told] == ["transcript.text.delta", "transcript.text.done"]
    assert api.log_of("uploads-0003")["tokens"]["output"] == 5


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_file_takes_little_memory(api: Operating, chunked: bool) -> None:
    """30 MB pass, byte for byte, and the process grows by less than a tenth of them. The length is told where known."""
    sound = bytes(range(256)) * (30 * MB // 256)
    body = form(("model", b"all"), (".file", sound), ("language", b"en"))
    post(api, form(("model", b"all"), (".file", b"warm")))
    api.upstream.forget()
    api.upstream.behaviour = transcribed
    before = peak_after_reset(api)
    with api.gateway.client(timeout_s=60.0) as client:
        client.send(head_of(api, None if chunked else len(body), "uploads-large"))
        for start in range(0, len(body), MB):
            piece = body[start : start + MB]
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            client.send(b"0\r\n\r\n")
        answer = client.read_response()
    assert answer.status == 200, answer
    grown = peak(api) - before
    assert grown < 3 * MB, f"{grown / MB:.1f} MB"
    [request] = api.upstream.requests
    assert parts_of(request) == [("model", b"upstream-model"), ("file", sound), ("language", b"en")]
    assert request.header("content-length") == (None if chunked else str(len(request.body)))


def peak(api: Operating) -> int:
    """The most memory that the processes of the gateway had, in bytes."""
    lines = [line for pid in api.gateway.pids() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def peak_after_reset(api: Operating) -> int:
    """The same, counted anew from now on (proc(5), ``clear_refs``)."""
    for pid in api.gateway.pids():
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak(api)


def test_a_slow_backend_slows_its_caller(api: Operating) -> None:
    """Nothing is read that the backend does not take; one that takes nothing for long is given up."""
    api.upstream.enqueue(Script((StopReading(),), at="head"))
    body = form(("model", b"hasty"), (".file", b"\0" * (40 * MB)))
    with api.gateway.client(timeout_s=5.0) as client:
        client.send(head_of(api, len(body), "uploads-slow"))
        sent = send_some(client, body)
        client.socket.settimeout(5.0)
        assert client.read_response().status == 504
    assert sent < 20 * MB
    assert api.log_of("uploads-slow")["attempts"][0]["outcome"] == "first_byte_timeout"


def send_some(client: RawClient, body: bytes) -> int:
    """Send until nothing is taken for a while; how much was."""
    client.socket.settimeout(0.7)
    sent = 0
    try:
        while sent < len(body):
            sent += client.socket.send(body[sent : sent + 65_536])
    except TimeoutError:
        pass
    return sent


def test_what_is_held_can_be_sent_to_another_backend(api: Operating) -> None:
    """A small form goes to the next backend of the plan; the caller hears of the one that answered."""
    api.other.enqueue(error_reply(500))
    answer = api.client("uploads-0004").audio.transcriptions.create(model="safe", file=("a.wav", b"x" * 1000))
    assert answer.text == "hello"
    assert [each["outcome"] for each in api.log_of("uploads-0004")["attempts"]] == ["server_error", "ok"]
    assert ("file", b"x" * 1000) in parts_of(api.upstream.requests[0])


def test_what_is_gone_is_not_sent_again(api: Operating) -> None:
    """A form that was more than is held fails with its first backend."""
    api.other.enqueue(error_reply(500))
    answer = post(api, form(("model", b"safe"), (".file", b"x" * (2 * HELD))), "uploads-0005")
    assert answer.status == 502
    assert not api.upstream.requests
    assert [each["outcome"] for each in api.log_of("uploads-0005")["attempts"]] == ["server_error"]


def test_a_refusal_comes_before_the_end_of_the_form(api: Operating) -> None:
    """A backend that has heard enough is not sent the rest."""
    refusal = reply(413, body=json.dumps({"error": {"message": "too much", "code": "x"}}).encode(), at="head")
    api.upstream.enqueue(refusal)
    body = form(("model", b"all"), (".file", b"\0" * (3 * MB)))
    with api.gateway.client(timeout_s=10.0) as client:
        client.send(head_of(api, len(body), "uploads-0006") + body[:100_000])
        answer = client.read_response()
    assert answer.status == 413
    assert answer.json()["error"]["message"] == "too much"


def test_a_caller_who_leaves_in_the_middle(api: Operating) -> None:
    """The backend gets no complete form, and is left at once."""
    body = form(("model", b"all"), (".file", b"\0" * (3 * MB)))
    with api.gateway.client() as client:
        client.send(head_of(api, len(body), "uploads-0007") + body[: 2 * MB])
        eventually(lambda: api.upstream.open_connections > 0, what="the backend is being sent to")
    line = api.log_of("uploads-0007")
    assert (line["status"], line["tokens"]) == (499, None)
    api.upstream.wait_for_disconnect()
    assert not api.upstream.requests


def test_the_file_may_come_first(api: Operating) -> None:
    """As long as the model comes within what is held."""
    assert post(api, form((".file", b"x" * 1000), ("model", b"all"))).status == 200
    answer = post(api, form((".file", b"x" * (2 * HELD)), ("model", b"all")))
    assert (answer.status, answer.json()["error"]["param"]) == (400, "model")
    assert "before the file" in answer.json()["error"]["message"]


SNEAKED = {
    "a second model": form(("model", b"all"), ("model", b"gpt-4o")),
    "in capitals": form(("model", b"all"), ("Model", b"gpt-4o")),
    "as a list": form(("model", b"all"), ("model[]", b"gpt-4o")),
    "as a file": form(("model", b"all"), (".model", b"gpt-4o")),
    "after two megabytes": form(("model", b"all"), (".file", b"x" * (2 * MB)), ("model", b"gpt-4o")),
    "behind a bare line feed": form(
        ("model", b"all"), (".file", b'x\n--form-1234\nContent-Disposition: form-data; name="model"\n\ngpt-4o\n')
    ),
    "with a star": form(("model", b"all"), ("x", b"y")).replace(b'name="x"', b"name*=utf-8''model"),
    "with two names": form(("model", b"all"), ("x", b"y")).replace(b'name="x"', b'name="x"; name="model"'),
    "folded": form(("model", b"all"), ("x", b"y")).replace(b'; name="x"', b';\r\n name="model"'),
    "two dispositions": form(("model", b"all"), ("x", b"y")).replace(
        b'name="x"', b'name="x"\r\nContent-Disposition: form-data; name="model"'
    ),
    "encoded": form(("model", b"all"), ("x", b"y")).replace(
        b'name="x"', b'name="x"\r\nContent-Transfer-Encoding: base64'
    ),
    "after the end": form(("model", b"all")) + form(("model", b"gpt-4o")),
}


@pytest.mark.parametrize("body", SNEAKED.values(), ids=SNEAKED.keys())
def test_no_other_model_gets_past(api: Operating, body: bytes) -> None:
    """However it is written, and wherever it stands: a 400, and no backend gets a complete form."""
    answer = post(api, body)
    assert answer.status == 400, answer
    assert answer.json()["error"]["code"] in {"repeated_field", "unsupported_field", "invalid_multipart"}
    assert not api.upstream.requests


def test_forms_that_are_none(api: Operating) -> None:
    """Are refused by name."""
    good = form(("model", b"all"), (".file", b"x"))
    for body, headers, code in (
        (good, {"content-type": "application/json"}, "invalid_multipart"),
        (good[:-20], {}, "invalid_multipart"),
        (b"x" + good, {}, "invalid_multipart"),
        (form((".file", b"x")), {}, "missing_field"),
        (form(("model", b"")), {}, "invalid_value"),
        (form(("model", b"nobody")), {}, "model_not_found"),
        (form(("model", b"chats")), {}, "unsupported_operation"),
        (good, {"content-encoding": "gzip"}, "unsupported_encoding"),
        (good, {"authorization": "Bearer wrong-key-0000000000"}, "invalid_api_key"),
    ):
        answer = post(api, body, **headers)
        assert answer.json()["error"]["code"] == code, answer


def test_a_form_beyond_the_bound_is_refused(api: Operating) -> None:
    """Before any of it is read, where it tells its length."""
    with api.gateway.client() as client:
        client.send(head_of(api, 200 * MB))
        assert client.read_response().status == 413


def test_the_rules_of_a_scenario_hold(api: Operating) -> None:
    """What it sets and gives is sent before the file; what it denies is refused wherever it comes."""
    api.upstream.behaviour = lambda _: json_reply(ANSWER)
    assert post(api, form(("model", b"ruled"), (".file", b"x"))).status == 200
    first, *added, last = parts_of(api.upstream.requests[0])
    assert (first, last) == (("model", b"upstream-model"), ("file", b"x"))
    assert sorted(added) == [("user", b"us"), ("x", b"1")]
    for name, at_the_end in (("dimensions", False), ("dimensions", True), ("user", True)):
        parts = [(".file", b"x" * (2 * MB)), (name, b"1")]
        answer = post(api, form(("model", b"ruled"), *(parts if at_the_end else parts[::-1])))
        assert (answer.status, answer.json()["error"]["param"]) == (400, name)


def test_a_refused_key_is_refused_before_the_form(api: Operating) -> None:
    """The official client reads the refusal."""
    with pytest.raises(openai.AuthenticationError):
        api.client(key="nobody-has-this-key").audio.transcriptions.create(model="all", file=("a.wav", b"x"))
