"""What operators see of each request: one log line, and metrics that add up and whose labels no caller can invent."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import faults
from tests.support.client import Response
from tests.support.gateway import GatewayProcess, LogLine
from tests.support.metrics import Scrape
from tests.support.scripts import Chat, Tokens, error_reply
from tests.support.surface import Surface, chat_body, surface
from tests.support.waiting import eventually

CHAT = "/v1/chat/completions"
FIELDS = {
    "ts", "level", "environment", "event", "request_id", "trace_id", "tenant", "key", "scenario", "variant",
    "generation", "backend", "provider", "attempts", "status", "code", "outcome", "cache", "stream", "stream_end",
    "tokens", "cost_usd", "duration_ms", "overhead_ms", "ttft_ms", "upstream_ms", "queue_ms", "client_ms", "bytes",
    "dropped", "client_ip", "detail",
}  # fmt: skip


@pytest.fixture(scope="module")
def surface_process() -> Iterator[Surface]:
    """One gateway for the tests of log lines."""
    with surface() as running:
        yield running


@pytest.fixture
def place(surface_process: Surface) -> Surface:
    """The gateway with its upstream as new."""
    surface_process.upstream.forget()
    return surface_process


@pytest.fixture
def fresh() -> Iterator[Surface]:
    """A gateway of this test's own, whose counters start at zero."""
    with surface() as running:
        yield running


def post(place: Surface, body: Any, *, key: str | None = None, path: str = CHAT, **headers: str) -> Response:
    """One request."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with place.gateway.client() as client:
        return client.request(path, body, key=place.keys.main if key is None else key, headers=named)


def line_of(place: Surface, body: Any, **options: Any) -> LogLine:
    """The log line of one request."""
    request_id = f"test-{secrets.token_hex(8)}"
    post(place, body, x_request_id=request_id, **options)
    return place.gateway.wait_for_log(lambda line: line.get("request_id") == request_id)


def some(line: LogLine, *names: str) -> tuple[Any, ...]:
    """These fields of a line."""
    return tuple(line[name] for name in names)


# -- log lines ---------------------------------------------------------------------------------------------------


def test_line_of_a_completion(place: Surface) -> None:
    """A request's line has every field: who, what, where, how it ended, tokens, cost and times."""
    place.upstream.enqueue(Chat(usage=Tokens(prompt=1000, completion=100, cached=400), delay_s=0.05))
    line = line_of(place, chat_body("priced"))
    assert set(line) == FIELDS
    assert some(line, "event", "level", "environment") == ("request", "info", "development")
    assert some(line, "tenant", "key", "scenario", "variant") == ("acme", "main-key", "priced", "base")
    assert some(line, "backend", "provider", "stream", "stream_end") == ("priced", "openai", False, None)
    assert some(line, "status", "code", "outcome", "detail", "client_ip") == (200, "", "ok", "", "127.0.0.1")
    assert line["tokens"] == {"input": 1000, "cached": 400, "output": 100, "estimated": False}
    assert line["cost_usd"] == "0.002200000"  # 600 * 2 + 400 * 0.5 + 100 * 8 dollars per million
    assert line["duration_ms"] >= line["upstream_ms"] > 0
    assert line["duration_ms"] >= line["overhead_ms"] >= 0
    [attempt] = line["attempts"]
    assert (attempt["backend"], attempt["outcome"]) == ("priced", "ok")
    assert line["bytes"]["in"] > 0
    assert line["bytes"]["out"] > 0
    assert len(line["trace_id"]) == 32


def test_line_of_a_stream(place: Surface) -> None:
    """A stream's line tells how it ended and when the first token came; an alias is logged by its scenario's name."""
    place.upstream.enqueue(Chat(delay_s=0.02))
    line = line_of(place, chat_body("gpt-4o", stream=True))
    assert some(line, "scenario", "stream", "stream_end", "status") == ("chat", True, "complete", 200)
    assert line["tokens"] == {"input": 11, "cached": 0, "output": 3, "estimated": False}
    assert 0 < line["ttft_ms"] <= line["duration_ms"]


def test_usage_is_estimated_where_none_is_reported(place: Surface) -> None:
    """Where a backend reports no usage, tokens are estimated and marked so, whole and streamed."""
    for streamed in (False, True):
        place.upstream.enqueue(Chat(pieces=tuple(" word" for _ in range(40)), usage=None))
        line = line_of(place, chat_body(stream=streamed))
        assert line["tokens"]["estimated"] is True
        assert 0 < line["tokens"]["input"] < 40
        assert 30 <= line["tokens"]["output"] <= 60


def test_line_of_a_fallback(place: Surface) -> None:
    """The line lists the attempts in order with outcome and detail, and charges the one that answered."""
    place.upstream.enqueue(error_reply(500), Chat(usage=Tokens(prompt=7, completion=2)))
    line = line_of(place, chat_body("pair"))
    assert [(each["backend"], each["outcome"]) for each in line["attempts"]] == [
        ("main", "server_error"),
        ("spare", "ok"),
    ]
    assert "500" in line["attempts"][0]["detail"]
    assert some(line, "backend", "status", "outcome") == ("spare", 200, "ok")
    assert line["tokens"]["input"] == 7


