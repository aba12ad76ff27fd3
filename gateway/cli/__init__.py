"""The command line ``llm-gateway``: what an operator types.

Expected failures (a wrong setting, a bad registry, a file that is there already) end with a readable text on standard
error and a non-zero exit code; only a fault of the gateway itself shows a traceback. Nothing here serves requests.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process and exit: 0 done, 1 refused or failed, 2 wrong settings or usage."""
    from gateway.cli.commands import build
    from gateway.errors import RegistryInvalid, SettingsInvalid

    try:
        build()()
    except SettingsInvalid as error:
        _fail("The settings are wrong:", str(error).splitlines())
    except RegistryInvalid as error:
        _fail("The registry cannot be started from:", [str(problem) for problem in error.problems])


def _fail(title: str, lines: list[str]) -> None:
    print("\n  ".join([title, *lines]), file=sys.stderr)
    sys.exit(2)
