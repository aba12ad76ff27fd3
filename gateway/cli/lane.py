"""A lane to the gateway's Redis for one command, with the patience of a person."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NoReturn

import typer

if TYPE_CHECKING:
    from gateway.redis.lane import RedisLane
    from gateway.settings import Settings

DEADLINE_S: Final = 5.0
"""How long Redis may take for a command of a person, at least."""


def with_lane(use: Callable[[RedisLane, Settings], Awaitable[None]]) -> None:
    """Run ``use`` with a lane to the gateway's Redis; ends the command where that one cannot be asked."""
    from gateway.errors import InvalidRequest, RedisFailure
    from gateway.settings import Settings

    try:
        asyncio.run(_run(use, Settings.load()))
    except RedisFailure as failure:
        fail(f"Redis cannot be asked: {failure.text}")
    except InvalidRequest as error:
        fail(error.message)


async def _run(use: Callable[[RedisLane, Settings], Awaitable[None]], settings: Settings) -> None:
    from msgspec.structs import replace

    from gateway.app.redis import redis_config
    from gateway.errors import SettingsInvalid
    from gateway.redis.lane import RedisLane

    url = settings.redis_url
    if url is None or url == "embedded":
        raise SettingsInvalid("LLM_GATEWAY_REDIS_URL: expected the address of the Redis that the gateways use")
    config = redis_config(settings, url)
    try:
        lane = RedisLane(replace(config, deadline_s=max(config.deadline_s, DEADLINE_S)))
    except OSError as error:
        raise SettingsInvalid(f"LLM_GATEWAY_REDIS_CA_FILE: expected a PEM file with certificates: {error}") from None
    await lane.start()
    try:
        await use(lane, settings)
    finally:
        await lane.close()


def fail(text: str) -> NoReturn:
    """End with a line on standard error and exit code 1."""
    print(text, file=sys.stderr)
    raise typer.Exit(1)
