"""The command line ``llm-gateway``: what an operator types.

Expected failures (a wrong setting, a bad registry, a file that is there already) end with a readable text on standard
error and a non-zero exit code; only a fault of the gateway itself shows a traceback. Nothing here serves requests.

SIGTERM ends a command with exit code 143 from its first moment on. In a container it is process 1, to which the kernel
passes on only signals that it handles: without this a pod that is deleted while it starts would live on for its whole
grace period. What serves handles the signal itself from there.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

_ENDED_BY_SIGTERM = 128 + signal.SIGTERM


def main() -> None:
    """Run the command line of this process and exit: 0 done, 1 refused or failed, 2 wrong settings or usage."""
    signal.signal(signal.SIGTERM, _end)
    from gateway.cli.commands import build
    from gateway.errors import RegistryInvalid, SettingsInvalid

    try:
        build()()
    except SettingsInvalid as error:
        _fail("The settings are wrong:", str(error).splitlines())
    except RegistryInvalid as error:
        _fail("The registry cannot be started from:", [str(problem) for problem in error.problems])


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    sys.exit(_ENDED_BY_SIGTERM)


def _fail(title: str, lines: list[str]) -> None:
    print("\n  ".join([title, *lines]), file=sys.stderr)
    sys.exit(2)
