"""The process's own logs as JSON lines on standard output: the gateway's, the servers', Python's warnings.

Nothing of a request may get into them by accident. An exception shows its type and where it came from, as
file:line:function and without any value; its text only where it is one of ours or of a kind that does not quote what
it was given. Of an exception of asyncio's own reports only the headline is kept.
"""

from __future__ import annotations

import logging
import traceback
from typing import Literal

import msgspec

from gateway.telemetry.writer import LineWriter, timestamp

Level = Literal["debug", "info", "warning", "error"]

MESSAGE_MAX_CHARS = 4000
_MAX_FRAMES = 40
_MAX_CHAIN = 8

_SERVERS = ("uvicorn", "uvicorn.error", "gunicorn", "gunicorn.error")
_SILENT = ("uvicorn.access", "gunicorn.access")  # each request has a line of ours
_PLAIN = (TypeError, AttributeError, NameError, ImportError, RuntimeError, AssertionError, ArithmeticError)
"""Built-in exceptions that speak of code or system; ValueError and KeyError quote what they were given."""


class _Exception(msgspec.Struct, omit_defaults=True):
    type: str
    message: str | None = None
    stack: list[str] = []


class _Record(msgspec.Struct, omit_defaults=True):
    ts: str
    level: str
    environment: str
    event: str
    logger: str
    message: str
    exception: list[_Exception] = []


class JsonFormatter(logging.Formatter):
    """One log record as one JSON object, without the newline."""

    def __init__(self, environment: str = "") -> None:
        super().__init__()
        self._environment = environment

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON text; an exception before what led to it."""
        exception = record.exc_info[1] if record.exc_info else None
        line = _Record(
            ts=timestamp(record.created),
            level=record.levelname.lower(),
            environment=self._environment,
            event="log",
            logger=record.name,
            message=_message(record),
            exception=[_described(error) for error in _chain(exception)],
        )
        return msgspec.json.encode(line).decode()


class LineHandler(logging.Handler):
    """Hands formatted records to a LineWriter, so that logging never blocks."""

    def __init__(self, writer: LineWriter, environment: str = "") -> None:
        super().__init__()
        self._writer = writer
        self.setFormatter(JsonFormatter(environment))

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line. Never raises: a record that cannot be formatted is one that names its place."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 a wrong format string somewhere must not fail what it reports on
            record.msg, record.args = f"unreadable log call at {record.filename}:{record.lineno}", ()
            line = self.format(record)
        self._writer.put(line.encode() + b"\n")

    def flush(self) -> None:
        """Wait a little for what is queued; the interpreter calls this at exit."""
        self._writer.flush()


def configure_logging(level: Level, environment: str, writer: LineWriter) -> None:
    """Send every log of this process to ``writer`` as JSON lines, and nothing anywhere else.

    ``level`` holds for the gateway's own loggers; others stay at ``info`` or above. Call it again after anything that
    set up logging of its own (gunicorn, uvicorn); the last call wins.
    """
    handler = LineHandler(writer, environment)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    own = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(own, logging.INFO))
    logging.getLogger("gateway").setLevel(own)
    for name in _SERVERS:
        server = logging.getLogger(name)
        server.handlers = []
        server.propagate = True
        server.setLevel(logging.NOTSET)
    for name in _SILENT:
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = False
    logging.captureWarnings(True)


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.name == "asyncio":
        text = text.partition("\n")[0]  # the rest shows tasks and exceptions with their values
    return _unicode(text.strip()[:MESSAGE_MAX_CHARS])


def _chain(exception: BaseException | None) -> list[BaseException]:
    """The exception, what it groups and what led to it, nearest first, up to a bound."""
    found: list[BaseException] = []
    waiting = [exception]
    while waiting and len(found) < _MAX_CHAIN:
        error = waiting.pop(0)
        if error is None or error in found:
            continue
        found.append(error)
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(error.exceptions)
        waiting.append(error.__cause__ or (None if error.__suppress_context__ else error.__context__))
    return found


def _described(exception: BaseException) -> _Exception:
    kind = type(exception)
    frames = traceback.extract_tb(exception.__traceback__)[-_MAX_FRAMES:]
    return _Exception(
        type=kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}",
        message=_unicode(str(exception)[:MESSAGE_MAX_CHARS]) if _may_speak(exception) else None,
        stack=[f"{frame.filename}:{frame.lineno}:{frame.name}" for frame in frames],
    )


def _may_speak(exception: BaseException) -> bool:
    """Whether the text of this exception is ours or the system's, and quotes nothing it was given."""
    package = type(exception).__module__.partition(".")[0]
    plain = package == "builtins" and isinstance(exception, _PLAIN)
    return plain or package == "gateway" or isinstance(exception, OSError)


def _unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
