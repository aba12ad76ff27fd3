"""Which providers are spoken to by translation; those that are not here speak the chat dialect as it is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.dialects.azure import AzureCall
from gateway.dialects.contract import Translate

TRANSLATES: Final[Mapping[str, Translate]] = MappingProxyType({"azure": AzureCall})
