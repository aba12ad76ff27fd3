"""Keys of a role: who asks for them, when, and what calls get meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import re
from datetime import datetime

import pytest

from gateway.errors import AttemptFailed
from gateway.model import Backend, Origin
from gateway.model.credentials import AwsCredential, AwsKeys
from gateway.upstream.aws import LARGE_BYTES, aws_signers
from gateway.upstream.aws_role import AHEAD_S, LEAST_S, RETRY_AHEAD_S, RETRY_S, KeysUnavailable, RoleKeys
from gateway.upstream.sigv4 import RequestSigner


def keys(name: str, expires_at: float | None) -> AwsKeys:
    """Keys that are told apart by their id."""
    return AwsKeys(access_key_id=name, secret_access_key="hush", session_token="hush", expires_at=expires_at)


class Source:
    """Gives what it is told to, once it may; counts how often it was asked."""

    def __init__(self, *answers: AwsKeys | str) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self) -> AwsKeys:
        """Answer."""
        self.asked += 1
        await self.may_answer.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, str):
            raise KeysUnavailable(answer)
        return answer


class Clock:
    """A time that a test sets."""

    now = 1_000_000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_many_calls_ask_once_and_keys_stay_in_use() -> None:
    """Whoever comes first waits, all for the same question; then nobody does."""

    async def main() -> None:
        clock = Clock()
        source = Source(keys("a", clock.now + 3600))
        role = RoleKeys(source, clock)
        source.may_answer.clear()
        waiting = [asyncio.create_task(role()) for _ in range(20)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # others wait for what it began
        source.may_answer.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [each.access_key_id for each in found if isinstance(each, AwsKeys)] == ["a"] * 19
        assert (await role()).access_key_id == "a"
        assert source.asked == 1

    asyncio.run(main())


def test_keys_are_renewed_ahead_and_no_call_waits_for_that() -> None:
    """The old ones sign until the new ones are there; only at the very end there is something to wait for."""

    async def main() -> None:
        clock = Clock()
        end = clock.now + 3600
        source = Source(keys("a", end), keys("b", end + 3600), "gone")
        role = RoleKeys(source, clock)
        assert (await role()).access_key_id == "a"
        clock.now = end - AHEAD_S + 1
        source.may_answer.clear()
        assert (await asyncio.wait_for(role(), 1)).access_key_id == "a"
        assert (await asyncio.wait_for(role(), 1)).access_key_id == "a"
        source.may_answer.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the event, then the task that waits for it
        assert (await role()).access_key_id == "b"
        assert source.asked == 2

    asyncio.run(main())


def test_a_failure_ahead_is_tried_again_later_and_hurts_nobody() -> None:
    """Keys that are good are used, however often it fails; it is asked again only after a while."""

    async def main() -> None:
        clock = Clock()
        end = clock.now + AHEAD_S / 2
        source = Source(keys("a", end), "away", keys("b", end + 3600))
        role = RoleKeys(source, clock)
        assert (await role()).access_key_id == "a"
        assert (await role()).access_key_id == "a"
        assert source.asked == 1
        clock.now += RETRY_AHEAD_S
        for _ in range(5):
            assert (await role()).access_key_id == "a"
            await asyncio.sleep(0)
        assert source.asked == 2
        clock.now = end - LEAST_S
        assert (await role()).access_key_id == "b"

    asyncio.run(main())


def test_without_keys_the_attempt_fails_and_it_is_not_asked_in_a_rush() -> None:
    """Each call fails with the reason; the source is asked once in a while."""

    async def main() -> None:
        clock = Clock()
        source = Source("no role here", "still none", keys("a", None))
        role = RoleKeys(source, clock)
        for _ in range(3):
            with pytest.raises(AttemptFailed, match="no credentials of AWS: no role here") as failure:
                await role()
            assert failure.value.outcome == "unauthorized"
        assert source.asked == 1
        clock.now += RETRY_S
        with pytest.raises(AttemptFailed, match="still none"):
            await role()
        clock.now += RETRY_S
        assert (await role()).access_key_id == "a"
        clock.now += 1e9
        assert (await role()).access_key_id == "a"  # keys without an end
        await role.close()

    asyncio.run(main())


def test_closing_ends_what_is_being_asked() -> None:
    """Nothing is left running."""

    async def main() -> None:
        source = Source()
        source.may_answer.clear()
        role = RoleKeys(source)
        waiting = asyncio.create_task(role())
        await asyncio.sleep(0)
        await role.close()
        with pytest.raises(AttemptFailed):
            await waiting

    asyncio.run(main())


def test_keys_that_change_sign_at_once() -> None:
    """The signer of a backend goes with the keys of its role; nothing of them shows."""

    async def main() -> None:
        clock = Clock()
        role = RoleKeys(Source(keys("a", clock.now + 60), keys("b", clock.now + 9000)), clock)
        origin = Origin(scheme="https", host="bedrock-runtime.eu-west-1.amazonaws.com", port=443)
        credential = AwsCredential(region="eu-west-1", service="bedrock")
        backend = Backend(name="b", provider="bedrock", origin=origin, credential=credential)
        signer = aws_signers(role)(backend)
        assert b"Credential=a/" in await signer.lines("/model/m/converse", b"{}")
        assert b"Credential=a/" in await signer.lines("/model/m/converse", b"{}")
        clock.now += 60
        lines = await signer.lines("/model/m/converse", b"{}")
        assert b"Credential=b/" in lines
        assert not signer.refused(lines)
        assert "hush" not in f"{backend!r} {credential!r} {keys('a', None)!r}"

    asyncio.run(main())


def test_a_large_body_is_signed_like_a_small_one() -> None:
    """Though it is digested in a thread: every byte of it counts."""

    async def signature(body: bytes) -> bytes:
        origin = Origin(scheme="https", host="h", port=443)
        credential = AwsCredential(region="eu-west-1", service="bedrock", keys=keys("a", None))
        backend = Backend(name="b", provider="bedrock", origin=origin, credential=credential)
        lines = await aws_signers(RoleKeys(Source()))(backend).lines("/model/m/converse", body)
        at = datetime.fromisoformat(re.findall(rb"x-amz-date: (\S+)", lines)[0].decode()).timestamp()
        signer = RequestSigner(keys("a", None), "eu-west-1", "bedrock", "h")
        assert lines == signer.lines("/model/m/converse", hashlib.sha256(body).hexdigest(), at)
        return lines

    large = b"x" * LARGE_BYTES
    assert asyncio.run(signature(large)) != asyncio.run(signature(large[:-1] + b"y"))
