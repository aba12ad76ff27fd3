"""Cleanup: each callback once, last in first out, whatever the others raise."""

from __future__ import annotations

import pytest

from gateway.cleanup import Cleanup


def test_runs_each_once_in_reverse() -> None:
    """The last thing taken is the first given back; a second close does nothing."""
    seen: list[int] = []
    cleanup = Cleanup()
    for number in range(3):
        cleanup.push(seen.append, number)
    cleanup.close()
    cleanup.close()
    assert seen == [2, 1, 0]


def test_a_failing_callback_stops_no_other() -> None:
    """All run, then the failure goes on its way; the last one wins, with the earlier as its context."""
    seen: list[str] = []

    def fail(text: str) -> None:
        seen.append(text)
        raise ValueError(text)

    cleanup = Cleanup()
    cleanup.push(seen.append, "first")
    cleanup.push(fail, "second")
    cleanup.push(fail, "third")
    with pytest.raises(ValueError, match="second") as caught:
        cleanup.close()
    assert seen == ["third", "second", "first"]
    assert str(caught.value.__context__) == "third"
    cleanup.close()


def test_what_is_pushed_while_closing_runs_too() -> None:
    """A callback may leave another one behind."""
    seen: list[str] = []
    cleanup = Cleanup()
    cleanup.push(lambda: cleanup.push(seen.append, "late"))
    cleanup.close()
    assert seen == ["late"]


def test_a_callback_may_close_again() -> None:
    """Closing within the close runs the rest and nothing twice."""
    seen: list[str] = []
    cleanup = Cleanup()
    cleanup.push(seen.append, "first")
    cleanup.push(cleanup.close)
    cleanup.close()
    assert seen == ["first"]
