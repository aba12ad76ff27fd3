"""The soak of wrong keys: a million of them, each another one, and nothing of them may stay.

One gateway process with keys, an issuer of tokens and a Valkey is asked over and over with credentials that are wrong
in every way: keys of the right form that nobody has, malformed ones, several that differ, tokens of unknown issuers,
with unknown keys, wrong signatures, forbidden algorithms or garbage. Every one must be answered by the same 401, a
good caller must be served meanwhile, and neither the metrics nor the Valkey may know more than before.

That memory stayed flat is judged by the command only; ``run`` leaves that to its caller, so that a short run can be a
test.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from bench import process
from bench.soak_callers import Calls, Seen, call
from bench.soak_gateway import QuietGateway
from tests.support.client import RawClient
from tests.support.documents import echo_registry, new_key
from tests.support.issuer import AUDIENCE, IssuerServer, SigningKey
from tests.support.valkey import Valkey

GROWTH_MAX_BYTES = 3_000_000
"""For a million keys; if only the digests of all of them stayed, it would be more than twenty times that."""

REFUSED_SHARE_MIN = 0.5
"""Of the keys that were to be tried, in the time that there is: a slow machine may say of fewer what grows."""

_PIPELINED = 6  # requests of one connection at once
_PER_CONNECTION = 2000
_CLOSED_S_MAX = 10.0
_BODY = b'{"model":"chat","messages":[{"role":"user","content":"hi"}]}'
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class KeysPlan:
    """How much: wrong keys, connections at once, and how long at most, in seconds."""

    keys: int = 1_000_000
    connections: int = 16
    seconds_max: float = 240.0
    sample_every_s: float = 0.5


@dataclass
class KeysReport:
    """What came of it. ``problems`` is empty when every wrong key was refused alike and nothing stayed."""

    wanted: int = 0
    refused: int = 0
    answers: Counter[bytes] = field(default_factory=Counter)  # by what they say
    problems: list[str] = field(default_factory=list)
    memory: list[tuple[int, int]] = field(default_factory=list)  # (keys refused so far, bytes of its own)
    good: Seen = field(default_factory=Seen)
    seconds: float = 0.0
    cpu_s: float = 0.0

    def growth_bytes(self) -> float | None:
        """The slope of memory after the first fifth, for a million keys; None where it was too short to say."""
        late = [each for each in self.memory if each[0] > self.refused / 5]
        if len(late) < 10:
            return None
        slope = statistics.linear_regression([count for count, _ in late], [size for _, size in late]).slope
        return slope * 1_000_000


class WrongKeys:
    """Credentials that are all wrong and all different: header fields, in turns of twenty."""

    def __init__(self, issuer: str, signing: SigningKey) -> None:
        self._numbers = itertools.count()
        signature = _part(os.urandom(256))
        good = {"alg": "RS256", "typ": "JWT", "kid": signing.kid}
        claims = {"iss": issuer, "aud": AUDIENCE, "tenant": "acme", "exp": int(time.time()) + 36_000}
        elsewhere = claims | {"iss": "https://issuer.invalid"}
        tokens: list[Callable[[int], bytes]] = [
            self._token(good, elsewhere, signature),
            self._token(good | {"kid": None}, claims, signature, number_in="kid"),
            self._token(good, claims, signature),
            self._token(good | {"alg": "none"}, claims, b"x"),
            self._token(good | {"alg": "HS256"}, claims, signature[:43]),
            self._token(good | {"jku": "https://issuer.invalid/keys"}, claims, signature),
            lambda number: _bearer(b"%016x.%016x.%016x" % (number, number, number)),
            lambda number: _bearer(b"%016x." % number + b"A" * 9000 + b".A"),
        ]
        malformed: list[Callable[[int], bytes]] = [
            lambda number: _bearer(b"%08x" % number),
            lambda number: _bearer(b"%032x!" % number),
            lambda number: _bearer(b"%0300x" % number),
            lambda number: _bearer(b"%032x" % number) + b"x-api-key: %032x\r\n" % ~number,
        ]
        unknown: list[Callable[[int], bytes]] = [
            lambda number: _bearer(b"%064x" % number),
            lambda number: _bearer(b"llmgw-%032x" % number),
        ]
        self._kinds = tokens + malformed + unknown * 4

    def __next__(self) -> bytes:
        number = next(self._numbers)
        return self._kinds[number % len(self._kinds)](number)

    @staticmethod
    def _token(
        header: dict[str, str | None], claims: dict[str, object], signature: bytes, number_in: str = "jti"
    ) -> Callable[[int], bytes]:
        """A token that has a number in its claims, or in its header as ``kid``."""
        place = header if number_in == "kid" else claims
        numbered: dict[str, object] = {**place, number_in: 0}
        text = (
            json.dumps(numbered)
            .encode()
            .replace(b'"%b": 0' % number_in.encode(), b'"%b": "%%016x"' % number_in.encode())
        )
        other = _part(json.dumps(claims if number_in == "kid" else header).encode())

        def made(number: int) -> bytes:
            parts = (_part(text % number), other) if number_in == "kid" else (other, _part(text % number))
            return _bearer(b".".join((*parts, signature)))

        return made


def _bearer(credential: bytes) -> bytes:
    return b"authorization: Bearer %b\r\n" % credential


def _part(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def run(plan: KeysPlan, say: Callable[[str], None]) -> KeysReport:
    """The whole soak with its own Valkey, issuer and gateway. Raises Malfunction where it cannot be run at all."""
    key, signing = new_key(), SigningKey("RS256")
    with contextlib.ExitStack() as stack:
        issuer = stack.enter_context(IssuerServer())
        issuer.publish(signing)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        (folder / "ca.pem").write_bytes(issuer.ca_pem)
        valkey = stack.enter_context(Valkey())
        documents = echo_registry(key)
        oidc = {"issuer": issuer.url, "audience": AUDIENCE, "claim": "tenant", "value": "acme"}
        documents[2]["spec"]["oidc"] = oidc
        env = {"LLM_GATEWAY_REDIS_URL": valkey.url, "LLM_GATEWAY_OIDC_CA_FILE": str(folder / "ca.pem")}
        gateway = stack.enter_context(QuietGateway(documents, key=key, env=env))
        say(f"{plan.keys:,} wrong keys to one gateway")
        wrong = WrongKeys(issuer.url, signing)
        return uvloop.run(_Soak(plan, gateway, valkey, wrong, say).run())


class _Guesser(asyncio.Protocol):
    """A connection that tries keys, several at once, and makes room for another one after many."""

    def __init__(self, soak: _Soak) -> None:
        self._soak = soak
        self._buffer = b""
        self._sent = self._seen = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Try the first ones."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        self._send(_PIPELINED)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so."""
        if self._seen < self._sent:
            self._soak.failed(f"a connection was lost with {self._sent - self._seen} calls not answered: {exc}")
        self._soak.left()

    def data_received(self, data: bytes) -> None:
        """Count whole answers, and try as many more."""
        buffer, at, answered = self._buffer + data, 0, 0
        while (end := buffer.find(_HEAD_END, at)) > 0:
            length_at = buffer.find(b"content-length: ", at, end) + 16
            stop = end + 4 + int(buffer[length_at : buffer.find(b"\r", length_at)])
            if len(buffer) < stop:
                break
            self._soak.report.answers[buffer[at + 9 : at + 12] + buffer[end + 4 : stop]] += 1
            at = stop
            answered += 1
        self._buffer = buffer[at:]
        self._seen += answered
        if answered:
            self._send(answered)

    def _send(self, count: int) -> None:
        requests: list[bytes] = []
        while len(requests) < count and self._sent < _PER_CONNECTION and (request := self._soak.next_request()):
            requests.append(request)
            self._sent += 1
        if requests:
            self._transport.write(b"".join(requests))
        elif self._seen == self._sent:
            self._transport.close()


