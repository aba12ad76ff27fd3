"""What the sender of a command is told of an error."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import RedisRefused, RedisUnanswered, RedisUnavailable
from gateway.redis.command import Command, ErrorReply, pack
from gateway.redis.script import Script, script_call


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", RedisUnavailable),
        ("LOADING the dataset", RedisUnavailable),
        ("READONLY You can't write against a read only replica. script: x, on @user_script:1.", RedisUnavailable),
        ("CLUSTERDOWN Hash slot not served", RedisUnavailable),
        ("NOAUTH Authentication required.", RedisUnavailable),
        ("ERR OOM is only mentioned", RedisRefused),
        ("WRONGTYPE Operation against a key", RedisRefused),
        ("NOPERM this user", RedisRefused),
        ("MINE of a script", RedisRefused),
        ("", RedisRefused),
    ],
)
def test_only_what_turns_a_command_away_untouched_is_unavailable(text: str, kind: type[Exception]) -> None:
    """The first word decides; a script that failed half-way is not among them."""
    failure = ErrorReply(text).failure()
    assert type(failure) is kind
    assert failure.text == text


def test_a_future_ends_once() -> None:
    """The first outcome stays, and a cancelled one stays cancelled."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        command = Command(loop.create_future(), pack("PING"))
        command.fail(RedisUnanswered("first"))
        command.fail(RedisUnavailable("second"))
        assert str(command.future.exception()) == "first"
        cancelled = Command(loop.create_future(), pack("PING"))
        cancelled.future.cancel()
        cancelled.fail(RedisUnanswered("late"))
        assert cancelled.future.cancelled()

    asyncio.run(main())


def test_a_script_is_brought_along_once() -> None:
    """The same keys and arguments after the source; then the command has no script any more."""

    async def main() -> None:
        script = Script("one", "return 1")
        command = Command(asyncio.get_running_loop().create_future(), b"")
        command.script, command.call = script, script_call((b"key",), ("argument",))
        command.carry_source()
        assert command.packed == pack("EVAL", "return 1", 1, "key", b"argument")
        assert command.script is None
        assert script.sha == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"

    asyncio.run(main())
