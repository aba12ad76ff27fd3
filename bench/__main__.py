"""``python -m bench``: measure, print the table, write ``bench/RESULTS.md``.

Exits with 1 only when the bench itself failed. A missed budget is marked in the table and is no failure: times are
judged by people who know what else the machine was doing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from bench import wrk
from bench.candidates import installed
from bench.machine import Neighbours
from bench.measure import QUICK, Plan, measure_all
from bench.process import Malfunction
from bench.report import document, rates, table

RESULTS = Path(__file__).with_name("RESULTS.md")


def main(arguments: list[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="What a request costs, beside nginx and Envoy."
    )
    parser.add_argument("--quick", action="store_true", help="one short round; results are printed only")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="measure only gateway, nginx or envoy; repeatable"
    )
    parser.add_argument("--output", type=Path, default=None, help=f"where results go (default {RESULTS.name})")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except Malfunction as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    begun, neighbours = time.monotonic(), Neighbours()
    candidates, notes = installed()
    candidates = [each for each in candidates if not options.only or each.name in options.only]
    if not wrk.available():
        notes.append("wrk is not installed: plain requests were sent by our own client")
    if len(os.sched_getaffinity(0)) == 2:
        notes.append("two cores: what is measured has one, the load generator and the upstream share the other")
    results = measure_all(candidates, QUICK if options.quick else Plan(), lambda text: print(text, file=sys.stderr))
    notes.append(f"other processes kept {neighbours.share():.2f} cores busy meanwhile")
    names = [each.name for each in candidates]
    print("\n" + table(results, names) + "\n" + rates(results, names))
    for note in notes:
        print(note)
    target = options.output or (None if options.quick or options.only else RESULTS)
    if target is not None:
        target.write_text(document(results, candidates, notes))
        print(f"written to {target}")
    print(f"took {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
