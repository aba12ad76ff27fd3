"""The Lua scripts of the limits, read from the package's files.

They are text that the server runs: read once when the gateway is put together, never changed after.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from gateway.model import Frozen
from gateway.redis.script import Script

PARTS: Final = {
    "admit": ("head", "limits", "bucket", "refill", "window", "admit"),
    "settle": ("head", "limits", "bucket", "window", "bounded", "settle"),
    "void": ("head", "limits", "bucket", "bounded", "void"),
    "renew": ("head", "renew"),
    "levels": ("head", "limits", "bucket", "refill", "window", "levels"),
}
"""The files that each script is put together from, in order."""


class LimitScripts(Frozen, frozen=True):
    """One script per thing that can be asked; ``wire`` has the encoder and decoder of each."""

    admit: Script
    settle: Script
    void: Script
    renew: Script
    levels: Script


def load_scripts() -> LimitScripts:
    """Put all scripts together. Raises FileNotFoundError where the package lacks their files."""
    folder = resources.files("gateway.limits").joinpath("lua")
    scripts = {
        name: Script(name, "".join(folder.joinpath(f"{part}.lua").read_text("utf-8") for part in parts))
        for name, parts in PARTS.items()
    }
    return LimitScripts(**scripts)
