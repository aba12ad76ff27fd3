"""A real folder, changed while it is watched: what goes live, how soon, and what never breaks the watch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import monotonic
from gateway.errors import RegistryInvalid
from gateway.registry import FolderRegistry, LoadResult, claims, load_folder
from gateway.registry.files import UnreadableFile
from gateway.settings import SecretReader, Settings
from tests.support.documents import Document, api_key, backend, document, echo_backend, scenario, tenant

LIVE_WITHIN_S = 2.0


class Watched:
    """A registry folder with a watch on it, as the gateway keeps one."""

    def __init__(self, path: Path, secrets_dir: Path) -> None:
        self.path = path
        self.secrets_dir = secrets_dir
        self.reloads: list[LoadResult] = []
        secrets = SecretReader(Settings.load(secrets_dir=secrets_dir))
        self.registry = FolderRegistry(path, secrets, poll_s=0.5, on_reload=self.reloads.append)

    def write(self, name: str, *documents: Document | str) -> None:
        """Write a file in one step, as an editor or a deployment does."""
        texts = [item if isinstance(item, str) else json.dumps(item) for item in documents]
        fresh = self.path / f".{name}.new"
        fresh.write_text("\n---\n".join(texts), encoding="utf-8")
        fresh.replace(self.path / name)

    async def until(self, condition: Callable[[], bool], within_s: float = LIVE_WITHIN_S) -> None:
        """Wait for a condition, or fail at the deadline."""
        deadline = monotonic() + within_s
        while not condition():
            assert monotonic() < deadline, "not in time"
            await asyncio.sleep(0.01)

    def described(self, text: str) -> Callable[[], bool]:
        """Return whether the scenario ``chat`` has this description, as a condition."""
        return lambda: self.registry.snapshot.scenarios["chat"].description == text

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the watch running."""
        task = asyncio.create_task(self.registry.run())
        try:
            yield
            assert not task.done(), "the watch ended"
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A folder with one scenario on the echo backend."""
    for name in ("registry", "secrets"):
        (tmp_path / name).mkdir()
    result = Watched(tmp_path / "registry", tmp_path / "secrets")
    result.write("base.yaml", echo_backend(), scenario("chat", "echo"), tenant(), api_key("key", "k" * 20))
    return result


def test_a_start_from_a_bad_folder_lists_everything(watched: Watched) -> None:
    """Start-up refuses a registry with any bad object, naming them all."""
    watched.write("bad.yaml", scenario("one", "nope"), scenario("two", "nope"))
    watched.write("worse.yaml", "a: [")
    with pytest.raises(RegistryInvalid) as caught:
        watched.registry.load()
    assert [(Path(problem.source).name, problem.object) for problem in caught.value.problems] == [
        ("bad.yaml", "Scenario/one"),
        ("bad.yaml", "Scenario/two"),
        ("worse.yaml", ""),
    ]
    assert watched.registry.snapshot.generation == 0


def test_a_start_from_no_folder_is_refused(watched: Watched) -> None:
    """A registry that is not there is not an empty one."""
    missing = Watched(watched.path / "missing", watched.secrets_dir)
    with pytest.raises(RegistryInvalid):
        missing.registry.load()


def test_changes_go_live_in_time(watched: Watched) -> None:
    """An edited, a new and a deleted file are each live within two seconds, and each is reported once."""

    async def main() -> None:
        watched.registry.load()
        first = watched.registry.snapshot
        async with watched.running():
            watched.write("more.yaml", scenario("new", "echo"))
            await watched.until(lambda: "new" in watched.registry.snapshot.tenants["acme"].scenarios)
            watched.write("more.yaml", scenario("new", "echo", description="changed"))
            await watched.until(lambda: watched.registry.snapshot.scenarios["new"].description == "changed")
            (watched.path / "more.yaml").unlink()
            await watched.until(lambda: "new" not in watched.registry.snapshot.scenarios)
        assert [result.snapshot.generation for result in watched.reloads] == [2, 3, 4]
        assert watched.registry.snapshot.hash == first.hash
        assert watched.registry.snapshot.backends["echo"] is first.backends["echo"]

    asyncio.run(main())


def _mount(path: Path, version: str, files: dict[str, list[Document]]) -> None:
    """Publish files as the kubelet does: a new hidden folder, then one swap of the link ``..data``."""
    folder = path / f"..{version}"
    folder.mkdir()
    for name, documents in files.items():
        (folder / name).write_text("\n---\n".join(map(json.dumps, documents)), encoding="utf-8")
    fresh = path / "..data_tmp"
    fresh.symlink_to(folder.name)
    fresh.rename(path / "..data")
    for name in files:
        link = path / name
        if not link.is_symlink():
            link.symlink_to(f"..data/{name}")
    for link in path.iterdir():
        if link.is_symlink() and not link.name.startswith("..") and link.name not in files:
            link.unlink()


def test_a_config_map_is_swapped_while_it_serves(watched: Watched) -> None:
    """Each swap of ``..data`` is live within two seconds, whole: no file is missed, none is lost on the way."""

    async def main() -> None:
        (watched.path / "base.yaml").unlink()
        base = [tenant(), api_key("key", "k" * 20)]
        _mount(
            watched.path,
            "v1",
            {"b.yaml": [echo_backend(maxOutputTokens=1)], "t.yaml": [scenario("chat", "echo"), *base]},
        )
        watched.registry.load()
        async with watched.running():
            for version in range(2, 5):
                files = {
                    "b.yaml": [echo_backend(maxOutputTokens=version)],
                    "t.yaml": [scenario("chat", "echo", description=f"v{version}"), *base],
                }
                _mount(watched.path, f"v{version}", files)
                wanted = watched.described(f"v{version}")
                await watched.until(wanted)
                chat = watched.registry.snapshot.tenants["acme"].scenarios["chat"]
                assert chat.targets[0].backend.max_output_tokens == version
            _mount(watched.path, "last", {"all.yaml": [echo_backend(), scenario("chat", "echo"), *base]})
            await watched.until(lambda: watched.registry.snapshot.backends["echo"].max_output_tokens == 4096)
        assert all(not result.problems for result in watched.reloads)
        assert all(len(result.snapshot.keys) == 1 for result in watched.reloads)

    asyncio.run(main())


def test_a_bad_change_is_reported_once_and_the_last_good_version_serves(watched: Watched) -> None:
    """A broken file changes nothing that serves, is reported with its place, and heals."""

    async def main() -> None:
        watched.registry.load()
        good = watched.registry.snapshot
        async with watched.running():
            watched.write("base.yaml", "kind: [")
            await watched.until(lambda: bool(watched.reloads))
            assert "is not valid YAML: line " in watched.reloads[0].problems[0].reason
            assert watched.registry.snapshot.keys == good.keys
            assert watched.registry.snapshot.object_counts["ApiKey", "stale"] == 1
            watched.write("base.yaml", echo_backend(), scenario("chat", "echo"), tenant(), api_key("key", "k" * 20))
            await watched.until(lambda: len(watched.reloads) == 2)
            assert watched.reloads[1].problems == ()
            assert watched.registry.snapshot.hash == good.hash

    asyncio.run(main())


def test_a_folder_that_goes_and_comes_back(watched: Watched) -> None:
    """While the folder is away everything serves; when it is back its changes go live."""

    async def main() -> None:
        watched.registry.load()
        away = watched.path.with_name("away")
        async with watched.running():
            watched.path.rename(away)
            await watched.until(lambda: bool(watched.reloads))
            assert len(watched.registry.snapshot.keys) == 1
            assert watched.reloads[-1].problems
            away.rename(watched.path)
            watched.write("more.yaml", scenario("new", "echo"))
            await watched.until(lambda: "new" in watched.registry.snapshot.scenarios)
            assert watched.reloads[-1].problems == ()

    asyncio.run(main())


def test_a_rotated_secret_file_goes_live(watched: Watched) -> None:
    """A secret file that changes, goes or appears is seen although no document changed."""

    async def main() -> None:
        key = watched.secrets_dir / "qwen"
        key.write_text("one\n")
        auth = {"type": "bearer", "secret": {"file": "qwen"}}
        watched.write("b.yaml", backend("qwen", "http://127.0.0.1:1/v1", auth=auth))
        watched.registry.load()

        def sent() -> bytes:
            return watched.registry.snapshot.backends["qwen"].headers[0][1]

        assert sent() == b"Bearer one"
        async with watched.running():
            key.write_text("two")
            await watched.until(lambda: sent() == b"Bearer two")
            key.unlink()
            await watched.until(lambda: bool(watched.reloads[-1].problems))
            assert sent() == b"Bearer two"
            key.write_text("three")
            await watched.until(lambda: sent() == b"Bearer three")
            assert watched.reloads[-1].problems == ()

    asyncio.run(main())


def test_a_slow_writer_never_takes_an_object_away(watched: Watched) -> None:
    """A file that is written piece by piece takes nothing away before it is whole, and then goes live."""

    async def main() -> None:
        watched.registry.load()
        prompt = document("Prompt", "new.v1", {"template": "x"})
        items = [echo_backend(), scenario("chat", "echo"), tenant(), api_key("key", "k" * 20), prompt]
        halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in map(json.dumps, items)]
        async with watched.running():
            with (watched.path / "base.yaml").open("w", encoding="utf-8") as file:
                for first, second in halves:
                    file.write(first)
                    file.flush()
                    await asyncio.sleep(0.02)
                    assert watched.registry.snapshot.keys
                    file.write(second + "\n---\n")
            await watched.until(lambda: watched.registry.snapshot.object_counts["Prompt", "live"] == 1)
        assert all(result.snapshot.keys for result in watched.reloads)

    asyncio.run(main())


def test_the_watch_survives_whatever_happens(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that fails for a reason nobody thought of, and a report that fails, end nothing."""

    async def main() -> None:
        watched.registry.load()
        good = watched.registry.snapshot

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        async with watched.running():
            monkeypatch.setattr("gateway.registry.folder.load_folder", fail)
            watched.write("more.yaml", scenario("new", "echo"))
            await watched.until(lambda: bool(watched.reloads))
            assert watched.reloads[0].problems[0].reason == "could not be loaded: ZeroDivisionError"
            assert watched.registry.snapshot is good
            monkeypatch.undo()
            await watched.until(lambda: "new" in watched.registry.snapshot.scenarios)
            watched.registry._on_reload = fail
            watched.write("more.yaml", scenario("newer", "echo"))
            await watched.until(lambda: "newer" in watched.registry.snapshot.scenarios)
            watched.write("more.yaml", scenario("newest", "echo"))
            await watched.until(lambda: "newest" in watched.registry.snapshot.scenarios)

    asyncio.run(main())


