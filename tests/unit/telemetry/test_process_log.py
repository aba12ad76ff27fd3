"""The process's own logs in the form of the others, with nothing of a request in them."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.errors import UpstreamFailed
from gateway.telemetry import LineWriter, configure_logging

Lines = Callable[[], list[dict[str, Any]]]

SECRET = "the prompt of a tenant"
NAMES = ("", "gateway", "gateway.upstream", "uvicorn", "uvicorn.error", "uvicorn.access", "gunicorn.error", "asyncio")


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Logging set up on a pipe; reads the lines written since. Puts everything back afterwards."""
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in map(logging.getLogger, NAMES)]
    reader, fd = os.pipe()
    writer = LineWriter(fd)
    configure_logging("debug", "test", writer)

    def read() -> list[dict[str, Any]]:
        writer.put(b"\n")
        assert writer.flush(10)
        return [json.loads(line) for line in os.read(reader, 1 << 20).splitlines() if line]

    yield read
    logging.captureWarnings(False)
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
    writer.close()
    os.close(fd)
    os.close(reader)


def test_a_log_call_is_one_json_line(lines: Lines) -> None:
    """Time, level, environment, logger and message; a message of several lines stays one."""
    logging.getLogger("gateway.upstream").warning("lost %d\nof %s", 3, "qwen")
    (line,) = lines()
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "warning",
        "environment": "test",
        "event": "log",
        "logger": "gateway.upstream",
        "message": "lost 3\nof qwen",
    }


def test_servers_and_warnings_come_the_same_way(lines: Lines) -> None:
    """Once each, whatever handlers they had; their access logs are silent, since requests have lines of ours."""
    logging.getLogger("uvicorn.error").info("started")
    logging.getLogger("gunicorn.error").info("booting")
    logging.getLogger("uvicorn.access").info("GET /")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    found = lines()
    assert [line["logger"] for line in found] == ["uvicorn.error", "gunicorn.error", "py.warnings"]
    assert "old" in found[2]["message"]


def test_the_level_is_that_of_our_own_loggers(lines: Lines) -> None:
    """Debugging the gateway does not turn on the chatter of libraries."""
    logging.getLogger("gateway.pipeline").debug("ours")
    logging.getLogger("httpx").debug("theirs")
    assert [line["message"] for line in lines()] == ["ours"]


def test_an_exception_is_its_type_its_text_and_its_way(lines: Lines) -> None:
    """In one line, the cause after it, each place as file:line:function."""
    try:
        _fail()
    except UpstreamFailed:
        logging.getLogger("gateway").exception("failed")
    (line,) = lines()
    ours, cause = line["exception"]
    assert (ours["type"], ours["message"]) == ("gateway.errors.UpstreamFailed", "all attempts failed")
    assert (cause["type"], cause["message"]) == ("ConnectionResetError", "[Errno 104] gone")
    assert [place.rsplit(":", 1)[1] for place in ours["stack"]] == [
        "test_an_exception_is_its_type_its_text_and_its_way",
        "_fail",
    ]


def _fail() -> None:
    try:
        raise ConnectionResetError(104, "gone")
    except ConnectionResetError as error:
        raise UpstreamFailed("all attempts failed") from error


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"invalid literal: {SECRET!r}"),
        KeyError(SECRET),
        UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
        json.JSONDecodeError(SECRET, SECRET, 0),
        Exception(SECRET),
        type("TheirError", (RuntimeError,), {})(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
    ],
)
def test_an_exception_that_may_quote_a_request_says_only_its_type(lines: Lines, error: Exception) -> None:
    """Neither its text nor a local variable on its way is logged."""
    prompt = SECRET
    try:
        raise error
    except Exception:
        logging.getLogger("gateway").exception("failed for %d bytes", len(prompt))
    (line,) = lines()
    assert SECRET not in json.dumps(line)
    assert line["exception"][0]["type"].endswith(type(error).__name__)
    assert len(line["exception"][0]["stack"]) == 1


def test_a_group_shows_what_it_groups(lines: Lines) -> None:
    """A task group's own text says nothing of what happened in it."""
    try:
        raise ExceptionGroup("unhandled", [OSError(104, "gone"), ModuleNotFoundError("no such module")])
    except ExceptionGroup:
        logging.getLogger("gateway").exception("failed")
    (line,) = lines()
    assert [(each["type"], each.get("message")) for each in line["exception"]] == [
        ("ExceptionGroup", None),
        ("ConnectionResetError", "[Errno 104] gone"),
        ("ModuleNotFoundError", "no such module"),
    ]


def test_reports_of_asyncio_are_cut_to_their_headline(lines: Lines) -> None:
    """The rest shows tasks with their exceptions and values."""
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <Task exception=%r>", SECRET)
    (line,) = lines()
    assert line["message"] == "Task exception was never retrieved"


def test_a_wrong_log_call_is_reported_and_raises_nothing(lines: Lines) -> None:
    """With its place, so that it can be mended."""
    logging.getLogger("gateway").info("%d", "no number")
    (line,) = lines()
    assert line["message"].startswith("unreadable log call at test_process_log.py:")


def test_setting_up_again_changes_nothing(lines: Lines) -> None:
    """After a server that set up its own; nothing is written twice."""
    handler = next(each for each in logging.getLogger().handlers if hasattr(each, "_writer"))
    server = logging.getLogger("uvicorn.error")
    server.addHandler(logging.NullHandler())
    server.propagate = False
    configure_logging("info", "test", handler._writer)
    server.info("once")
    logging.getLogger("gateway").debug("not at this level")
    assert [line["message"] for line in lines()] == ["once"]
