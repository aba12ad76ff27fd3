"""The image, built once for these tests. Says in the summary how, how large it is and how long that took."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.image import Image, built, why_not

_SAID = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image as the Dockerfile makes it."""
    if reason := why_not():
        pytest.skip(reason)
    with built(tmp_path_factory.mktemp("image")) as made:
        say(request, f"built from the Dockerfile by {builder_name()} (chroot isolation, vfs) in {made.seconds:.0f} s")
        yield made


def builder_name() -> str:
    """Which buildah it is."""
    said = subprocess.run(["buildah", "--version"], capture_output=True, text=True, check=True)
    return said.stdout.partition(" (")[0]


def say(request: pytest.FixtureRequest, line: str) -> None:
    """Have a line in the summary of the run."""
    request.config.stash.setdefault(_SAID, []).append(line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was said."""
    for line in config.stash.get(_SAID, []):
        terminalreporter.write_line(f"image: {line}")
