"""The list of headers that conditions may look at."""

from __future__ import annotations

import pytest

from gateway.errors import SettingsInvalid
from gateway.settings import Settings


def test_names_are_a_list_in_lower_case() -> None:
    """As documents name them."""
    assert Settings.load(routing_headers="x-region, x-tier").routing_headers == ("x-region", "x-tier")


@pytest.mark.parametrize("name", ["X-Region", "x region", "authorization", "cookie", "x-api-key", "api-key"])
def test_a_credential_is_nothing_to_route_by(name: str) -> None:
    """It would have to be compared with one in a document."""
    with pytest.raises(SettingsInvalid, match="LLM_GATEWAY_ROUTING_HEADERS"):
        Settings.load(routing_headers=name)
