"""``call``: one real call of a gateway, plain and as a stream, as a tenant makes it. What ``helm test`` runs.

With ``--tenant`` the key is made in Redis for five minutes and known to nobody else. A gateway that is not there yet,
or does not know that key yet, is asked again until the time is over; every other refusal is final.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gateway.cli.lane import fail
from gateway.clock import monotonic

if TYPE_CHECKING:
    import httpx

PAUSE_S: Final = 0.25
"""Between two attempts."""

ATTEMPT_S: Final = 30.0
"""How long one attempt may take."""

_AGAIN: Final = frozenset({502, 503, 504})


def call(
    url: Annotated[str, typer.Option(help="Address of the data port.")] = "http://127.0.0.1:8080",
    model: Annotated[str, typer.Option(help="Scenario to call.")] = "echo",
    key_file: Annotated[Path | None, typer.Option(help="File with the key.")] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Tenant to call for, with a key that is made in Redis for five minutes.")
    ] = None,
    without_key: Annotated[
        bool, typer.Option("--without-key", help="Call without a key, and expect to be refused for that.")
    ] = False,
    wait: Annotated[str, typer.Option(metavar="DURATION", help="How long to try.")] = "10s",
) -> None:
    """Call a gateway as a tenant does, plain and as a stream; exit code 0 when it answers as it should."""
    import httpx

    if [key_file is not None, tenant is not None, without_key].count(True) != 1:
        raise typer.BadParameter("expected one of --key-file, --tenant and --without-key")
    deadline = monotonic() + _duration(wait)
    key = _key(key_file, tenant, model)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=ATTEMPT_S, trust_env=False) as client:
        caller = Caller(client, model, retry_unknown_key=tenant is not None, deadline=deadline)
        if without_key:
            caller.refused()
        else:
            caller.plain()
            caller.stream()


def _duration(text: str) -> float:
    from gateway.settings.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no duration such as 30s", param_hint="--wait") from None


def _key(key_file: Path | None, tenant: str | None, model: str) -> str | None:
    from gateway.cli.redis_keys import temporary_key
    from gateway.settings.sources import read_secret_file

    if tenant is not None:
        return temporary_key(tenant, [model])
    if key_file is None:
        return None
    try:
        return read_secret_file(key_file).decode("ascii")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no file with a key"
        raise typer.BadParameter(f"{key_file}: {reason}", param_hint="--key-file") from None


class Caller:
    """Calls one gateway until ``deadline`` (``clock.monotonic``)."""

    def __init__(self, client: httpx.Client, model: str, *, retry_unknown_key: bool, deadline: float) -> None:
        self._client = client
        self._body = {"model": model, "messages": [{"role": "user", "content": "Hello, gateway!"}]}
        self._again = _AGAIN | {401} if retry_unknown_key else _AGAIN
        self._deadline = deadline

    def refused(self) -> None:
        """Without a key the gateway says that one is needed."""
        answer = self._until(self._post)
        if answer.status_code != 401 or _field(answer.content, "error", "code") != "invalid_api_key":
            fail(f"expected a refusal for want of a key, got {answer.status_code}: {answer.text[:500]}")
        print("without a key: refused, as it should be")

    def plain(self) -> None:
        """A whole answer with text and usage."""
        began = monotonic()
        answer = self._until(self._post)
        text = _field(answer.content, "choices", 0, "message", "content")
        if answer.status_code != 200 or not text:
            fail(f"the call failed with {answer.status_code}: {answer.text[:500]}")
        tokens = _field(answer.content, "usage", "total_tokens")
        print(f"plain: {(monotonic() - began) * 1000:.0f} ms, {tokens} tokens, {str(text)[:80]!r}")

    def stream(self) -> None:
        """Events to the end."""
        import httpx

        began = monotonic()
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=self._body | {"stream": True}) as answer:
                lines = (line for line in answer.iter_lines() if line.startswith("data:"))
                events = [(monotonic() - began, line.removeprefix("data:").strip()) for line in lines]
        except httpx.HTTPError as error:
            fail(f"the stream failed: {str(error) or type(error).__name__}")
        if answer.status_code != 200 or not events or events[-1][1] != "[DONE]":
            fail(f"the stream failed with {answer.status_code} after {len(events)} events")
        print(f"stream: first event after {events[0][0] * 1000:.0f} ms, {len(events)} events, complete")

    def _post(self) -> httpx.Response:
        return self._client.post("/v1/chat/completions", json=self._body)

    def _until(self, attempt: Callable[[], httpx.Response]) -> httpx.Response:
        """The first answer that is worth something, or the last one; ends the command where there was none."""
        import httpx

        while True:
            late = monotonic() + PAUSE_S > self._deadline
            try:
                answer = attempt()
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                reason = str(error) or type(error).__name__
                if late:
                    fail(f"the gateway at {self._client.base_url} cannot be reached: {reason}")
            else:
                if late or answer.status_code not in self._again:
                    return answer
                reason = str(answer.status_code)
            print(f"not yet: {reason}", file=sys.stderr)
            sleep(PAUSE_S)


def _field(content: bytes, *path: str | int) -> Any:
    """A field of a JSON body; None where it is not there."""
    try:
        value = json.loads(content)
        for step in path:
            value = value[step]
    except (ValueError, LookupError, TypeError):
        return None
    return value
