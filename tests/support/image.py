"""The image, built from the Dockerfile by buildah, and programs of it run from its root file system.

Registries of images may be out of reach where tests run, so the Python that the Dockerfile begins with is made of the
distribution's packages. Everything else is the Dockerfile's own: buildah executes it, in chroots as root, and pip
downloads from where it does on this machine.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.documents import api_key, new_key
from tests.support.gateway import ROOT, GatewayProcess

SUITE = "trixie"  # of Debian; its Python is that of the Dockerfile's default
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
PYTHON = "localhost/python"
EPOCH_S = 1_580_601_600
_BUILD_S_MAX = 500
_SANDBOX = Path(__file__).with_name("sandbox.py")
_NEEDED = ("buildah", "mmdebstrap", "unshare", "mount")
_PIP_OPTIONS = (
    *("index-url", "extra-index-url", "find-links", "no-index", "trusted-host"),
    *("cert", "client-cert", "proxy", "timeout", "default-timeout"),
)


def why_not() -> str | None:
    """Why no image can be built here; None where one can."""
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return None if os.geteuid() == 0 else "only root may build and run an image in a chroot"


@dataclass(frozen=True)
class PipSettings:
    """Where pip downloads from on this machine: a configuration file, and the folders and files that it names."""

    text: str
    paths: tuple[Path, ...]

    @classmethod
    def found(cls) -> PipSettings:
        """Those of the pip that runs the tests, from its files and the environment."""
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
        )
        found: dict[str, str] = {}
        for line in reversed(listed.stdout.splitlines()):  # the environment is listed first and wins
            name, _, value = line.partition("=")
            option = name.rpartition(".")[2]
            if option in _PIP_OPTIONS:
                found[option] = str(ast.literal_eval(value))
        words = [word.removeprefix("file://") for value in found.values() for word in value.split()]
        paths = {_served(Path(word)) for word in words if word.startswith("/") and Path(word).exists()}
        text = "".join(f"{option} = {' '.join(value.split())}\n" for option, value in found.items())
        return cls(f"[global]\n{text}", tuple(sorted(paths)))


def _served(path: Path) -> Path:
    """An index may link to files beside it."""
    return path.parent if path.name == "simple" else path


@dataclass
class Builder:
    """Builds images below ``folder``, which holds all that buildah stores."""

    folder: Path

    def __post_init__(self) -> None:
        pip = PipSettings.found()
        configuration = self.folder / "pip.conf"
        configuration.write_text(pip.text)
        self._volumes = [f"{configuration}:/etc/pip.conf:ro", *(f"{path}:{path}:ro" for path in pip.paths)]
        storage = self.folder / "storage.conf"
        graph, run = (self.folder / name for name in ("store", "run"))
        storage.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{graph}"\nrunroot = "{run}"\n')
        self._environment = {
            **os.environ,
            "TMPDIR": str(self.folder),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "BUILDAH_ISOLATION": "chroot",
            "BUILDER": "buildah",
            "SOURCE_DATE_EPOCH": str(EPOCH_S),
        }

    def base(self) -> None:
        """Make ``PYTHON``: Debian's Python at the paths of the official image, with a pip of its own."""
        context = self.folder / "base"
        context.mkdir()
        self._run(
            *("mmdebstrap", "--quiet", "--variant=essential", "--include=python3,python3-venv,ca-certificates"),
            *('--customize-hook=chroot "$1" python3 -m venv /usr/local', SUITE, context / "base.tar", MIRROR),
        )
        (context / "Dockerfile").write_text(
            "FROM scratch\nADD base.tar /\nENV PATH=/usr/local/bin:/usr/bin:/usr/sbin\n"
        )
        self.buildah("build", "--tag", PYTHON, context)
        shutil.rmtree(context)

    def build(self, tag: str) -> float:
        """Build the Dockerfile of the project as ``make image`` does; the seconds that it took."""
        began = time.monotonic()
        volumes = [word for volume in self._volumes for word in ("--volume", volume)]
        base = f"PYTHON_IMAGE={PYTHON}"
        self._run(ROOT / "tools" / "image.sh", tag, "--network", "host", "--build-arg", base, *volumes)
        return time.monotonic() - began

    def inspect(self, tag: str) -> dict[str, Any]:
        """The OCI configuration of an image."""
        answer: dict[str, Any] = json.loads(self.buildah("inspect", "--type", "image", tag))["OCIv1"]
        return answer

    def mount(self, tag: str) -> Path:
        """The root file system of a container of this image."""
        return Path(self.buildah("mount", self.buildah("from", "--pull-never", tag).strip()).strip())

    def close(self) -> None:
        """Unmount everything."""
        self.buildah("umount", "--all")

    def buildah(self, *arguments: str | Path) -> str:
        """Call buildah; its standard output. Raises AssertionError with all that it said."""
        return self._run("buildah", *arguments)

    def _run(self, *command: str | Path) -> str:
        result = subprocess.run(
            command, capture_output=True, text=True, env=self._environment, timeout=_BUILD_S_MAX, check=False
        )
        assert result.returncode == 0, f"{' '.join(map(str, command))}:\n{result.stdout}\n{result.stderr}"
        return result.stdout


