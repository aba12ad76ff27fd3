"""The values that travel: frozen, and silent about credentials."""

from __future__ import annotations

import pytest

from gateway.model import Backend, Origin, Usage


def test_values_are_frozen() -> None:
    """A request cannot change what the registry compiled."""
    usage = Usage(input_tokens=1)
    with pytest.raises(AttributeError):
        usage.input_tokens = 2  # type: ignore[misc]


def test_a_backend_shows_nothing_of_its_credential() -> None:
    """Its repr ends in logs."""
    backend = Backend(
        name="main",
        provider="openai",
        origin=Origin(scheme="https", host="h", port=443),
        headers=((b"authorization", b"Bearer secret"),),
    )
    assert "secret" not in repr(backend)
    assert "secret" not in f"{[backend]}"


def test_origins_are_keys() -> None:
    """Equal origins share a connection pool."""
    one, other = (Origin(scheme="http", host="h", port=80) for _ in range(2))
    assert {one: 1}[other] == 1