class _Soak:
    """One run against one gateway."""

    def __init__(
        self, plan: KeysPlan, gateway: QuietGateway, valkey: Valkey, wrong: WrongKeys, say: Callable[[str], None]
    ) -> None:
        self._plan, self._gateway, self._valkey, self._wrong, self._say = plan, gateway, valkey, wrong, say
        self.report = KeysReport(plan.keys)
        self._taken = self._limit = self._open = 0
        self._deadline = 0.0
        self._dialling: set[asyncio.Task[None]] = set()
        self._head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % gateway.port
        self._tail = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)

    async def run(self) -> KeysReport:
        """All of it, in order."""
        report, plan = self.report, self._plan
        loop = asyncio.get_running_loop()
        good = Calls(self._gateway.port, ["chat"], 0.1, self._good_request)
        serving = loop.create_task(call(good, report.good))
        await self._flood(min(plan.keys // 20, 2000))  # what is made once and kept, as for the issuer's keys
        series, entries, files = self._series(), self._entries(), self._gateway.open_files()
        report.answers.clear()
        report.memory.clear()
        begun, cpu = time.monotonic(), process.cpu_ns(self._gateway.process.pid)
        await self._flood(plan.keys)
        report.seconds = time.monotonic() - begun
        report.cpu_s = (process.cpu_ns(self._gateway.process.pid) - cpu) / 1e9
        report.refused = report.answers.total()
        report.good.stopping = True
        await serving
        self._judge_answers()
        if (now := self._series()) > series:
            self._problem(f"the metrics have {now} samples, {series} before")
        kept, calls = self._entries(), report.good.answers.total()  # of which each leaves the record of its lease
        if kept > entries + calls:
            self._problem(f"the Valkey has {kept} keys, {entries} and {calls} good calls before")
        await self._judge_files(files)
        return report

    async def _flood(self, keys: int) -> None:
        plan, report = self._plan, self.report
        self._taken, self._limit = 0, keys
        self._deadline = time.monotonic() + plan.seconds_max
        for _ in range(plan.connections):
            self._connect()
        said = time.monotonic()
        while self._open:
            await asyncio.sleep(plan.sample_every_s)
            report.memory.append((report.answers.total(), process.own_bytes(self._gateway.process.pid)))
            if time.monotonic() > self._deadline + 20:
                self._problem(f"{self._open} connections hang")
                return
            if time.monotonic() - said > 10:
                said = time.monotonic()
                self._say(f"{report.memory[-1][0]:,} wrong keys refused, {report.memory[-1][1] / 1e6:.1f} MB")

    def next_request(self) -> bytes | None:
        """One more request with a wrong key; None where it is enough, or time is over."""
        if self._taken >= self._limit or time.monotonic() > self._deadline:
            return None
        self._taken += 1
        return self._head + next(self._wrong) + self._tail

    def failed(self, reason: str) -> None:
        """A guesser was cut off."""
        self._problem(reason)

    def left(self) -> None:
        """A connection has ended; another takes its place where there is more to try."""
        self._open -= 1
        if self._taken < self._limit and time.monotonic() < self._deadline and len(self.report.problems) < 20:
            self._connect()

    def _connect(self) -> None:
        self._open += 1
        task = asyncio.get_running_loop().create_task(self._dial())
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _dial(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: _Guesser(self), "127.0.0.1", self._gateway.port)
        except OSError as error:
            self._open -= 1
            self._problem(f"could not connect: {error}")

    def _judge_answers(self) -> None:
        report = self.report
        strange = {what[:300]: n for what, n in report.answers.items() if not what.startswith(b"401")}
        if strange:
            self._problem(f"not answered with 401: {dict(list(strange.items())[:5])}")
        elif len(report.answers) > 1:
            self._problem(f"wrong keys are told apart: {dict(report.answers.most_common(5))}")
        good = report.good
        if good.error_count or set(good.answers) - {("chat", 200)}:
            self._problem(f"a good caller was answered with {dict(good.answers)}, errors: {good.errors}")

    async def _judge_files(self, files: int) -> None:
        """Closing takes a moment, as does what the issuer may be asked for just now."""
        deadline = time.monotonic() + _CLOSED_S_MAX
        while (held := self._gateway.open_files()) > files:
            if time.monotonic() > deadline:
                self._problem(f"the gateway has {held} files open, {files} before")
                return
            await asyncio.sleep(0.1)

    def _series(self) -> int:
        """How many samples the metrics have."""
        with RawClient("127.0.0.1", self._gateway.management_port) as client:
            text = client.request("/metrics", headers={"connection": "close"}).body
        return sum(1 for line in text.splitlines() if line and not line.startswith(b"#"))

    def _entries(self) -> int:
        """How many keys the Valkey has."""
        with contextlib.suppress(ValueError):
            return int(self._valkey.command("DBSIZE").strip(":\r\n"))
        raise process.Malfunction("the Valkey does not say how many keys it has")

    def _good_request(self, port: int, _: str) -> bytes:
        bearer = _bearer(self._gateway.key.encode())
        return b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % port + bearer + self._tail

    def _problem(self, text: str) -> None:
        self.report.problems.append(text)


def judge(report: KeysReport, say: Callable[[str], None]) -> list[str]:
    """Say what came of it; all problems, memory that grew among them."""
    problems, growth = list(report.problems), report.growth_bytes()
    refused = max(1, report.refused)
    say(
        f"{report.refused:,} of {report.wanted:,} tried and refused in {report.seconds:.0f} s, "
        f"{report.cpu_s / refused * 1e6:.0f} us of CPU each; {report.good.of_status(200)} good calls meanwhile"
    )
    if report.refused < report.wanted * REFUSED_SHARE_MIN:
        problems.append("too few wrong keys could be tried")
    if report.memory:
        sizes = [size for _, size in report.memory]
        first, last, most = (size / 1e6 for size in (sizes[0], sizes[-1], max(sizes)))
        say(f"memory: {first:.1f} MB at first, {last:.1f} MB at last, {most:.1f} MB at most")
    if growth is not None:
        say(f"growth after the first fifth: {growth / 1e6:+.2f} MB a million (at most {GROWTH_MAX_BYTES / 1e6:g})")
        if growth > GROWTH_MAX_BYTES:
            problems.append("memory grows with wrong keys")
    return problems