def test_line_of_an_exhausted_plan(place: Surface) -> None:
    """When every attempt failed, the line is an error and nothing is charged."""
    place.upstream.enqueue(error_reply(429), faults.close_mid_body())
    line = line_of(place, chat_body("pair"))
    assert [each["outcome"] for each in line["attempts"]] == ["rate_limited", "reset"]
    assert some(line, "level", "status", "code") == ("error", 502, "upstream_failed")
    assert some(line, "tokens", "cost_usd") == (None, "0.000000000")


@pytest.mark.parametrize(
    ("body", "key", "wanted"),
    [
        (chat_body(), "wrong-key-wrong-key", (401, "invalid_api_key", "", "", "")),
        (chat_body("nope"), None, (404, "model_not_found", "acme", "main-key", "")),
        (b"{", None, (400, "invalid_json", "acme", "main-key", "")),
        (chat_body("prompted"), None, (400, "missing_field", "acme", "main-key", "prompted")),
    ],
)
def test_line_of_a_refusal(place: Surface, body: Any, key: str | None, wanted: tuple[Any, ...]) -> None:
    """A refused request's line says as much as was known of it, and names no backend."""
    line = line_of(place, body, key=key)
    assert some(line, "status", "code", "tenant", "key", "scenario") == wanted
    assert some(line, "backend", "attempts", "tokens", "level") == ("", [], None, "info")


def test_reason_of_a_bad_key_is_for_operators(place: Surface) -> None:
    """Why a key is refused is in the log, by the names of the registry; never in the answer."""
    for key, reason in ((place.keys.expired, "expired-key"), (place.keys.disabled, "disabled-key"), ("x", "malformed")):
        line = line_of(place, chat_body(), key=key)
        assert reason in line["detail"]


def test_line_of_a_broken_stream(place: Surface) -> None:
    """A stream that broke after its 200 is a failure in the log, with the reason and what was streamed."""
    place.upstream.enqueue(faults.reset_mid_stream())
    line = line_of(place, chat_body(stream=True))
    assert some(line, "status", "code", "stream_end", "level") == (502, "upstream_failed", "reset", "error")
    assert line["tokens"]["estimated"] is True


def test_line_of_another_endpoint(place: Surface) -> None:
    """Every request has its line, those that make no call too."""
    assert line_of(place, None, path="/v1/models")["tenant"] == "acme"
    assert line_of(place, None, path="/nope")["status"] == 404
    generated = line_of(place, {"model": "chat", "prompt": "x"}, path="/generate")
    assert some(generated, "scenario", "backend", "status") == ("chat", "main", 200)


# -- metrics -----------------------------------------------------------------------------------------------------


def test_counts_add_up(fresh: Surface) -> None:
    """Requests, tokens, cost, attempts and stream ends are counted once each, under the right labels."""
    usage = Tokens(prompt=1000, completion=100, cached=400)
    fresh.upstream.enqueue(*[Chat(usage=usage)] * 3, error_reply(500), Chat(usage=usage))
    for body in (chat_body("priced"), chat_body("priced"), chat_body("priced", stream=True), chat_body("pair")):
        assert post(fresh, body).status == 200
    fresh.upstream.enqueue(error_reply(400), faults.hang_before_first_byte(), faults.reset_mid_stream())
    assert [post(fresh, chat_body(name, stream=s)).status for name, s in _FAILING] == [400, 504, 200]
    assert post(fresh, chat_body(), key="wrong-key-wrong-key").status == 401
    fresh.gateway.wait_for_metric("llm_gateway_requests_total", 8)
    scrape = fresh.gateway.metrics()

    requests = {
        (each.labels["tenant"], each.labels["scenario"], each.labels["backend"], each.labels["code"]): each.value
        for each in scrape.find("llm_gateway_requests_total")
    }
    assert requests == {
        ("acme", "priced", "priced", "200"): 3,
        ("acme", "pair", "spare", "200"): 1,
        ("acme", "chat", "main", "400"): 1,
        ("acme", "impatient", "impatient", "504"): 1,
        ("acme", "chat", "main", "502"): 1,
        ("", "", "", "401"): 1,
    }
    attempts = {
        (each.labels["backend"], each.labels["outcome"]): each.value
        for each in scrape.find("llm_gateway_upstream_attempts_total")
        if each.value  # some outcomes are shown before they happen
    }
    assert attempts == {
        ("priced", "ok"): 3,
        ("main", "server_error"): 1,
        ("spare", "ok"): 1,
        ("main", "refused"): 1,
        ("impatient", "first_byte_timeout"): 1,
        ("main", "ok"): 1,
    }
    for kind, count in (("input", 3000), ("cached_input", 1200), ("output", 300)):
        assert scrape.value("llm_gateway_tokens_total", tenant="acme", scenario="priced", type=kind) == count
    assert scrape.value("llm_gateway_cost_usd_total", tenant="acme") == pytest.approx(3 * 0.0022)
    ends = {(each.labels["backend"], each.labels["reason"]): each.value for each in _ends(scrape)}
    assert ends == {("priced", "complete"): 1, ("main", "reset"): 1}
    fresh.gateway.assert_nothing_in_flight()


