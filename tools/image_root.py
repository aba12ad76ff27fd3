"""Makes the root file system of the image: Python, the gateway's environment, the libraries that both need, no more.

Usage, inside the build stage of the Dockerfile: ``python tools/image_root.py ENVIRONMENT ROOT``. ENVIRONMENT is a
virtual environment with the gateway in it, ROOT a folder that does not exist yet. There is no shell in it, no package
manager and nothing that builds; a mount point is all that is left of what the runtime provides.

Invariants:
- The same base and the same lock give the same bytes: nothing depends on time, order of folders or this process.
- What is left out is named here with its reason, and tests/image starts the gateway without it.
- What a scanner needs stays: METADATA and licences of Python packages, the state and licence of Debian's.
"""

from __future__ import annotations

import asyncio
import compileall
import os
import py_compile
import re
import shutil
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

STDLIB_LEFT_OUT = (
    *("test", "idlelib", "tkinter", "turtle.py", "turtledemo", "lib2to3", "pydoc_data", "curses"),
    *("ensurepip", "venv"),  # they install
    *("sqlite3", "dbm"),  # the gateway has no files; each brings a library
    *("site-packages", "dist-packages", "config-*", "__pycache__"),
    *("_test*.so", "_ctypes_test*.so", "_xx*.so", "xx*.so"),  # Python's own tests
    *("_tkinter*.so", "_curses*.so", "readline*.so", "_sqlite3*.so", "_dbm*.so", "_gdbm*.so"),
)
"""Names of files and folders of the standard library, at any depth."""

DISTRIBUTIONS_LEFT_OUT = (
    # kubernetes.aio alone needs them
    *("aiohappyeyeballs", "aiohttp", "aiohttp-retry", "aiosignal", "frozenlist", "multidict", "propcache", "yarl"),
    # rich colours source code and Markdown with them, and prints neither here
    *("markdown-it-py", "mdurl", "pygments"),
)
"""Packages that the lock holds for a part of another package that the gateway does not use."""

PACKAGES_LEFT_OUT = (
    "kubernetes/aio",  # a second client
    "kubernetes/client/api/[!_]*",  # a method per endpoint, imported by name only: the gateway asks by path,
    "kubernetes/client/models/[!_]*",  # and reads JSON itself; tests/arch holds it to that
    *("*_test.py", "tests", "test", "__pycache__", ".*"),
    *("*.pyi", "py.typed", "*.pyx", "*.pxd", "*.pxi", "*.c", "*.h", "*.hpp", "*.cpp"),  # for compilers and checkers
    *("*.dist-info/RECORD", "*.dist-info/INSTALLER", "*.dist-info/REQUESTED"),  # for pip, which is not there
)
"""Paths below site-packages, or names at any depth."""

