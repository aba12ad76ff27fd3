"""A token that is renewed in a file is sent as it is now; what was good stays while nothing better is there."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import AttemptFailed
from gateway.model import Backend, Origin
from gateway.model.credentials import TokenFile
from gateway.upstream import bearer
from gateway.upstream.bearer import FileToken, file_tokens


class Files:
    """A secrets folder."""

    def __init__(self, *contents: bytes | None) -> None:
        self.contents = list(contents)
        self.reads = 0

    def __call__(self, name: str) -> bytes:
        """The next content, the last one for ever."""
        self.reads += 1
        content = self.contents.pop(0) if len(self.contents) > 1 else self.contents[0]
        if content is None:
            raise OSError(name)
        return content


def sent(files: Files, times: int) -> list[bytes]:
    """The lines of so many requests, one after the other."""

    async def main() -> list[bytes]:
        token = FileToken(files, "entra")
        return [await token.lines("/", b"") for _ in range(times)]

    return asyncio.run(main())


def test_the_token_of_now_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is away, or holds something else, changes nothing."""
    monkeypatch.setattr(bearer, "LOOK_EVERY_S", 0.0)
    one, two = b"authorization: Bearer one\r\n", b"authorization: Bearer two\r\n"
    assert sent(Files(b"one\n", b"two", None, b"no token\r\nx: y", b""), 5) == [one, two, two, two, two]


def test_the_file_is_not_read_for_every_request() -> None:
    """Nor by all who come while it is read for the first time."""

    async def main() -> None:
        token = FileToken(files, "entra")
        lines = await asyncio.gather(*(token.lines("/", b"") for _ in range(20)))
        assert set(lines) == {b"authorization: Bearer one\r\n"}

    files = Files(b"one")
    asyncio.run(main())
    assert files.reads == 1


def test_without_a_token_nothing_is_sent() -> None:
    """The attempt fails, and says which file it was and not what it holds."""
    with pytest.raises(AttemptFailed, match="entra") as caught:
        sent(Files(b"two words"), 1)
    assert caught.value.outcome == "unauthorized"
    assert "words" not in str(caught.value)


def test_a_refused_token_is_replaced_only_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is sent again where the file has been read anew meanwhile, never with the same token."""
    monkeypatch.setattr(bearer, "LOOK_EVERY_S", 0.0)

    async def main() -> None:
        token = FileToken(Files(b"one", b"two"), "entra")
        first = await token.lines("/", b"")
        assert not token.refused(first)
        await token.lines("/", b"")
        assert token.refused(first)

    asyncio.run(main())


def test_backends_share_what_is_read_of_a_file() -> None:
    """One file is one token."""
    origin = Origin(scheme="http", host="h", port=80)
    a, b, c = (
        Backend(name=name, provider="azure", origin=origin, credential=TokenFile(name=file))
        for name, file in (("a", "x"), ("b", "x"), ("c", "y"))
    )
    signer_of = file_tokens(Files(b"one"))
    assert signer_of(a) is signer_of(b)
    assert signer_of(a) is not signer_of(c)
