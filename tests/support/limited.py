"""Several gateways with limits before one upstream and one Valkey, all of them real processes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.support.client import Response
from tests.support.documents import Document, new_key, openai_registry
from tests.support.gateway import GatewayProcess
from tests.support.scripts import Chat, Received, Script, Tokens
from tests.support.upstream import ScriptedUpstream
from tests.support.valkey import Valkey
from tests.support.waiting import eventually

PATH = "/v1/chat/completions"
PRICE = {"inputPerMillion": "1000", "outputPerMillion": "2000"}
"""0.001 and 0.002 USD a token, so that small calls cost something that is easily added up."""


def body(model: str = "chat", text: str = "hi", **fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}]} | fields


def limit(unit: str, amount: int | str, per: str | None = None, **fields: Any) -> Document:
    """A limit as registry documents have it."""
    period = {} if per is None else {"per": per}
    return {"unit": unit, "amount": amount} | period | fields


def registry(url: str, key: str, limits: Sequence[Document], **backend: Any) -> list[Document]:
    """The smallest registry that serves, its tenant with limits, its backend with a price."""
    documents = openai_registry(url, key, **({"price": PRICE} | backend))
    documents[2]["spec"]["limits"] = list(limits)
    return documents


class Spender:
    """A backend that makes as many tokens as it may, ``most`` where it is not told; it remembers what it reported.

    Of two output limits it goes by the larger: servers differ in which of the two names wins.
    """

    def __init__(self, most: int = 50, prompt: int = 10) -> None:
        self.most = most
        self.prompt = prompt
        self.reported: list[tuple[int, int]] = []

    def __call__(self, request: Received) -> Script:
        """The script for one request."""
        asked = [request.json().get(name) for name in ("max_tokens", "max_completion_tokens")]
        output = min(self.most, max((each for each in asked if each is not None), default=self.most))
        self.reported.append((self.prompt, output))
        return Chat(usage=Tokens(prompt=self.prompt, completion=output))(request)

    @property
    def tokens(self) -> int:
        """All tokens that were reported."""
        return sum(prompt + output for prompt, output in self.reported)


class Fleet:
    """Gateways that share one Valkey; each call goes to the next of them."""

    def __init__(
        self, gateways: Sequence[GatewayProcess], upstream: ScriptedUpstream, valkey: Valkey | None, key: str
    ) -> None:
        self.gateways = gateways
        self.upstream = upstream
        self._valkey = valkey
        self.key = key
        self._turn = 0

    @property
    def valkey(self) -> Valkey:
        """What they share."""
        assert self._valkey is not None, "a fleet without a Valkey"
        return self._valkey

    def ask(self, fields: Mapping[str, Any] | None = None, *, at: int = 0, key: str | None = None) -> Response:
        """One call over a connection of its own."""
        with self.gateways[at].client() as client:
            return client.request(PATH, fields or body(), key=key or self.key, headers={"connection": "close"})

    def ask_many(self, count: int, *, callers: int = 12, fields: Mapping[str, Any] | None = None) -> list[Response]:
        """So many calls by so many callers at once, spread over the gateways."""
        with ThreadPoolExecutor(callers) as pool:
            return list(pool.map(lambda turn: self.ask(fields, at=turn % len(self.gateways)), range(count)))

    def change_limits(self, limits: Sequence[Document], mark: str) -> None:
        """Give the tenant other limits and wait until every gateway serves them."""
        changed = registry(self.upstream.url, self.key, limits)
        changed[2]["spec"]["displayName"] = mark
        before = [each.metrics().value("llm_gateway_registry_generation") for each in self.gateways]
        for each in self.gateways:
            each.write_registry(changed)
        for each, generation in zip(self.gateways, before, strict=True):
            each.wait_for_metric("llm_gateway_registry_generation", generation + 1)

    def command(self, *parts: str) -> str:
        """Ask the Valkey something; the raw answer."""
        return self.valkey.command(*parts)

    def usage(self, tenant: str = "acme") -> Counter[str]:
        """The ledger of all days, keys, scenarios and backends together, by what is counted."""
        total: Counter[str] = Counter()
        keys = [line for line in self.command("KEYS", f"lgw:1:{{{tenant}}}:usage:*").split("\r\n") if ":usage:" in line]
        for each in keys:
            lines = self.command("HGETALL", each).split("\r\n")[1:]
            values = [line for line in lines if line and not line.startswith("$")]
            for name, value in zip(values[::2], values[1::2], strict=True):
                total[name.rpartition("|")[2]] += int(value)
        return total


def spend_up(ask: Callable[[], Response], spender: Spender, least: int) -> list[Response]:
    """Ask until the budget is used up: at least ``least`` tokens, and then a refusal, which comes last.

    A refusal before that is no end: calls that have been answered give back a moment later what they did not use, and a
    refusal may stand for a moment.
    """
    answers: list[Response] = []

    def is_used_up() -> bool:
        answers.append(ask())
        return answers[-1].status != 200 and spender.tokens > least

    eventually(is_used_up, what=f"more than {least} tokens and a refusal")
    return answers


def statuses(answers: Sequence[Response]) -> Counter[int]:
    """How many answers had each status."""
    return Counter(answer.status for answer in answers)


def code(answer: Response) -> str:
    """The code of an error."""
    return str(answer.json()["error"]["code"])


@contextlib.contextmanager
def fleet(
    limits: Sequence[Document],
    *,
    size: int = 1,
    documents: Sequence[Document] | None = None,
    env: Mapping[str, str] | None = None,
    **backend: Any,
) -> Iterator[Fleet]:
    """A fleet of ``size`` gateways; ``documents`` are further ones of their registry."""
    key = new_key()
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(ScriptedUpstream())
        valkey = stack.enter_context(Valkey())
        held = [*registry(upstream.url, key, limits, **backend), *(documents or ())]
        settings = {"LLM_GATEWAY_REDIS_URL": valkey.url, "LLM_GATEWAY_REDIS_DEADLINE_S": "1"} | dict(env or {})
        gateways = [stack.enter_context(GatewayProcess(held, key=key, env=settings)) for _ in range(size)]
        yield Fleet(gateways, upstream, valkey, key)