@dataclass(frozen=True)
class Image:
    """One that was built, mounted at ``root``."""

    builder: Builder
    tag: str
    root: Path
    config: dict[str, Any]
    layers: tuple[str, ...]
    seconds: float

    def environment(self) -> dict[str, str]:
        """What the image sets, and nothing else: no HOME, no user's name."""
        return dict(entry.split("=", 1) for entry in self.config["Env"])

    def command(self, program: Sequence[str], uid: int, mounts: Sequence[str]) -> list[str]:
        """How to run a program of the image as this user, see ``sandbox``."""
        where = [str(self.root), str(uid), self.config["WorkingDir"], ",".join(mounts), "--"]
        unshare = shutil.which("unshare") or "unshare"  # the program's own PATH leads to nothing of the host
        return [unshare, "--mount", "--propagation", "private", sys.executable, str(_SANDBOX), *where, *program]

    def run(self, *program: str, uid: int, mounts: Sequence[str] = ()) -> str:
        """Run a program to its end; what it printed. Raises AssertionError where it fails."""
        result = subprocess.run(
            self.command(program, uid, mounts),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout


class ImageGateway(GatewayProcess):
    """The gateway as the image starts it, with the example registry and a key for its tenant."""

    def __init__(self, image: Image, uid: int, mounts: Sequence[str], env: Mapping[str, str]) -> None:
        key = new_key()
        super().__init__([api_key("image-test", key, "demo")], key=key, env=env)
        self._image, self._uid, self._mounts = image, uid, tuple(mounts)

    def write_registry(self, registry: Any, name: str = "key.yaml") -> None:
        """The example beside what is given."""
        shutil.copytree(ROOT / "registry", self.registry_folder, dirs_exist_ok=True)
        super().write_registry(registry, name)

    def _command(self) -> list[str]:
        config = self._image.config
        registry = f"{self.registry_folder}:{self._image.environment()['LLM_GATEWAY_REGISTRY']}"
        return self._image.command([*config["Entrypoint"], *config["Cmd"]], self._uid, [*self._mounts, registry])

    def _environment(self) -> dict[str, str]:
        ours = super()._environment()
        listening = {name: ours[name] for name in ours if name.endswith("LISTEN") or "_DRAIN_" in name}
        return self._image.environment() | listening | dict(self._env)


@contextmanager
def built(folder: Path) -> Iterator[Image]:
    """The image, built for as long as the block lasts."""
    builder = Builder(folder)
    try:
        builder.base()
        seconds = builder.build("localhost/llm-gateway")
        found = builder.inspect("localhost/llm-gateway")
        root = builder.mount("localhost/llm-gateway")
        yield Image(
            builder, "localhost/llm-gateway", root, found["config"], tuple(found["rootfs"]["diff_ids"]), seconds
        )
    finally:
        builder.close()
        shutil.rmtree(folder, ignore_errors=True)
