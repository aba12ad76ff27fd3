"""Who may call, as what, from where, and what a scenario makes of a request before it is sent on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.client import Response
from tests.support.openai_api import KINDS, Api, text_of
from tests.support.scripts import error_reply
from tests.support.surface import MESSAGES, Surface, chat_body, surface

PATH = "/v1/chat/completions"
INSIDE, OUTSIDE = "10.1.2.3", "203.0.113.9"


@pytest.fixture(scope="module")
def trusting_process() -> Iterator[Surface]:
    """A gateway that trusts proxies on loopback and one network, and names backends."""
    with surface(trusted_proxies="127.0.0.1/32,192.0.2.0/24", expose_backend="true") as running:
        yield running


@pytest.fixture(scope="module")
def plain_process() -> Iterator[Surface]:
    """A gateway with default settings."""
    with surface() as running:
        yield running


@pytest.fixture
def trusting(trusting_process: Surface) -> Surface:
    """The trusting gateway, its upstream as new."""
    trusting_process.upstream.forget()
    return trusting_process


@pytest.fixture
def plain(plain_process: Surface) -> Surface:
    """The plain gateway, its upstream as new."""
    plain_process.upstream.forget()
    return plain_process


def post(place: Surface, headers: dict[str, str], body: dict[str, Any] | None = None) -> Response:
    """One chat request with these headers."""
    with place.gateway.client() as client:
        return client.request(PATH, body or chat_body(), headers=headers)


# -- credentials -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        {"authorization": "Bearer KEY"},
        {"authorization": "bearer   KEY"},
        {"x-api-key": "KEY"},
        {"api-key": "KEY"},
        {"authorization": "Bearer KEY", "x-api-key": "KEY"},
        {"authorization": "Bearer KEY", "x-api-key": "KEY", "api-key": "KEY"},
    ],
)
def test_credential_headers(plain: Surface, template: dict[str, str]) -> None:
    """A key is accepted in each of the three headers, and in several of them if it is the same."""
    headers = {name: value.replace("KEY", plain.keys.main) for name, value in template.items()}
    assert post(plain, headers).status == 200


@pytest.mark.parametrize(
    "template",
    [
        {},
        {"authorization": ""},
        {"authorization": "KEY"},
        {"authorization": "Basic KEY"},
        {"authorization": "Bearer KEY", "x-api-key": "OTHER"},
        {"x-api-key": "OTHER", "api-key": "KEY"},
        {"authorization": "Basic KEY", "api-key": "KEY"},
        {"x-api-key": ""},
        {"x-api-key": "KEY, KEY"},
        {"x-api-key": "KEY\tKEY"},
    ],
)
def test_no_or_ambiguous_credential(plain: Surface, template: dict[str, str]) -> None:
    """No credential, one in another scheme, or two that differ (both of them good): 401 and nobody is called."""
    keys = {"KEY": plain.keys.main, "OTHER": plain.keys.guest}
    headers = {}
    for name, value in template.items():
        for mark, key in keys.items():
            value = value.replace(mark, key)
        headers[name] = value
    answer = post(plain, headers)
    assert answer.status == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert not plain.upstream.requests


def test_repeated_credential_header(plain: Surface) -> None:
    """The same header twice is two credentials: fine with one key, 401 with two."""
    for second, status in ((plain.keys.main, 200), (plain.keys.guest, 401)):
        with plain.gateway.client() as client:
            body = b'{"model":"chat","messages":[{"role":"user","content":"x"}]}'
            lines = [b"POST /v1/chat/completions HTTP/1.1", b"host: gateway.test", b"content-length: %d" % len(body)]
            lines += [b"x-api-key: " + key.encode() for key in (plain.keys.main, second)]
            client.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            assert client.read_response().status == status


def test_key_is_judged_before_the_body(plain: Surface) -> None:
    """Who is unknown learns nothing of what is wrong with the request, on any endpoint."""
    for path in (PATH, "/generate", "/chat/completion"):
        with plain.gateway.client() as client:
            assert client.request(path, b"{not json", headers={"content-type": "application/json"}).status == 401


# -- narrowing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_tenant_and_key_narrow_what_may_be_used(plain: Surface, kind: Any) -> None:
    """A caller sees and uses the scenarios that scenario, tenant and key all allow, by name and by alias."""
    everything = ["chat", "doubled", "echo", "gpt-4o", "impatient", "narrow", "pair", "priced", "prompted", "tuned"]
    assert Api(kind, plain.gateway).models() == everything
    assert Api(kind, plain.gateway, key=plain.keys.guest).models() == ["chat", "echo", "gpt-4o"]
    narrowed = Api(kind, plain.gateway, key=plain.keys.narrowed)
    assert narrowed.models() == ["echo"]
    assert text_of(narrowed.stream(**chat_body("echo"))) == "Good morning"
    with pytest.raises(openai.NotFoundError):
        narrowed.complete(**chat_body("chat"))
    with pytest.raises(openai.NotFoundError):
        narrowed.complete(**chat_body("gpt-4o"))


# -- addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        (INSIDE, 200),
        (f"{OUTSIDE}, {INSIDE}", 200),  # the caller claims anything; the proxy saw an address inside
        (f"{INSIDE}, {OUTSIDE}", 401),  # the caller claims to be inside; the proxy saw it is not
        (f"{INSIDE}, {OUTSIDE}, 192.0.2.7", 401),  # two trusted proxies
        (f"{OUTSIDE}, {INSIDE}, 192.0.2.7", 200),
        (f"{INSIDE}:4711", 200),
        ("2001:db8::1", 200),
        ("[2001:db8::1]:4711", 200),
        (f"::ffff:{INSIDE}", 200),
        ("2001:db9::1", 401),
        ("unknown", 401),
        (f"{INSIDE}, unknown", 401),
        (",".join([INSIDE] + ["192.0.2.7"] * 100), 401),  # no end of hops is followed
        ("", 401),
    ],
)
def test_allow_list_behind_trusted_proxies(trusting: Surface, forwarded: str, status: int) -> None:
    """Behind trusted proxies the caller's address is the last one that no trusted proxy has."""
    answer = post(trusting, {"x-api-key": trusting.keys.fenced, "x-forwarded-for": forwarded})
    assert answer.status == status
    if status == 401:
        assert answer.json()["error"]["message"] == "Incorrect API key provided."


