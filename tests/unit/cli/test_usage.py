"""What is said of wrong options of the usage commands, before any Redis is asked."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner, Result

from gateway.cli.commands import build
from gateway.errors import SettingsInvalid


def run(*arguments: str, **env: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(build(), ["usage", *arguments], env=env)


@pytest.mark.parametrize("command", ["export", "report"])
@pytest.mark.parametrize("url", ["", "embedded"])
def test_redis_must_be_one_that_can_be_reached(command: str, url: str) -> None:
    """The embedded one belongs to another process."""
    result = run(command, LLM_GATEWAY_REDIS_URL=url)
    assert isinstance(result.exception, SettingsInvalid)
    assert "LLM_GATEWAY_REDIS_URL: expected the address of the Redis that the gateways use" in str(result.exception)


@pytest.mark.parametrize("option", ["--from", "--to"])
@pytest.mark.parametrize("text", ["yesterday", "2026-02-30", "22.11.2026"])
def test_day_is_a_date(option: str, text: str) -> None:
    """The option and what is expected are named."""
    result = run("report", option, text)
    assert result.exit_code == 2
    assert f"{text!r} is not a day such as 2026-11-22" in " ".join(result.stderr.split())
    assert option in result.stderr


@pytest.mark.parametrize("option", ["--group", "--consumer"])
@pytest.mark.parametrize("text", ["a|b", "", "x" * 65])
def test_names_in_redis_are_plain(option: str, text: str) -> None:
    """They become part of fields there."""
    result = run("export", option, text)
    assert result.exit_code == 2
    assert "must be 1 to 64 of" in " ".join(result.stderr.split())


def test_redis_that_is_gone_is_an_error() -> None:
    """Readable, with exit code 1, and without the password."""
    result = run("report", LLM_GATEWAY_REDIS_URL="redis://:hush-hush-hush@127.0.0.1:1")
    assert result.exit_code == 1
    assert "Redis cannot be asked: " in result.stderr
    assert "hush" not in result.output
