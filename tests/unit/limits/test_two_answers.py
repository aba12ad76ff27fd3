"""The admission of a call whose answer may be asked for again."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gateway.limits import End
from gateway.model import Usage
from tests.unit.limits.door import REQUEST, Door, run
from tests.unit.limits.fake_lane import admission, settled


@pytest.mark.parametrize(("keep", "had"), [(False, 1), (False, 2), (True, 2)])
def test_a_call_that_may_take_two_answers_reserves_for_both(keep: bool, had: int) -> None:
    """Input and output at the admission; the settlement learns from those that were had, or from both where the
    reservation is kept.
    """

    async def main() -> None:
        door = Door()
        door.lane.answer = lambda asked: admission() if asked.what == "admit" else settled()
        request = msgspec.structs.replace(REQUEST, answers=2, choices=3)
        await door.admit()
        lease = await door.admit(request=request)
        (one,), (two,) = (asked.calls for asked in door.lane.asked)
        assert (two[1], two[2], one[5], two[5]) == (2 * one[1], 2 * one[2], 1, 6)
        used = Usage(input_tokens=1, output_tokens=2)
        assert lease.settle(End(usage=used, backend="main", keep=keep, answers=1 if keep else had))
        await asyncio.sleep(0)
        (told,) = door.lane.asked[-1].calls
        assert (told[13], told[14]) == (had * one[1], 3 * had)

    run(main())
