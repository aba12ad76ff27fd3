"""Runs a program of an image as a cluster would: its root file system read-only, its user a number, no rights.

Usage: ``unshare --mount python tests/support/sandbox.py ROOT UID FOLDER MOUNTS -- PROGRAM ARGUMENT...`` as root, in a
mount namespace of its own. FOLDER is where the program starts. MOUNTS, separated by commas, are names of writable
folders of the container (memory) and ``SOURCE:TARGET`` for a folder of the host (read-only). What else a container
runtime gives is there too: /proc and a few devices. The program takes this process's place, and its environment.

Stands alone: it is run by its path, with nothing of the project importable.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

DEVICES = ("null", "zero", "full", "random", "urandom")
HOST = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
PR_SET_NO_NEW_PRIVS = 38
ROOT_GROUP = 0  # as OpenShift gives it to its arbitrary users


def mount(*arguments: str | Path) -> None:
    """Have the host mount something."""
    subprocess.run(["mount", *arguments], env=HOST, check=True)


def bind(source: Path, target: Path, *, read_only: bool) -> None:
    """Show a file or folder at another place."""
    mount("--bind", source, target)
    if read_only:
        mount("-o", "remount,bind,ro", target)


def prepare(root: Path, mounts: list[str]) -> None:
    """Everything that is mounted, the root first. A mount point that is not there is made, as runtimes do."""
    for target in (each.rpartition(":")[2] for each in mounts):
        (root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
    bind(root, root, read_only=True)
    mount("-t", "proc", "proc", root / "proc")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", root / "dev")
    for name in DEVICES:
        (root / "dev" / name).touch()
        bind(Path("/dev") / name, root / "dev" / name, read_only=False)
    for each in mounts:
        source, _, target = each.rpartition(":")
        place = root / target.lstrip("/")
        if source:
            bind(Path(source), place, read_only=True)
        else:
            place.mkdir(exist_ok=True)  # /dev is another now
            mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", place)


def become(uid: int) -> None:
    """A user that may do nothing, and can never do more."""
    os.setgroups([])
    os.setgid(ROOT_GROUP)
    os.setuid(uid)
    if ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError("prctl")


def main(arguments: list[str]) -> None:
    """Prepare, become nobody, start."""
    (root, uid, folder, mounts, _), command = arguments[:5], arguments[5:]
    prepare(Path(root), [each for each in mounts.split(",") if each])
    os.chroot(root)
    os.chdir(folder)
    become(int(uid))
    os.execvp(command[0], command)  # noqa: S606  # the program is what the image starts


if __name__ == "__main__":
    main(sys.argv[1:])
