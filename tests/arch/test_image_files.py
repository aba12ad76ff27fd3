"""The files that the image is made from; tests/image builds it."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.arch.source import ROOT, package
from tools import image_root

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_image_has_no_build_tool_and_no_root() -> None:
    """Two stages; the last begins with nothing, runs nothing, copies a root file system, and its user is a number."""
    build, final = re.split(r"^FROM .*$", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert "--require-hashes" in build
    assert "-r requirements.lock" in build
    assert "--no-deps --no-build-isolation" in build
    assert re.findall(r"^FROM (.*)$", DOCKERFILE, re.MULTILINE) == ["${PYTHON_IMAGE} AS build", "scratch"]
    assert not re.search(r"^(RUN|ADD) ", final, re.MULTILINE)
    assert re.findall(r"^COPY (.*)$", final, re.MULTILINE) == ["--from=build /image /"]
    assert re.search(r"^USER [1-9][0-9]*:[1-9][0-9]*$", final, re.MULTILINE)
    assert 'ENTRYPOINT ["llm-gateway"]\nCMD ["serve"]' in final
    assert "STOPSIGNAL SIGTERM" in final


def test_image_is_built_from_files_that_are_let_through() -> None:
    """What the Dockerfile copies is what .dockerignore does not hold back."""
    copied = set()
    for names in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        copied.update(names.split())
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    for name in copied:
        assert (ROOT / name).exists(), name


def test_nothing_of_the_kubernetes_client_is_used_that_the_image_leaves_out() -> None:
    """Only names of modules that stay, imported by name: what is asked of a module later would be missed in vain."""
    for source in package():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                assert not any(each.name.startswith("kubernetes") for each in node.names), source.at(node)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kubernetes"):
                for each in node.names:
                    path = home_of(node.module or "", each.name)
                    assert not image_root.is_left_out(path, image_root.PACKAGES_LEFT_OUT), source.at(node)


def home_of(module: str, name: str) -> Path:
    """The file below site-packages that a name of a module is really from."""
    found = getattr(import_module(module), name)
    assert not inspect.ismodule(found), f"{module}.{name} is a module: import the names that are used"
    home = getattr(found, "__module__", module)
    return Path(*home.split(".")).with_suffix(".py")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("kubernetes/aio", True),
        ("kubernetes/client/api/core_v1_api.py", True),
        ("kubernetes/client/models/v1_pod.py", True),
        ("kubernetes/client/models/__init__.py", False),
        ("kubernetes/client/api_client.py", False),
        ("kubernetes/config/kube_config_test.py", True),
        ("yaml/tests", True),
        ("gateway/testing.py", False),
        ("gateway/limits/lua/admit.lua", False),
        ("uvloop/loop.pyx", True),
        ("idna-3.20.dist-info/RECORD", True),
        ("idna-3.20.dist-info/METADATA", False),
    ],
)
def test_what_is_left_out_of_packages(path: str, expected: bool) -> None:
    """A pattern with a folder means that path, one without means a name anywhere."""
    assert image_root.is_left_out(Path(path), image_root.PACKAGES_LEFT_OUT) is expected


def test_a_shortened_library_still_loads(tmp_path: Path) -> None:
    """Without the table of sections and what follows the last segment; it is smaller, and twice is once."""
    library = tmp_path / "uvloop.so"
    library.write_bytes(Path(import_module("uvloop.loop").__file__ or "").read_bytes())
    before = library.stat().st_size
    image_root.shorten(library)
    assert library.stat().st_size < before
    once = library.read_bytes()
    image_root.shorten(library)
    assert library.read_bytes() == once
    script = (
        "import sys; from importlib import util; spec = util.spec_from_file_location('uvloop.loop', sys.argv[1]);"
        "module = util.module_from_spec(spec); spec.loader.exec_module(module); module.Loop().close()"
    )
    subprocess.run([sys.executable, "-c", script, library], check=True)
    text = tmp_path / "text.so"
    text.write_bytes(b"INPUT(libc.so.6)")
    image_root.shorten(text)
    assert text.read_bytes() == b"INPUT(libc.so.6)"


def test_image_script_says_what_is_missing(tmp_path: Path) -> None:
    """Where nothing builds images, or what is there does not work, one sentence says what to install."""
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")  # a client whose daemon is not there
    (tmp_path / "docker").chmod(0o755)
    result = subprocess.run(
        [ROOT / "tools" / "image.sh", "llm-gateway"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "BUILDER": "docker podman"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("None of these works here: docker podman.")
