"""``python -m bench.soak`` (``make soak``): what must hold for longer than a test can wait.

Parts with processes of their own, one after the other: streams, limits, keys, sharing, reload, canary, restart.
``--part`` chooses some of them. Ends with 1 where anything did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from functools import partial

from bench import (
    process,
    soak_bounds,
    soak_canary,
    soak_keys,
    soak_limits,
    soak_reload,
    soak_restart,
    soak_sharing,
    soak_streams,
)
from bench.soak_bounds import LimitsPlan
from bench.soak_canary import CanaryPlan
from bench.soak_keys import KeysPlan
from bench.soak_reload import ReloadPlan
from bench.soak_restart import RestartPlan
from bench.soak_sharing import SharingPlan
from bench.soak_streams import SoakPlan

Say = Callable[[str], None]


def _streams(options: argparse.Namespace, say: Say) -> list[str]:
    plan = SoakPlan(options.streams, options.idle, seconds=options.seconds)
    return soak_streams.judge(soak_streams.run(plan, say), say)


def _limits(options: argparse.Namespace, say: Say) -> list[str]:
    plan = LimitsPlan(callers=options.callers, seconds=options.limits_seconds)
    return soak_bounds.judge(soak_limits.run(plan, say), say)


def _keys(options: argparse.Namespace, say: Say) -> list[str]:
    plan = KeysPlan(keys=options.keys, seconds_max=options.keys_seconds)
    return soak_keys.judge(soak_keys.run(plan, say), say)


def _sharing(options: argparse.Namespace, say: Say) -> list[str]:
    plan = SharingPlan(rounds=options.sharing_rounds)
    return soak_sharing.judge(soak_sharing.run(plan, say), say)


def _reload(options: argparse.Namespace, say: Say) -> list[str]:
    plan = ReloadPlan(reloads=options.reloads, per_s=options.reload_per_s)
    return soak_reload.judge_report(soak_reload.run(plan, say), say)


def _canary(options: argparse.Namespace, say: Say) -> list[str]:
    plan = CanaryPlan(healthy=options.healthy, seconds=options.canary_seconds)
    return soak_canary.judge_report(soak_canary.run(plan, say), say)


def _restart(options: argparse.Namespace, say: Say) -> list[str]:
    plan = RestartPlan(streams=options.restart_streams, calls_per_s=options.restart_calls)
    return soak_restart.judge(soak_restart.run(plan, say), say)


PARTS: dict[str, Callable[[argparse.Namespace, Say], list[str]]] = {
    "streams": _streams,
    "limits": _limits,
    "keys": _keys,
    "sharing": _sharing,
    "reload": _reload,
    "canary": _canary,
    "restart": _restart,
}


def main(arguments: list[str] | None = None) -> int:
    """Run and judge; 0 when everything held."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="What must hold for long.")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be given again")
    parser.add_argument("--streams", type=int, default=SoakPlan.streams)
    parser.add_argument("--idle", type=int, default=SoakPlan.idle)
    parser.add_argument("--seconds", type=float, default=SoakPlan.seconds, help="of the streams")
    parser.add_argument("--callers", type=int, default=LimitsPlan.callers)
    parser.add_argument("--limits-seconds", type=float, default=LimitsPlan.seconds)
    parser.add_argument("--keys", type=int, default=KeysPlan.keys)
    parser.add_argument("--keys-seconds", type=float, default=KeysPlan.seconds_max, help="at most")
    parser.add_argument("--sharing-rounds", type=int, default=SharingPlan.rounds)
    parser.add_argument("--reloads", type=int, default=ReloadPlan.reloads)
    parser.add_argument("--reload-per-s", type=float, default=ReloadPlan.per_s, help="requests a second meanwhile")
    parser.add_argument("--healthy", type=int, default=CanaryPlan.healthy, help="canaries that must stay")
    parser.add_argument("--canary-seconds", type=float, default=CanaryPlan.seconds)
    parser.add_argument("--restart-streams", type=int, default=RestartPlan.streams)
    parser.add_argument("--restart-calls", type=float, default=RestartPlan.calls_per_s, help="a second")
    options = parser.parse_args(arguments)
    failed = [name for name in PARTS if name in (options.part or PARTS) and not _holds(name, options)]
    print(f"soak failed: {', '.join(failed)}" if failed else "soak passed")
    return 1 if failed else 0


def _holds(name: str, options: argparse.Namespace) -> bool:
    say = partial(print, f"{name}:", flush=True)
    try:
        problems = PARTS[name](options, say)
    except (process.Malfunction, AssertionError) as problem:  # a gateway that does not start, or not end as it should
        problems = [f"could not be run: {problem}"]
    for each in problems:
        say(f"PROBLEM: {each}")
    return not problems


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
