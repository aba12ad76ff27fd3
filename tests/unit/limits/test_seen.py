"""Levels as last seen, and what is restored of them."""

from __future__ import annotations

from gateway.limits.local import Seen
from gateway.limits.seen import Restore, SeenLevels
from tests.unit.limits.values import admitted, bound

BOUND = bound(("requests", "day", 10), ("tokens", "minute", 100))


def test_the_latest_level_of_each_limit_is_kept() -> None:
    """As what was left, at our time."""
    seen = SeenLevels()
    assert seen.seen(("acme", "t:requests-day")) is None
    seen.remember(BOUND, admitted((10, 9, 1), (100, 50, 1)), 5.0)
    seen.remember(BOUND, admitted((10, 8, 1), (100, 70, 1)), 6.0)
    assert seen.seen(("acme", "t:requests-day")) == Seen(8, 6.0)
    assert seen.seen(("acme", "t:tokens-minute")) == Seen(70, 6.0)


def test_another_epoch_shows_a_loss_once() -> None:
    """The first epoch of a tenant and the same one again show nothing."""
    seen = SeenLevels()
    assert not seen.epoch("acme", "e1")
    assert not seen.epoch("acme", "e1")
    assert not seen.epoch("other", "x")
    assert seen.epoch("acme", "e2")
    assert not seen.epoch("acme", "e2")


def test_no_levels_are_a_loss_where_there_were_some() -> None:
    """And none where there were none; the next epoch is then the first."""
    seen = SeenLevels()
    assert not seen.epoch("acme", "")
    assert not seen.epoch("acme", "e1")
    seen.remember(BOUND, admitted((10, 2, 1), (100, 50, 1)), 5.0)
    assert seen.epoch("acme", "")
    assert len(list(seen.to_restore("acme"))) == 1
    assert not seen.epoch("acme", "")
    assert not seen.epoch("acme", "e2")


def test_what_was_seen_before_the_loss_is_restored() -> None:
    """Not what has been seen since; and again where a restore was not answered."""
    seen = SeenLevels()
    assert not seen.epoch("acme", "e1")
    before = admitted((10, 2, 1), (100, 50, 1))
    seen.remember(BOUND, before, 5.0)
    assert seen.epoch("acme", "e2")
    seen.remember(BOUND, admitted((10, 9, 1), (100, 99, 1), now_ms=2_000_000), 6.0)
    restores = list(seen.to_restore("acme"))
    assert restores == [Restore("acme", BOUND.limits, before.levels, 1_000_000)]
    assert list(seen.to_restore("acme")) == []
    seen.again(restores[0])
    assert list(seen.to_restore("acme")) == restores


def test_levels_seen_at_different_times_are_restored_apart() -> None:
    """A bucket refills from when it was seen."""
    seen = SeenLevels()
    one = bound(("requests", "day", 10))
    two = bound(("requests", "minute", 10))
    assert not seen.epoch("acme", "e1")
    seen.remember(one, admitted((10, 2, 1), now_ms=1), 5.0)
    seen.remember(two, admitted((10, 3, 1), now_ms=2), 5.0)
    assert seen.epoch("acme", "e2")
    assert [(each.seen_ms, each.limits[0].id) for each in seen.to_restore("acme")] == [
        (1, "t:requests-day"),
        (2, "t:requests-minute"),
    ]


def test_a_server_in_doubt_is_told_every_level() -> None:
    """The epoch may be the same; tenant by tenant, once."""
    seen = SeenLevels()
    assert not seen.epoch("acme", "e1")
    last = admitted((10, 2, 1), (100, 50, 1))
    seen.remember(BOUND, last, 5.0)
    assert not seen.lost
    seen.doubt()
    assert list(seen.lost) == ["acme"]
    assert list(seen.to_restore("other")) == []
    assert list(seen.to_restore("acme")) == [Restore("acme", BOUND.limits, last.levels, 1_000_000)]
    assert not seen.lost


def test_the_epoch_that_a_restore_makes_is_no_loss() -> None:
    """It is the one from then on."""
    seen = SeenLevels()
    assert not seen.epoch("acme", "e1")
    seen.restored("acme", "e2")
    assert not seen.epoch("acme", "e2")
    seen.restored("acme", "")
    assert not seen.epoch("acme", "e3")


def test_of_two_levels_that_wait_the_higher_one_is_restored() -> None:
    """Whichever was seen first: a window by its use, a bucket by what its refill leaves of it."""
    seen = SeenLevels()
    early, late = admitted((10, 1, 1), (100, 10, 1)), admitted((10, 2, 1), (100, 40, 1), now_ms=1_060_000)
    for reply in (early, late):
        seen.remember(BOUND, reply, 5.0)
        seen.doubt()
    assert not list(seen.to_restore("other"))
    first, second = seen.to_restore("acme")
    assert (first.seen_ms, first.limits) == (1_000_000, BOUND.limits[:1])
    assert (second.seen_ms, second.limits) == (1_060_000, BOUND.limits[1:])