def test_allow_list_without_trusted_proxies(plain: Surface) -> None:
    """Where no proxy is trusted, ``x-forwarded-for`` means nothing."""
    assert post(plain, {"x-api-key": plain.keys.fenced, "x-forwarded-for": INSIDE}).status == 401
    assert post(plain, {"x-api-key": plain.keys.main, "x-forwarded-for": "nonsense"}).status == 200


def test_several_forwarded_lines_are_one_list(trusting: Surface) -> None:
    """Several lines of ``x-forwarded-for`` are read as one list, so that a proxy's own line is the last."""
    body = b'{"model":"chat","messages":[{"role":"user","content":"x"}]}'
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: gateway.test\r\ncontent-length: {len(body)}\r\n"
        f"x-api-key: {trusting.keys.fenced}\r\nx-forwarded-for: {INSIDE}\r\nx-forwarded-for: {OUTSIDE}\r\n\r\n"
    )
    with trusting.gateway.client() as client:
        client.send(head.encode() + body)
        assert client.read_response().status == 401


# -- scenarios ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_backend_is_named_where_the_setting_allows(trusting: Surface, kind: Any) -> None:
    """With the setting, answers name the backend that gave them: after a fallback, the second one."""
    api = Api(kind, trusting.gateway)
    assert api.raw(**chat_body()).headers["x-llm-gateway-backend"] == "main"
    trusting.upstream.enqueue(error_reply(500))
    answer = api.raw(**chat_body("pair"))
    assert answer.headers["x-llm-gateway-backend"] == "spare"
    assert answer.headers["x-llm-gateway-scenario"] == "pair"
    assert trusting.upstream.requests[-1].target == "/spare/v1/chat/completions"
    assert trusting.upstream.requests[-1].json()["model"] == "spare-model"


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_overrides_and_cap(plain: Surface, kind: Any) -> None:
    """Defaults fill what is absent or null, overrides always win, the cap only ever lowers."""
    api = Api(kind, plain.gateway)
    fixed = {"model": "upstream-model", "messages": MESSAGES, "seed": 7, "service_tier": "flex"}
    asked_and_sent: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"temperature": 0.3, "stop": ["END"], "max_tokens": 100}),
        ({"temperature": 1, "stop": None}, {"temperature": 1, "stop": ["END"], "max_tokens": 100}),
        ({"seed": 1, "max_tokens": 5}, {"temperature": 0.3, "stop": ["END"], "max_tokens": 5}),
        ({"max_tokens": 5000}, {"temperature": 0.3, "stop": ["END"], "max_tokens": 100}),
        ({"max_completion_tokens": 5000}, {"temperature": 0.3, "stop": ["END"], "max_completion_tokens": 100}),
        ({"max_tokens": None}, {"temperature": 0.3, "stop": ["END"], "max_tokens": 100}),
    ]
    for asked, sent in asked_and_sent:
        api.complete(**chat_body("tuned"), **asked)
        assert plain.upstream.requests[-1].json() == fixed | sent, asked


