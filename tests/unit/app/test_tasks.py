"""Background tasks that do not die unseen."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.app import tasks
from gateway.app.tasks import BackgroundTasks


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "BACKOFF_S", (0.0,))


def test_a_task_that_fails_or_ends_is_logged_and_runs_again(caplog: pytest.LogCaptureFixture) -> None:
    """Each time, with its name."""
    runs: list[int] = []
    enough = asyncio.Event()

    async def work() -> None:
        runs.append(len(runs))
        if len(runs) == 1:
            raise ValueError
        if len(runs) == 3:
            enough.set()
            await asyncio.Event().wait()

    async def main() -> None:
        background = BackgroundTasks()
        background.keep_running("the watch", work)
        await asyncio.wait_for(enough.wait(), 5)
        await background.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert runs == [0, 1, 2]
    assert [("the watch" in record.message, record.levelname) for record in caplog.records] == [(True, "ERROR")] * 2


def test_closing_ends_every_task_and_waits_for_it() -> None:
    """After it nothing runs any more."""
    ended: list[str] = []

    async def main() -> None:
        background = BackgroundTasks()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append("done")

        background.keep_running("one", work)
        background.keep_running("two", work)
        await asyncio.sleep(0)
        await background.close()
        assert ended == ["done", "done"]

    asyncio.run(main())
