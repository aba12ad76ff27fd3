"""The registry of a folder, kept live: polled for change, loaded in a thread, swapped in one assignment.

Invariant: ``snapshot`` is always a complete, good snapshot. Whatever happens to the folder or to a load, the last one
stays until a better one is ready. Nothing here decides what is valid (see ``load``).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from gateway.clock import wall
from gateway.errors import RegistryInvalid
from gateway.model import Frozen, Problem, Snapshot
from gateway.registry.compile_auth import SecretSource
from gateway.registry.files import Listing, list_folder
from gateway.registry.load import NOTHING_LOADED, LoadResult, load_folder

SETTLE_S = 0.05
"""A change is loaded once the folder has looked the same for this long, so that half a write is not read."""

SETTLE_TRIES = 5
"""After so many looks at a folder that keeps changing, it is loaded as it is."""

_log = logging.getLogger(__name__)


class _Seen(Frozen, frozen=True):
    """What a change is seen by: the marks of the files, and the digests of the secret files that backends name."""

    listing: Listing
    secrets: tuple[tuple[str, bytes], ...]


class _Loaded(Frozen, frozen=True):
    """A load, and what was seen of the folder before it."""

    result: LoadResult
    seen: _Seen


class FolderRegistry:
    """A folder of documents and the snapshot made of it.

    ``poll_s`` (seconds, > 0) is how often the folder is looked at; ``routing_headers`` is as in ``load_folder``.
    ``on_reload`` is called on the event loop after every reload by ``run``, good or failed; what it raises is logged.
    ``on_seen`` is called after every look by which the whole folder could be read.
    """

    def __init__(
        self,
        folder: Path,
        secrets: SecretSource,
        *,
        poll_s: float = 1.0,
        routing_headers: frozenset[str] | None = None,
        on_reload: Callable[[LoadResult], None] | None = None,
        on_seen: Callable[[], None] | None = None,
    ) -> None:
        self.snapshot: Snapshot = NOTHING_LOADED.snapshot
        self._folder = folder
        self._secrets = secrets
        self._poll_s = poll_s
        self._routing_headers = routing_headers
        self._on_reload = on_reload
        self._on_seen = on_seen
        self._last: _Loaded | None = None

    def load(self) -> LoadResult:
        """Load for the first time; raises RegistryInvalid, listing every problem, when there is any."""
        loaded = self._load(list_folder(self._folder))
        if loaded.result.problems:
            raise RegistryInvalid(loaded.result.problems)
        self._adopt(loaded)
        return loaded.result

    async def run(self) -> None:
        """Watch until cancelled. A load that fails is reported to ``on_reload`` and tried again at the next poll."""
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                result = await self._reload_if_changed()
                if result is not None and self._on_reload is not None:
                    self._on_reload(result)
            except Exception:  # noqa: BLE001  # neither a fault in one load nor one in its report may end the watch
                _log.exception("the reload of the registry could not be reported")

    async def _reload_if_changed(self) -> LoadResult | None:
        """Load if anything changed; None where there is nothing new to tell. Never raises."""
        try:
            seen = await asyncio.to_thread(self._look)
            changed = self._last is None or seen != self._last.seen
            if not changed and not self._must_retry():
                self._seen_whole(seen.listing)
                return None
            loaded = await self._load_settled(seen)
        except Exception as error:  # noqa: BLE001  # what serves goes on serving, and the next poll tries again
            _log.exception("the registry could not be loaded")
            return self._failed(error)
        news = changed or self._last is None or loaded.result.problems != self._last.result.problems
        self._adopt(loaded)
        self._seen_whole(loaded.seen.listing)
        return loaded.result if news else None

    async def _load_settled(self, seen: _Seen) -> _Loaded:
        """Load once nothing moves: not while a file is being written, and not across the swap of a mounted volume."""
        for _ in range(SETTLE_TRIES):
            await asyncio.sleep(SETTLE_S)
            before, seen = seen, await asyncio.to_thread(self._look)
            if seen != before:
                continue
            loaded = await asyncio.to_thread(self._load, seen.listing)
            seen = await asyncio.to_thread(self._look)
            if seen.listing == loaded.seen.listing:
                return loaded
        return await asyncio.to_thread(self._load, seen.listing)

    def _load(self, listing: Listing) -> _Loaded:
        """Load, and note what was seen before it: a change during the load differs from that at the next poll."""
        secrets = _RecordedSecrets(self._secrets)
        state = self._last.result.state if self._last is not None else None
        result = load_folder(self._folder, secrets, state, wall(), self._routing_headers)
        return _Loaded(result=result, seen=_Seen(listing=listing, secrets=tuple(sorted(secrets.digests.items()))))

    def _adopt(self, loaded: _Loaded) -> None:
        self._last = loaded
        self.snapshot = loaded.result.snapshot

    def _must_retry(self) -> bool:
        """Tell whether a file was there and could not be read, which may pass without any mark of the file changing."""
        return self._last is not None and not all(file.readable for file in self._last.result.state.files.values())

    def _seen_whole(self, listing: Listing) -> None:
        if self._on_seen is not None and not listing.unlisted and not self._must_retry():
            self._on_seen()

    def _look(self) -> _Seen:
        names = [name for name, _ in self._last.seen.secrets] if self._last is not None else []
        return _Seen(listing=list_folder(self._folder), secrets=tuple(_digests(self._secrets, names)))

    def _failed(self, error: Exception) -> LoadResult:
        reason = f"could not be loaded: {type(error).__name__}"
        problem = Problem(source=str(self._folder), object="", field="", reason=reason)
        state = self._last.result.state if self._last is not None else NOTHING_LOADED
        return LoadResult(snapshot=self.snapshot, problems=(problem,), warnings=(), state=state)


class _RecordedSecrets:
    """A secret source that remembers the digest of each file it was asked for."""

    def __init__(self, source: SecretSource) -> None:
        self._source = source
        self.digests: dict[str, bytes] = {}

    @property
    def in_cluster(self) -> bool:
        return self._source.in_cluster

    def env(self, name: str) -> bytes:
        return self._source.env(name)

    def ref(self, name: str, key: str) -> bytes:
        return self._source.ref(name, key)

    def file(self, name: str) -> bytes:
        self.digests.setdefault(name, b"")
        value = self._source.file(name)
        self.digests[name] = hashlib.sha256(value).digest()
        return value


def _digests(source: SecretSource, names: Iterable[str]) -> list[tuple[str, bytes]]:
    """Return what the files hold now, in the order of the names; an unreadable one has no digest."""
    recorded = _RecordedSecrets(source)
    for name in names:
        with contextlib.suppress(Exception):  # a secret that cannot be read is a state too, reported by the load
            recorded.file(name)
    return sorted(recorded.digests.items())