_FAILING = [("chat", False), ("impatient", False), ("chat", True)]


def _ends(scrape: Scrape) -> list[Any]:
    return list(scrape.find("llm_gateway_stream_ends_total"))


def test_conventional_metrics(fresh: Surface) -> None:
    """The GenAI metrics have the names, labels and buckets of the OpenTelemetry conventions, `/generate` included."""
    fresh.upstream.behaviour = Chat(usage=Tokens(prompt=10, completion=5), delay_s=0.005)
    post(fresh, chat_body("gpt-4o"))
    post(fresh, chat_body(stream=True))
    post(fresh, {"model": "chat", "prompt": "x"}, path="/generate")
    fresh.gateway.wait_for_metric("llm_gateway_requests_total", 3)
    scrape = fresh.gateway.metrics()
    call = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "openai",
        "gen_ai_request_model": "chat",
        "gen_ai_response_model": "upstream-model",
    }
    for kind, total in (("input", 30), ("output", 15)):
        assert scrape.value("gen_ai_client_token_usage_sum", **call, gen_ai_token_type=kind) == total
        assert scrape.value("gen_ai_client_token_usage_count", **call, gen_ai_token_type=kind) == 3
    assert scrape.value("gen_ai_server_request_duration_count", **call, error_type="") == 3
    assert scrape.value("gen_ai_server_time_to_first_token_count", **call) == 1
    assert scrape.value("gen_ai_server_time_per_output_token_count", **call) == 1
    assert scrape.value("llm_gateway_time_to_first_token_seconds_count", scenario="chat") == 1
    assert scrape.value("llm_gateway_overhead_seconds_count") == 3
    assert scrape.value("gen_ai_server_request_duration_bucket", **call, le="+Inf") == 3
    assert scrape.types["gen_ai_server_request_duration"] == "histogram"
    assert 0 < scrape.value("llm_gateway_overhead_seconds_sum") < 1


def test_in_flight_is_shown_and_ends(fresh: Surface) -> None:
    """Requests in flight are counted while they last, whichever way they end."""
    fresh.upstream.behaviour = faults.hang_mid_stream()
    clients = [fresh.gateway.client() for _ in range(3)]
    for client in clients:
        body = b'{"model":"chat","stream":true,"messages":[{"role":"user","content":"x"}]}'
        head = f"POST {CHAT} HTTP/1.1\r\nhost: g\r\nx-api-key: {fresh.keys.main}\r\ncontent-length: {len(body)}\r\n\r\n"
        client.send(head.encode() + body)
    fresh.gateway.wait_for_metric("llm_gateway_inflight_requests", 3)
    fresh.gateway.wait_for_metric("llm_gateway_backend_inflight_requests", 3, backend="main")
    clients[0].close()
    clients[1].reset()
    fresh.upstream.close_connections()
    fresh.gateway.assert_nothing_in_flight()
    clients[2].close()
    eventually(lambda: fresh.gateway.metrics().value("llm_gateway_requests_total") == 3)


def test_registry_is_described(fresh: Surface) -> None:
    """A scrape says which registry is served and how many objects it has."""
    scrape = fresh.gateway.metrics()
    assert scrape.value("llm_gateway_registry_generation") == 1
    assert scrape.value("llm_gateway_registry_objects", kind="Tenant", state="live") == 4
    assert scrape.value("llm_gateway_registry_reload_failures_total") == 0
    assert scrape.has("llm_gateway_registry_info")
    assert scrape.has("llm_gateway_build_info")


def test_no_caller_can_make_series(fresh: Surface) -> None:
    """Nothing that a caller writes (model, key, path, method, headers, fields) becomes a label."""
    for _ in range(2):
        _ask_for_random_things(fresh)
    before = _series(fresh.gateway, 2 * 6)
    for _ in range(50):
        _ask_for_random_things(fresh)
    after = _series(fresh.gateway, 52 * 6)
    assert after == before


def _ask_for_random_things(place: Surface) -> None:
    word = secrets.token_hex(8)
    post(place, chat_body(word))
    post(place, chat_body(), key=f"key-{word}-{word}")
    post(place, chat_body(**{word: word}), x_request_id=word, user_agent=word, x_tenant=word)
    post(place, {"prompt": "x", "model": word}, path="/generate")
    post(place, None, path=f"/{word}")
    post(place, {"messages": [], word: 1})


def _series(gateway: GatewayProcess, requests: int) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    gateway.wait_for_metric("llm_gateway_requests_total", requests)
    return {(each.name, tuple(sorted(each.labels.items()))) for each in gateway.metrics().samples}
