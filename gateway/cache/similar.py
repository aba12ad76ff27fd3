"""Similar questions: an index of vectors in each process, filled from Redis, bounded, and never over two tenants.

A bucket holds the questions that differ in the text of the last user message alone; tenant, scenario, prompt version
and parameters are in its name. In Redis it is a capped stream of vectors and digests of answers, read on from where a
process has come to; the answers themselves are kept as those to the same question are, and are purged and expire like
them. Similarity is the cosine of two vectors, by simsimd, which is imported when a scenario first needs it.
"""

from __future__ import annotations

import array
import asyncio
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway.model import Frozen
from gateway.redis import names

if TYPE_CHECKING:
    from gateway.cache.key import Way

DIMENSIONS_MAX: Final = 8192
_FLOAT_BYTES: Final = 4
_LENGTH_MIN: Final = 1e-15
_LENGTH_MAX: Final = 1e15
_READ_AT_ONCE: Final = 128
_DIGEST, _VECTOR = b"d", b"v"


class Sending(Protocol):
    """What is asked of the lane to Redis."""

    def send(self, *parts: bytes | str | int) -> asyncio.Future[Any]:
        """One command."""


class IndexBounds(Frozen, frozen=True):
    """``bucket_max`` vectors of one bucket, ``tenant_max`` of all buckets of a tenant in one process."""

    bucket_max: int = 1000
    tenant_max: int = 10_000


class Nearest(Frozen, frozen=True):
    """The most similar question: the digest of its answer, and how similar it is."""

    digest: bytes
    similarity: float


class Bucket:
    """The vectors of one bucket, the oldest first; all of one length, which the first one decides."""

    __slots__ = ("_bytes_each", "_digests", "_max", "_vectors", "last_id")

    def __init__(self, vectors_max: int) -> None:
        self._max = vectors_max
        self._vectors = bytearray()
        self._digests: list[bytes] = []
        self._bytes_each = 0
        self.last_id = b"-"

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, digest: bytes, vector: bytes) -> None:
        """One more; one of another length, or of none, is left out, and beyond the bound the oldest goes."""
        if not vector or len(vector) % _FLOAT_BYTES or len(vector) > DIMENSIONS_MAX * _FLOAT_BYTES:
            return
        self._bytes_each = self._bytes_each or len(vector)
        if len(vector) != self._bytes_each:
            return
        self._vectors += vector
        self._digests.append(digest)
        if len(self._digests) > self._max:
            del self._vectors[: self._bytes_each]
            del self._digests[0]

    def nearest(self, vector: bytes) -> Nearest | None:
        """The most similar one, the latest of equals; None where there is none to compare with."""
        if not self._digests or len(vector) != self._bytes_each:
            return None
        distances = _distances(vector, bytes(self._vectors), len(self._digests))
        place = min(range(len(distances)), key=lambda place: (distances[place], -place))
        return Nearest(digest=self._digests[place], similarity=1.0 - distances[place])


def _distances(vector: bytes, vectors: bytes, count: int) -> list[float]:
    """The cosine distances of a vector to so many others, in 0..2."""
    import simsimd  # two megabytes that few gateways need

    width = len(vector) // _FLOAT_BYTES
    one = memoryview(vector).cast("f", (1, width))
    many = memoryview(vectors).cast("f", (count, width))
    distances: Any = simsimd.cdist(one, many, metric="cosine")
    rows: Any = memoryview(distances).tolist()
    return [float(each) for each in rows[0]]


class SimilarAnswers:
    """The index of one process."""

    def __init__(self, lane: Sending, bounds: IndexBounds) -> None:
        self._lane = lane
        self._bounds = bounds
        self._tenants: dict[str, OrderedDict[bytes, Bucket]] = {}

    async def nearest(self, way: Way, vector: bytes) -> Nearest | None:
        """The most similar question of the same bucket. Raises RedisFailure."""
        assert way.question is not None
        name = way.question.bucket
        bucket = self._bucket(way.tenant, name)
        try:
            await self._read_on(names.cache_questions(way.tenant, name.hex()), bucket)
        finally:
            self._bound(way.tenant, name, bucket)
        return bucket.nearest(vector)

    def add(self, way: Way, vector: bytes) -> list[asyncio.Future[Any]]:
        """Have a question that was answered found by others. The futures raise RedisFailure."""
        assert way.question is not None
        key = names.cache_questions(way.tenant, way.question.bucket.hex())
        parts = ("XADD", key, "MAXLEN", self._bounds.bucket_max, "*", _DIGEST, way.digest, _VECTOR, vector)
        ttl_ms = max(int(way.policy.ttl_s * 1000), 1)
        return [self._lane.send(*parts), self._lane.send("PEXPIRE", key, ttl_ms)]

    def _bucket(self, tenant: str, name: bytes) -> Bucket:
        buckets = self._tenants.setdefault(tenant, OrderedDict())
        bucket = buckets.get(name)
        if bucket is None:
            bucket = buckets[name] = Bucket(self._bounds.bucket_max)
        buckets.move_to_end(name)
        return bucket

    def _bound(self, tenant: str, name: bytes, bucket: Bucket) -> None:
        """Forget this bucket if nothing is in it, and the buckets of a tenant that were not asked for the longest.

        Each turn of a conversation has a bucket of its own, and few of them are ever asked for again.
        """
        buckets = self._tenants.get(tenant, OrderedDict())
        if not len(bucket) and buckets.get(name) is bucket:
            del buckets[name]
        while len(buckets) > 1 and sum(map(len, buckets.values())) > self._bounds.tenant_max:
            buckets.popitem(last=False)
        if not buckets:
            self._tenants.pop(tenant, None)

    async def _read_on(self, key: bytes, bucket: Bucket) -> None:
        """Take what was added since."""
        for _ in range(self._bounds.bucket_max // _READ_AT_ONCE + 1):
            since = bucket.last_id
            start = since if since == b"-" else b"(" + since
            entries = await self._lane.send("XRANGE", key, start, "+", "COUNT", _READ_AT_ONCE)
            if bucket.last_id != since:
                return  # another call of this process has read on meanwhile
            for entry_id, fields in entries:
                bucket.last_id = entry_id
                given = dict(zip(fields[::2], fields[1::2], strict=True))
                bucket.add(given.get(_DIGEST, b""), given.get(_VECTOR, b""))
            if len(entries) < _READ_AT_ONCE:
                return


def packed(numbers: Sequence[float]) -> bytes:
    """A vector as it is kept: floats of 4 bytes. Raises ValueError for none, or too many, or no direction.

    A vector of zeros, or one whose square such a float cannot hold, would be as similar as can be to any other.
    """
    if not 0 < len(numbers) <= DIMENSIONS_MAX:
        raise ValueError(f"a vector of {len(numbers)} numbers")
    if not _LENGTH_MIN < math.hypot(*numbers) < _LENGTH_MAX:
        raise ValueError("a vector of a length that cannot be compared")
    return array.array("f", numbers).tobytes()
