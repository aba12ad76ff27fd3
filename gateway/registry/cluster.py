"""The custom resources of one namespace and the snapshot made of them, kept live by watches.

Invariants:
- Nothing is served before every kind, and the Secrets with their label, were listed whole; afterwards an outage changes
  nothing but ``heard_at``.
- A load runs when a spec or a Secret changed, never for a change of a status, and takes at most half of the time.
- Watches run in threads (``gateway.kube.listwatch``), loads beside the event loop; both end with ``run``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.clock import monotonic, wall
from gateway.errors import KubernetesFailure
from gateway.kube.listwatch import ListWatch, Object, Objects, Resource, WatchOptions
from gateway.model import Frozen
from gateway.registry.credentials import ClusterSecrets, prune_secret
from gateway.registry.documents import Kind
from gateway.registry.load import NOTHING_LOADED, LoadResult, LoadState, load_claims
from gateway.registry.parse import KINDS, ObjectId
from gateway.registry.resources import CREDENTIAL_LABEL, PLURALS, Parsed, claims_of, collection, parse_all

if TYPE_CHECKING:
    from gateway.kube.listwatch import Client

_log = logging.getLogger("gateway.registry")

SETTLE_S: Final = 0.02
"""How long a load waits for changes that come together; more of them wait for its end."""

PAUSE_MAX_S: Final = 0.5
"""The longest pause after a load, as long as it took; far below the two seconds in which a revocation holds."""

TICK_S: Final = 5.0
"""How often it is noted how fresh the registry is."""

STOP_S: Final = 2.0


class View(Frozen, frozen=True):
    """What the cluster held at one moment, and what was made of it."""

    parsed: Mapping[ObjectId, Parsed]
    result: LoadResult


class Listener(NamedTuple):
    """Who is told. ``on_load`` is called on the event loop after every load.

    ``on_seen`` is called there with the monotonic seconds as of which the registry is known to be current.
    ``on_view`` is called in another thread, after each load and after each change of a status.
    """

    on_load: Callable[[LoadResult], None]
    on_seen: Callable[[float], None]
    on_view: Callable[[View], None]


class ClusterRegistry:
    """The resources of ``namespace``; ``state`` is that of the last load, where there was one before."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        options: WatchOptions,
        listener: Listener,
        state: LoadState = NOTHING_LOADED,
    ) -> None:
        self._listener = listener
        self._watches: dict[Kind, ListWatch] = {
            kind: ListWatch(client, Resource(path=collection(PLURALS[kind], namespace)), self._changed, options)
            for kind in KINDS
        }
        secrets = Resource(path=f"/api/v1/namespaces/{namespace}/secrets", label_selector=CREDENTIAL_LABEL)
        self._secrets = ListWatch(client, secrets, self._changed, options, prune=_pruned)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.routing_headers: frozenset[str] | None = None  # as in load_folder
        self._news = asyncio.Event()
        self._parsed: Mapping[ObjectId, Parsed] = MappingProxyType({})
        self._credentials: ClusterSecrets | None = None
        self._state = state
        self._result: LoadResult | None = None

    @property
    def waiting_for(self) -> list[str]:
        """What was not listed whole yet, with the reason where one is known."""
        return [
            f"{watch.resource.name}{f' ({watch.failure.text})' if watch.failure is not None else ''}"
            for watch in self._all()
            if watch.objects is None
        ]

    @property
    def heard_at(self) -> float | None:
        """Monotonic seconds as of which everything is known to be current; None before the first whole list."""
        heard = [watch.heard_at for watch in self._all()]
        known = [at for at in heard if at is not None]
        return min(known) if len(known) == len(heard) else None

    @property
    def failures(self) -> list[KubernetesFailure]:
        """What keeps watches from being current now."""
        return [watch.failure for watch in self._all() if watch.failure is not None]

    async def run(self) -> None:
        """Watch and load until cancelled."""
        self._loop = asyncio.get_running_loop()
        for watch in self._all():
            watch.start()
        try:
            while True:
                await self._turn()
        finally:
            for watch in self._all():
                watch.stop()

    async def _turn(self) -> None:
        try:
            async with asyncio.timeout(TICK_S):
                await self._news.wait()
        except TimeoutError:
            self._note_seen()
            return
        await asyncio.sleep(SETTLE_S)
        self._news.clear()
        began = monotonic()
        try:
            result = await asyncio.to_thread(self._load)
            if result is not None:
                self._listener.on_load(result)
        except Exception:  # noqa: BLE001  # what serves goes on serving, and the next change loads again
            _log.exception("the registry could not be loaded")
        self._note_seen()
        await asyncio.sleep(min(monotonic() - began, PAUSE_MAX_S))

    def _note_seen(self) -> None:
        heard_at = self.heard_at
        if heard_at is not None and self._result is not None:
            self._listener.on_seen(heard_at)

    def _changed(self, _objects: Objects) -> None:
        """Wake the loader; called in the threads of the watches."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    def _all(self) -> Iterable[ListWatch]:
        return (*self._watches.values(), self._secrets)

    def _load(self) -> LoadResult | None:
        """Load what is known now; None where nothing is to be told. Runs beside the event loop, one at a time."""
        secrets = self._secrets.objects
        objects = {kind: watch.objects for kind, watch in self._watches.items()}
        whole = {kind: found for kind, found in objects.items() if found is not None}
        if secrets is None or len(whole) < len(objects):
            return None
        before, credentials = self._parsed, ClusterSecrets(secrets)
        parsed = parse_all(whole, before)
        changed = credentials != self._credentials or _differ(parsed, before)
        if changed or self._result is None:
            self._result = load_claims(claims_of(parsed), credentials, self._state, wall(), self.routing_headers)
            self._state = self._result.state
        self._parsed, self._credentials = parsed, credentials
        self._listener.on_view(View(parsed=parsed, result=self._result))
        return self._result if changed else None


def _differ(one: Mapping[ObjectId, Parsed], other: Mapping[ObjectId, Parsed]) -> bool:
    if one.keys() != other.keys():
        return True
    return any(item.candidate is not other[object_id].candidate for object_id, item in one.items())


def _pruned(secret: Object) -> Object:
    return dict(prune_secret(secret))
