"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lane import Lane, lane


@pytest.fixture(scope="session")
def shared_lane() -> Iterator[Lane]:
    """The lane of ``faulty``; reached through that fixture only."""
    with lane() as found:
        yield found


@pytest.fixture
def faulty(shared_lane: Lane) -> Iterator[Lane]:
    """A gateway before upstreams that go wrong; nothing may be left of a test afterwards."""
    shared_lane.forget()
    yield shared_lane
    shared_lane.assert_clean()
    shared_lane.forget()
