"""What a call may use at most: no text goes uncounted, whatever it looks like."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.estimates import InputConstants, dearest, measure_input, worst_output
from gateway.model import Backend, ChatRequest, Native, Price

NOTHING = InputConstants(per_message=0, per_image=0)
ONE_IMAGE = InputConstants(per_message=0, per_image=1000)
PIXELS = "iVBORw0KGgo/+A" * 500


class InputSize(NamedTuple):
    """What ``measure_input`` gives."""

    text_bytes: int
    upper_tokens: int


def measure_raw(raw: Any, constants: InputConstants) -> InputSize:
    """The size of a request with these fields."""
    return InputSize(*measure_input(ChatRequest(model="m", fields=raw), constants))


def measure(messages: Any, constants: InputConstants = NOTHING, **fields: Any) -> InputSize:
    """The size of a request with these messages."""
    raw = {name: json.dumps(value).encode() for name, value in {"messages": messages, **fields}.items()}
    return measure_raw(raw, constants)


def message(content: Any, **more: Any) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": content, **more}


def image(url: str, **more: Any) -> dict[str, Any]:
    """A part with an image."""
    return {"type": "image_url", "image_url": {**more, "url": url}}


@given(st.text(), st.text())
def test_every_byte_of_text_counts(system: str, user: str) -> None:
    """As UTF-8, which is what a tokenizer of bytes has before it."""
    size = measure([message(system), message(user)])
    assert size.upper_tokens >= len((system + user).encode("utf-8", "surrogatepass"))
    assert size.text_bytes == size.upper_tokens


def test_fields_beside_the_messages_count_too() -> None:
    """Tools, schemas and whatever a backend may make text of."""
    plain = measure([message("hi")])
    assert measure([message("hi")], tools=["x" * 500]).upper_tokens >= plain.upper_tokens + 500


def test_each_message_costs_a_constant() -> None:
    """One more stands for what a template puts around all of them."""
    constants = InputConstants(per_message=100, per_image=0)
    assert measure([message("hi")] * 3, constants).upper_tokens == measure([message("hi")] * 3).upper_tokens + 400


@pytest.mark.parametrize(
    "part",
    [
        image(f"data:image/png;base64,{PIXELS}"),
        image(f"data:image/png;base64,{PIXELS}", detail="low"),
        {"type": "image_url", "image_url": f"data:image/jpeg;base64,{PIXELS}"},
    ],
)
def test_an_image_costs_a_constant_and_not_its_bytes(part: dict[str, Any]) -> None:
    """The data are left out, in all the forms in which they come."""
    size = measure([message([part, {"type": "text", "text": "what is it?"}])], ONE_IMAGE)
    assert 1000 <= size.upper_tokens < 1300


def test_an_image_elsewhere_costs_the_constant() -> None:
    """Its bytes are somewhere else."""
    assert measure([message([image("https://pictures.test/x.png")])], ONE_IMAGE).upper_tokens > 1000


def test_slashes_may_be_escaped() -> None:
    r"""Some encoders write ``\/``."""
    raw = json.dumps([message([image(f"data:image/png;base64,{PIXELS}")])]).replace("/", "\\/").encode()
    size = measure_raw({"messages": raw}, ONE_IMAGE)
    assert 1000 <= size.upper_tokens < 1300


@pytest.mark.parametrize(
    "content",
    [
        f"data:image/png;base64,{PIXELS}",
        f'"image_url":{{"url":"data:image/png;base64,{PIXELS}"}}',
        json.dumps(image(f"data:image/png;base64,{PIXELS}")),
        [{"type": "text", "text": f"data:image/png;base64,{PIXELS}"}],
        [{"type": "input_audio", "input_audio": {"data": PIXELS, "format": "wav"}}],
    ],
)
def test_text_that_looks_like_an_image_counts_as_text(content: Any) -> None:
    """Nothing inside a string is taken for structure."""
    assert measure([message(content)], ONE_IMAGE).upper_tokens >= len(PIXELS)


def test_a_key_that_hides_behind_an_escape_costs_an_image() -> None:
    """No encoder writes a letter so; who does may mean a key that is looked for."""
    raw = b'[{"role":"user","content":[{"type":"image_url","image\\u005furl":{"url":"https://x.test"}}]}]'
    assert measure_raw({"messages": raw}, ONE_IMAGE).upper_tokens > 1000


def test_the_worst_output_is_that_of_any_attempt() -> None:
    """Whichever of them answers."""
    attempts = [Backend(name="a", provider="echo", origin=None, max_output_tokens=n) for n in (10, 400, 20)]
    assert worst_output(attempts) == 400
    assert worst_output(attempts[:1]) == 10


def test_the_dearest_price_covers_every_attempt() -> None:
    """Part by part; where there is no price, there is none to reserve by."""
    prices = [
        Price(input_nano_usd=5, cached_input_nano_usd=9, output_nano_usd=1),
        Price(input_nano_usd=2, cached_input_nano_usd=1, output_nano_usd=70),
    ]
    attempts = [Backend(name="x", provider="echo", origin=None, price=price) for price in [*prices, None]]
    assert dearest(attempts) == Price(
        input_nano_usd=5, cached_input_nano_usd=9, output_nano_usd=70, cache_write_nano_usd=5
    )
    assert dearest(attempts[:1]) == prices[0]
    assert dearest(attempts[2:]) is None


def test_what_a_chat_cannot_say_counts_too() -> None:
    """Of a request in another dialect that is sent as it was written, every byte does."""
    chat = {"messages": b'[{"role":"user","content":"a"}]'}
    native = {**chat, "mcp_servers": b"x" * 1000}
    request = ChatRequest(model="m", fields=chat, native=Native(dialect="messages", fields=native, chat=chat))
    assert measure_input(request, NOTHING)[0] == len(chat["messages"]) + 1000