COMMAND = "llm-gateway"
MOUNT_POINTS = {"dev": 0o755, "proc": 0o555, "sys": 0o555, "tmp": 0o1777, "etc/llm-gateway": 0o755}
TEXTS = {
    "etc/passwd": "root:x:0:0:root:/:/sbin/nologin\nllm-gateway:x:65532:65532:llm-gateway:/:/sbin/nologin\n",
    "etc/group": "root:x:0:\nllm-gateway:x:65532:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
AUTHORITIES_SOURCE = Path("/usr/share/ca-certificates")


def main(arguments: list[str]) -> None:
    """Make it."""
    environment, root = Path(arguments[0]), Path(arguments[1])
    root.mkdir()
    interpreter = (environment / "bin" / "python").resolve()
    slim(environment, interpreter)
    copy_links_of_top(root)
    copy_tree(environment, inside(root, environment))
    copy_tree(Path(os.__file__).parent, inside(root, Path(os.__file__).parent), STDLIB_LEFT_OUT)
    copy_file(interpreter, root)
    libraries = copy_libraries(root)
    write_system(root)
    describe([AUTHORITIES_SOURCE, interpreter, Path(os.__file__), Path(asyncio.__file__), *libraries], root)
    compile_all(root)
    settle(root, int(os.environ["SOURCE_DATE_EPOCH"]))


def inside(root: Path, path: Path) -> Path:
    """Where an absolute path is below ``root``."""
    return root / path.relative_to("/")


# -- the environment ---------------------------------------------------------------------------------------------------


def slim(environment: Path, interpreter: Path) -> None:
    """Remove what running does not need, in place."""
    (packages,) = (environment / "lib").glob("python*/site-packages")
    for distribution in DISTRIBUTIONS_LEFT_OUT:
        remove_distribution(packages, distribution)
    for path in [path for path in packages.rglob("*") if is_left_out(path.relative_to(packages), PACKAGES_LEFT_OUT)]:
        remove(path)
    for path in packages.rglob("*.so"):
        shorten(path)
    remove(environment / ".gitignore")
    for path in environment.joinpath("bin").iterdir():
        if path.name.startswith("python"):
            path.unlink()
            path.symlink_to(interpreter)
        elif path.name != COMMAND:
            path.unlink()


def remove_distribution(packages: Path, name: str) -> None:
    """Remove all that an installed package brought, by its own record. Raises SystemExit where it is not there."""
    records = list(packages.glob(f"{name.replace('-', '_')}-*.dist-info/RECORD"))
    if len(records) != 1:
        sys.exit(f"{name}: expected one such package to leave out, found {len(records)}")
    tops = {line.split(",")[0].split("/")[0] for line in records[0].read_text().splitlines()}
    for top in tops - {".."}:
        remove(packages / top)


def is_left_out(path: Path, patterns: Iterable[str]) -> bool:
    """Whether a relative path, or its name where the pattern has no folder, is meant by any of the patterns."""
    text = path.as_posix()
    return any(fnmatch(text if "/" in pattern else path.name, pattern) for pattern in patterns)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is still there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def shorten(library: Path) -> None:
    """Cut off what follows the last segment of an ELF file: symbols for debuggers and the table of sections.

    The loader reads segments only (System V ABI, chapter 5, "Program Loading"). A file of another kind stays as it is.
    """
    data = bytearray(library.read_bytes())
    if data[:6] != b"\x7fELF\x02\x01":  # 64 bits, little endian
        return
    (table,) = struct.unpack_from("<Q", data, 32)  # e_phoff
    size, count = struct.unpack_from("<HH", data, 54)  # e_phentsize, e_phnum
    end = table + size * count
    for at in range(table, end, size):
        offset, length = struct.unpack_from("<Q16xQ", data, at + 8)  # p_offset, p_filesz
        end = max(end, offset + length)
    struct.pack_into("<Q", data, 40, 0)  # e_shoff
    struct.pack_into("<HH", data, 60, 0, 0)  # e_shnum, e_shstrndx
    library.write_bytes(data[:end])


# -- Python and the libraries ------------------------------------------------------------------------------------------


def copy_links_of_top(root: Path) -> None:
    """Where /lib is a link to usr/lib and so on, it is here too."""
    for path in sorted(Path("/").iterdir()):
        if path.is_symlink():
            target = path.readlink()
            (root / path.name).symlink_to(target)
            inside(root, Path("/") / target).mkdir(parents=True, exist_ok=True)


def copy_tree(source: Path, target: Path, left_out: Iterable[str] = ()) -> None:
    """Copy a folder. Its links stay links where nothing is left out, else they become what they point to."""

    def copy(source: str, target: str) -> None:
        shutil.copyfile(source, target)
        shutil.copymode(source, target)

    ignored = shutil.ignore_patterns(*left_out)
    shutil.copytree(source, target, symlinks=not left_out, ignore=ignored, copy_function=copy, dirs_exist_ok=True)


def copy_file(source: Path, root: Path) -> None:
    """Copy what a path leads to, to the same path below ``root``."""
    target = inside(root, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def copy_libraries(root: Path) -> list[Path]:
    """Copy every shared library that a program or library below ``root`` is linked with; where they are from."""
    found: set[Path] = set()
    for line in ldd([path for path in root.rglob("*") if is_elf(path)]):
        if "not found" in line:
            sys.exit(f"a library is missing: {line.strip()}")
        if match := re.search(r"(?:=> |^\s+)(/\S+) \(0x", line):
            found.add(Path(match[1]))
    libraries = sorted(path for path in found if not path.is_relative_to(root) and not inside(root, path).exists())
    for path in libraries:
        copy_file(path.parent.resolve() / path.name, root)
    return libraries


def ldd(files: list[Path]) -> Iterator[str]:
    """What the loader says of these files; libraries that they are linked with come with all of theirs."""
    result = subprocess.run(["ldd", *sorted(files)], capture_output=True, text=True, check=False)
    yield from result.stdout.splitlines()


def is_elf(path: Path) -> bool:
    """Whether it is a program or a library."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


# -- the rest of the system --------------------------------------------------------------------------------------------


def write_system(root: Path) -> None:
    """Users for what asks for a name, certificate authorities, mount points, and the loader's cache."""
    for name, text in TEXTS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, mode in MOUNT_POINTS.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)
    copy_file(AUTHORITIES, root)
    default = inside(root, Path(ssl.get_default_verify_paths().openssl_cafile))
    if not default.exists():
        default.parent.mkdir(parents=True, exist_ok=True)
        default.symlink_to(AUTHORITIES)
    copy_tree(Path("/etc/ld.so.conf.d"), root / "etc/ld.so.conf.d")
    shutil.copy("/etc/ld.so.conf", root / "etc/ld.so.conf")
    subprocess.run(["ldconfig", "-X", "-r", root], check=True)
    remove(root / "var/cache")  # it holds times


def describe(sources: Iterable[Path], root: Path) -> None:
    """Say which packages of the distribution the files are from, in the form that scanners of small images read."""
    for package in sorted({name for source in sources for name in owners(source)}):
        status = subprocess.run(["dpkg-query", "--status", package], capture_output=True, text=True, check=True)
        name = package.partition(":")[0]
        folder = root / "var/lib/dpkg/status.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(status.stdout)
        copyright_file = Path("/usr/share/doc", name, "copyright")
        if copyright_file.exists():
            copy_file(copyright_file, root)


def owners(path: Path) -> set[str]:
    """The packages of the distribution that a file belongs to; none where it was built for the base itself."""
    asked = [str(path), str(path.resolve())]
    result = subprocess.run(["dpkg-query", "--search", *asked], capture_output=True, text=True, check=False)
    names = [line.partition(": /")[0] for line in result.stdout.splitlines() if not line.startswith("diversion")]
    return {name for line in names for name in line.split(", ")}


def compile_all(root: Path) -> None:
    """Make byte code that is never compared with its source again: the root file system is read-only later."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    for folder in sorted(root.rglob("python3.*")):
        if folder.is_dir() and not folder.is_symlink():
            compileall.compile_dir(
                folder, quiet=1, maxlevels=99, stripdir=str(root), prependdir="/", invalidation_mode=mode
            )


def settle(root: Path, epoch_s: int) -> None:
    """One time for everything; whoever runs it can read it, and only root could write."""
    for folder, _, files in os.walk(root, topdown=False):
        for path in [*(Path(folder, name) for name in files), Path(folder)]:
            _settle_one(path, epoch_s)
    for path in (path for path in root.rglob("*") if path.is_symlink()):
        os.utime(path, (epoch_s, epoch_s), follow_symlinks=False)


def _settle_one(path: Path, epoch_s: int) -> None:
    if not path.is_symlink():
        mode = path.stat().st_mode & 0o7777
        is_open = mode == MOUNT_POINTS["tmp"]
        path.chmod(mode if is_open else (mode | 0o444 | ((mode & 0o100) and 0o111)) & ~0o022)
    os.utime(path, (epoch_s, epoch_s), follow_symlinks=False)


if __name__ == "__main__":
    main(sys.argv[1:])
