"""The public keys of token issuers: which key may verify what, and how long a fetched set of keys is kept.

Invariants:
- The key decides how it is used: by its ``alg``, else by its type and curve. A token can only name one of those uses.
- Whatever callers send, an issuer is asked at most once per refresh interval, by one task that all callers share.
- Keys that are known stay in use while the issuer cannot be asked; only its own answer replaces them.

Formats: RFC 7517 (JWK), RFC 7518 (the algorithms). Nothing here reads a token or speaks HTTP.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Collection, Container, Iterator, Mapping
from typing import Any, Final, Protocol

import msgspec

from gateway.clock import monotonic
from gateway.model import Frozen

_log = logging.getLogger("gateway.auth")

_RSA_ALGORITHMS = ("RS256", "RS384", "RS512")
_CURVE_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_RSA_BITS = range(2048, 16385)  # RFC 7518, 3.3 demands the least; more would take long to verify
_EXPONENT_BITS_MAX = 32

LOOK_S: Final = 1.0
"""How often it is looked for issuers whose keys are to be fetched."""

FETCHES_MAX: Final = 32
"""Fetches at a time that no token waits for."""


class FetchFailed(Exception):
    """An issuer's keys could not be had; the text is for operators and quotes nothing that was received."""


class VerificationKey(Protocol):
    """A public key bound to one algorithm."""

    def verify(self, msg: bytes, sig: bytes) -> bool:
        """Whether ``sig`` is this key's signature of ``msg``."""


class KeySet(Frozen, frozen=True):
    """An issuer's usable keys, by key id (None where a token names none) and algorithm."""

    keys: Mapping[tuple[str | None, str], VerificationKey] = {}
    kids: frozenset[str | None] = frozenset()

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """The key of this id if it may be used so; without an id, the only key that may be used so."""
        return self.keys.get((kid, algorithm))

    def knows(self, kid: str | None) -> bool:
        """Whether there is a key of this id, for whatever use."""
        return kid in self.kids


class KeyOptions(Frozen, frozen=True):
    """How long keys are kept before they are asked for again, and how often an issuer is asked at most; seconds."""

    ttl_s: float = 600.0
    refresh_interval_s: float = 10.0


class _Known:
    """What is known of one issuer."""

    __slots__ = ("asked_at", "document", "failing", "fetched_at", "keys", "task")

    def __init__(self) -> None:
        self.keys = KeySet()
        self.document = b""
        self.asked_at = self.fetched_at = float("-inf")
        self.failing = False
        self.task: asyncio.Task[None] | None = None


def _tell_nobody(_issuer: str, _ok: bool) -> None:
    return None


