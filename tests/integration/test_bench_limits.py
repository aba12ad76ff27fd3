"""What the bench starts to measure limits: a real gateway and Valkey under a short load of both kinds of calls."""

from __future__ import annotations

import os

import uvloop

from bench import limits, wire
from bench.client import Load, drive
from bench.machine import upstream


def test_calls_within_limits_and_refusals_are_what_they_are_called() -> None:
    """Every answer of each load has the status that is measured, and the ledger and Redis had them all."""
    cores = os.sched_getaffinity(0)
    with upstream(cores) as port, limits.valkey(cores) as url, limits.limited(url).running(port, min(cores)) as gateway:
        limits.use_up(gateway)
        for key, status in ((limits.LIMITED_KEY, 200), (limits.USED_UP_KEY, 429)):
            request = wire.request(gateway.port, wire.chat_body(wire.PLAIN), key)
            load = Load(gateway.port, request, 8, status=status)
            window, failures = uvloop.run(drive(load, 0.2, 0.5, gateway.cpu_ns))
            assert failures == []
            assert window.answers > 0
            assert window.cpu_ns > 0
        limits.check(gateway, url)
        assert limits.ledger_requests(url) > 8
        assert limits.status(gateway.port, "nobody's key") == 401