def test_number_of_answers_is_the_scenario_s(plain: Surface) -> None:
    """Where the scenario sets ``n``, that many answers are asked for and counted."""
    answer = Api("sync", plain.gateway).complete(**chat_body("doubled"), n=5)
    assert [choice.message.content for choice in answer.choices] == ["Good morning"] * 2
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


@pytest.mark.parametrize("kind", KINDS)
def test_prompt(plain: Surface, kind: Any) -> None:
    """A scenario's prompt is the first system message; variables are inserted as text and do not go upstream."""
    api = Api(kind, plain.gateway)
    variables = {"persona": "a {language} teacher", "language": 'French "quoted"\n'}
    api.complete(**chat_body("prompted"), extra_body={"prompt_variables": variables})
    sent = plain.upstream.requests[0].json()
    prompt = 'You are a {language} teacher. Answer in French "quoted"\n; keep {braces}.'
    assert sent == {"model": "upstream-model", "messages": [{"role": "system", "content": prompt}, *MESSAGES]}


@pytest.mark.parametrize(
    ("model", "variables", "code", "param"),
    [
        ("prompted", None, "missing_field", "prompt_variables.persona"),
        ("prompted", {"persona": "x"}, "missing_field", "prompt_variables.language"),
        ("prompted", {"persona": "x", "language": "y", "z": "z"}, "unsupported_field", "prompt_variables.z"),
        ("prompted", {"persona": 1, "language": "y"}, "invalid_type", "prompt_variables"),
        ("prompted", ["persona"], "invalid_type", "prompt_variables"),
        ("chat", {"persona": "x"}, "unsupported_field", "prompt_variables"),
    ],
)
def test_wrong_prompt_variables(plain: Surface, model: str, variables: Any, code: str, param: str) -> None:
    """Variables that are missing, unknown, of a wrong type or of no use are a 400 that names them."""
    with pytest.raises(openai.BadRequestError) as caught:
        Api("sync", plain.gateway).complete(**chat_body(model), extra_body={"prompt_variables": variables})
    assert (caught.value.code, caught.value.param) == (code, param)
    assert not plain.upstream.requests


@pytest.mark.parametrize("nothing", [None, {}])
def test_prompt_variables_that_are_none(plain: Surface, nothing: Any) -> None:
    """``null`` and no variable at all mean the same as leaving the field out, and do not go upstream."""
    Api("sync", plain.gateway).complete(**chat_body(), extra_body={"prompt_variables": nothing})
    assert plain.upstream.requests[0].json() == {"model": "upstream-model", "messages": MESSAGES}