class IssuerKeys:
    """The keys of every issuer that was asked for. ``fetch`` gives an issuer's JWKS document or raises FetchFailed.

    ``fetched`` is told of each fetch: the issuer, and whether keys could be read from what it gave.
    """

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[bytes]],
        options: KeyOptions,
        clock: Callable[[], float] = monotonic,
        fetched: Callable[[str, bool], None] = _tell_nobody,
    ) -> None:
        self._fetch = fetch
        self._options = options
        self._clock = clock
        self._fetched = fetched
        self._known: dict[str, _Known] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, served: Callable[[], Collection[str]]) -> None:
        """Keep the keys of all issuers that the registry names, before a token needs them; until cancelled."""
        while True:
            issuers = served()
            for issuer in issuers:
                if len(self._tasks) >= FETCHES_MAX:
                    break
                known = self._state(issuer, issuers)
                if self._is_old(known):
                    self._ask(issuer, known)
            await asyncio.sleep(LOOK_S)

    async def of(self, issuer: str, kid: str | None, served: Container[str]) -> KeySet:
        """The keys of ``issuer``, asked for anew where ``kid`` is unknown and the interval allows it.

        ``served`` are the issuers that the registry names; what is known of any other is forgotten.
        """
        known = self._state(issuer, served)
        if not known.keys.knows(kid):
            task = self._ask(issuer, known)
            if task is not None:
                await asyncio.wait((task,))  # it goes on if this caller leaves: others may wait for it
        elif self._is_old(known):
            self._ask(issuer, known)
        return known.keys

    async def close(self) -> None:
        """Give up what is being fetched."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _state(self, issuer: str, served: Container[str]) -> _Known:
        known = self._known.get(issuer)
        if known is None:
            self._known = {name: item for name, item in self._known.items() if name in served}
            known = self._known[issuer] = _Known()
        return known

    def _is_old(self, known: _Known) -> bool:
        return self._clock() - known.fetched_at >= self._options.ttl_s

    def _ask(self, issuer: str, known: _Known) -> asyncio.Task[None] | None:
        """The task that asks the issuer, started if the interval allows it; None where it does not."""
        if known.task is None and self._clock() - known.asked_at >= self._options.refresh_interval_s:
            known.asked_at = self._clock()
            known.task = asyncio.get_running_loop().create_task(self._refresh(issuer, known), name="fetch JWKS")
            self._tasks.add(known.task)
            known.task.add_done_callback(self._tasks.discard)
        return known.task

    async def _refresh(self, issuer: str, known: _Known) -> None:
        try:
            document = await self._fetch(issuer)
            if document != known.document:  # the same keys stay the same objects
                known.keys = await asyncio.to_thread(parse_key_set, document)
                known.document = document
        except FetchFailed as error:
            self._note(issuer, known, str(error))
        except Exception:  # noqa: BLE001  # whatever went wrong, the known keys go on and the next interval tries again
            _log.exception("the keys of issuer %s could not be read", issuer)
            known.failing = True
            self._fetched(issuer, False)
        else:
            known.fetched_at = self._clock()
            self._note(issuer, known, "")
        finally:
            known.task = None

    def _note(self, issuer: str, known: _Known, failure: str) -> None:
        """One line for each change between an issuer that answers and one that does not."""
        self._fetched(issuer, not failure)
        if failure and not known.failing:
            meanwhile = "those known stay in use" if known.keys.kids else "its tokens are refused until it gives some"
            _log.warning("no keys from issuer %s: %s; %s", issuer, failure, meanwhile)
        elif known.failing and not failure:
            _log.warning("issuer %s gives its keys again", issuer)
        known.failing = bool(failure)


def parse_key_set(document: bytes) -> KeySet:
    """Read a JWKS document; raises FetchFailed where it is none. Keys that cannot be used are left out.

    Takes milliseconds, and hundreds of them the first time, since it imports the cryptography: call it in a thread.
    """
    try:
        entries = msgspec.json.decode(document, type=dict[str, Any])["keys"]
    except (msgspec.MsgspecError, KeyError, ValueError, RecursionError):
        raise FetchFailed("its key set is not a JSON object with keys") from None
    if not isinstance(entries, list):
        raise FetchFailed("the keys of its key set are no list")
    by_id: dict[tuple[str | None, str], VerificationKey] = {}
    by_use: dict[str, list[VerificationKey]] = {}
    for entry in entries:
        for algorithm, key in _usable(entry):
            by_use.setdefault(algorithm, []).append(key)
            kid = entry.get("kid")
            if isinstance(kid, str):
                by_id.setdefault((kid, algorithm), key)
    kids: set[str | None] = {kid for kid, _ in by_id} | ({None} if by_use else set())
    only = {(None, algorithm): keys[0] for algorithm, keys in by_use.items() if len(keys) == 1}
    return KeySet(keys=by_id | only, kids=frozenset(kids))


def _usable(entry: Any) -> Iterator[tuple[str, VerificationKey]]:
    """The uses of one JWK, each with its key; none where it is malformed, weak or not for signatures."""
    from jose import jwk

    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "verify" not in _operations(entry):
        return
    public = {name: entry.get(name) for name in ("kty", "n", "e", "crv", "x", "y") if name in entry}
    for algorithm in _algorithms(entry):
        try:
            yield algorithm, jwk.construct(public, algorithm)
        except Exception:  # noqa: BLE001  # of whatever kind its fault is, this key alone is left out
            return


def _operations(entry: Mapping[str, Any]) -> list[Any]:
    operations = entry.get("key_ops", ["verify"])
    return operations if isinstance(operations, list) else []


def _algorithms(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """What a key may be used for: its ``alg`` alone where it has one, and nothing that its type does not fit."""
    fitting: tuple[str, ...] = ()
    if entry.get("kty") == "RSA" and _is_strong(entry):
        fitting = _RSA_ALGORITHMS
    elif entry.get("kty") == "EC" and isinstance(entry.get("crv"), str):
        fitting = tuple(alg for crv, alg in _CURVE_ALGORITHMS.items() if crv == entry["crv"])
    stated = entry.get("alg")
    return fitting if stated is None else tuple(alg for alg in fitting if alg == stated)


def _is_strong(entry: Mapping[str, Any]) -> bool:
    """Whether an RSA key is long enough to trust and short enough to compute with."""
    modulus, exponent = _bits(entry.get("n")), _bits(entry.get("e"))
    return modulus in _RSA_BITS and 2 <= exponent <= _EXPONENT_BITS_MAX


def _bits(number: Any) -> int:
    """The length of a Base64urlUInt (RFC 7518, 2); 0 where it is none."""
    if not isinstance(number, str):
        return 0
    try:
        raw = base64.urlsafe_b64decode(number + "=" * (-len(number) % 4))
    except ValueError:
        return 0
    return int.from_bytes(raw, "big").bit_length()
