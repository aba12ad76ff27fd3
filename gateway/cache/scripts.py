"""The Lua scripts of the cache, read from the package's files once; each opens with its contract."""

from __future__ import annotations

from importlib import resources

from gateway.model import Frozen
from gateway.redis.script import Script


class CacheScripts(Frozen, frozen=True):
    """One script per thing that can be asked."""

    look: Script
    keep: Script
    say: Script
    follow: Script
    purge: Script
    recall: Script
    record: Script


def load_scripts() -> CacheScripts:
    """Read all scripts. Raises FileNotFoundError where the package lacks their files."""
    folder = resources.files("gateway.cache").joinpath("lua")
    names = CacheScripts.__struct_fields__
    return CacheScripts(**{name: Script(name, folder.joinpath(f"{name}.lua").read_text("utf-8")) for name in names})
