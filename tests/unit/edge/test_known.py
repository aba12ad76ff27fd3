"""Heads that come again: recognised only where the parser would have said the same."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.connections import CONNECTION_EXTENSION
from gateway.edge.known import TRIES, KnownHead, learn
from gateway.edge.wire import scope_of
from tests.support.served import App, Receive, Send, answer, read_all
from tests.unit.edge.test_protocol import Connected

FIELDS = [(b"host", b"a"), (b"x-api-key", b"k"), (b"content-length", b"5"), (b"accept", b"*/*")]
HEAD = b"POST /p?q HTTP/1.1\r\nHost: a\r\nX-Api-Key: k\r\nContent-Length: 5\r\nAccept: */*\r\n\r\n"


def known(data: bytes = HEAD + b"12345", fields: list[tuple[bytes, bytes]] = FIELDS) -> KnownHead | None:
    """What is learned of a request."""
    return learn(data, scope_of("POST", b"/p?q", "1.1", fields, (None, None)))


def test_the_length_may_differ() -> None:
    """The body begins where it did but for the digits; the scope has the length that came."""
    head = known()
    assert head is not None
    assert head.body_at(HEAD + b"abcde") == len(HEAD)
    longer = HEAD.replace(b": 5", b": 12") + b"x" * 12
    assert head.body_at(longer) == len(HEAD) + 1
    assert (b"content-length", b"12") in head.scope()["headers"]
    assert head.body_at(HEAD.replace(b": 5", b": 0")) == len(HEAD)


def test_anything_else_is_parsed() -> None:
    """Another byte in the head, a body that is cut or followed by more, a length that is no plain number."""
    head = known()
    assert head is not None
    others = [
        b"",
        HEAD,
        HEAD + b"1234",
        HEAD + b"123456",
        HEAD + b"12345" + HEAD,
        HEAD.replace(b"X-Api-Key: k", b"X-Api-Key: l") + b"12345",
        HEAD.replace(b"*/*", b"*/+") + b"12345",
        HEAD.replace(b": 5", b": 5 ") + b"12345",
        HEAD.replace(b": 5", b": +5") + b"12345",
        HEAD.replace(b": 5", b": 5\r\nContent-Length: 5") + b"12345",
        HEAD.replace(b": 5", b": 5\r\nTransfer-Encoding: chunked") + b"12345",
        HEAD.replace(b": 5", b": 000000005") + b"12345",
        HEAD.replace(b": 5", b": \xd9\xa5") + b"12345",
        HEAD.replace(b": 5", b": ") + b"12345",
    ]
    assert [head.body_at(other) for other in others] == [0] * len(others)


def test_what_is_not_learned() -> None:
    """Another method, and a head that says more of message or connection than its length."""
    assert known(HEAD.replace(b"POST", b"PUT") + b"12345") is None
    assert known(HEAD + b"1234") is None
    for name in (b"connection", b"expect", b"transfer-encoding", b"upgrade", b"content-length"):
        assert known(fields=[*FIELDS, (name, b"5")]) is None
    assert known(fields=FIELDS[:2]) is None


@given(st.integers(0, len(HEAD) - 1), st.binary(max_size=2))
def test_a_changed_byte_is_never_overlooked(at: int, instead: bytes) -> None:
    """Whatever replaces a byte of the head, only another number of the same meaning is recognised."""
    head = known()
    assert head is not None
    changed = HEAD[:at] + instead + HEAD[at + 1 :]
    if head.body_at(changed + b"12345"):
        start, _, rest = changed.partition(b"Length: ")
        digits, _, end = rest.partition(b"\r\n")
        assert (start, int(digits), end) == (HEAD.partition(b"Length: ")[0], 5, HEAD.partition(b": 5\r\n")[2])


def echo_app(seen: list[dict[str, Any]]) -> App:
    """Answers with the body; keeps the scopes."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await answer(send, await read_all(receive))

    return app


def exchange_of(scope: dict[str, Any]) -> Any:
    """The connection as the application sees it."""
    return scope["extensions"][CONNECTION_EXTENSION]


def test_requests_of_one_connection() -> None:
    """The third request with the same head is recognised; it gives what parsing gave, and others still parse."""

    async def main() -> None:
        seen: list[dict[str, Any]] = []
        connected = Connected(echo_app(seen))
        requests = [b"12345", b"abcde", b"fghij", b"klmno"]
        for number, body in enumerate(requests, 1):
            connected.feed(HEAD + body)
            assert (await connected.responses(number)).endswith(body)
        heads = [exchange_of(scope).known for scope in seen]
        assert heads[0] is heads[1] is None
        assert isinstance(heads[2], KnownHead)
        assert heads[3] is heads[2]
        plain = [{key: value for key, value in scope.items() if key != "extensions"} for scope in seen]
        assert plain == [plain[0]] * 4

        connected.feed(HEAD.replace(b"k\r\n", b"other\r\n") + b"vwxyz")
        assert (await connected.responses(5)).endswith(b"vwxyz")
        assert exchange_of(seen[4]).known is None
        assert (b"x-api-key", b"other") in seen[4]["headers"]
        assert (b"x-api-key", b"k") in seen[3]["headers"]

        connected.feed((HEAD + b"12345") * 2)  # two at once are parsed
        assert (await connected.responses(7)).endswith(b"12345")

    asyncio.run(main())


def test_a_client_that_never_repeats_itself() -> None:
    """After a few heads nothing is learned any more; a head that is used again keeps learning alive."""

    async def main() -> None:
        seen: list[dict[str, Any]] = []
        connected = Connected(echo_app(seen))
        for number in range(TRIES + 3):
            connected.feed(HEAD.replace(b"k\r\n", b"%d\r\n" % number) + b"12345")
            await connected.responses(number + 1)
        for number in range(3):
            connected.feed(HEAD + b"12345")
            await connected.responses(TRIES + 4 + number)
        assert all(exchange_of(scope).known is None for scope in seen)

    asyncio.run(main())