def test_a_file_that_could_not_be_read_is_tried_again(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A passing failure to read, which leaves no mark on the file, heals by itself and is reported once."""

    async def main() -> None:
        watched.registry.load()
        async with watched.running():

            def refuse(*_: object) -> bytes:
                raise UnreadableFile("cannot be read: Too many open files")

            monkeypatch.setattr(claims, "read_file", refuse)
            watched.write("base.yaml", echo_backend(maxOutputTokens=7), scenario("chat", "echo"), tenant())
            await watched.until(lambda: bool(watched.reloads))
            assert len(watched.registry.snapshot.keys) == 1
            monkeypatch.undo()
            await watched.until(lambda: watched.registry.snapshot.backends["echo"].max_output_tokens == 7)
            assert [bool(result.problems) for result in watched.reloads] == [True, False]

    asyncio.run(main())


def test_a_reload_does_not_run_on_the_loop(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are served while a registry is loaded: the load is on a thread of its own, its report is not."""
    threads: list[int] = []

    def load_and_note(*arguments: Any) -> LoadResult:
        threads.append(threading.get_ident())
        return load_folder(*arguments)

    async def main() -> None:
        watched.registry.load()
        monkeypatch.setattr("gateway.registry.folder.load_folder", load_and_note)
        watched.registry._on_reload = lambda _: threads.append(threading.get_ident())
        async with watched.running():
            watched.write("more.yaml", scenario("new", "echo"))
            await watched.until(lambda: len(threads) == 2)
        assert threads[0] != threading.get_ident()
        assert threads[1] == threading.get_ident()

    asyncio.run(main())


def test_a_folder_that_cannot_be_read_is_not_seen(watched: Watched) -> None:
    """When the registry was last seen stands still while the folder is gone, and goes on when it is back."""
    seen: list[float] = []

    async def looks(count: int) -> None:
        before = len(seen)
        await watched.until(lambda: len(seen) >= before + count, 5.0)

    async def main() -> None:
        watched.registry.load()
        watched.registry._on_seen = lambda: seen.append(monotonic())
        watched.registry._poll_s = 0.02
        async with watched.running():
            await looks(2)
            away = watched.path.rename(watched.path.with_name("away"))
            await watched.until(lambda: bool(watched.reloads), 5.0)  # the loss is told of
            before = len(seen)
            await asyncio.sleep(0.2)  # in which ten looks find nothing to read
            assert len(seen) == before
            away.rename(watched.path)
            await looks(2)

    asyncio.run(main())
