"""A worker of its own process for tests: does what its standard input says, line by line, and answers each line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gateway.telemetry import Metrics
from tests.unit.telemetry.samples import finish, record, snapshot, stream_record


def main(folder: str) -> None:
    """Runs until the input ends."""
    metrics = Metrics(version="1.2.3", multiprocess_dir=Path(folder))
    say(str(os.getpid()))
    for line in sys.stdin:
        obey(metrics, *line.split())
        say("done")
    metrics.close()


def say(text: str) -> None:
    """One line to the test."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def attempt(metrics: Metrics, count: int, outcome: str) -> None:
    """So many attempts at one backend."""
    for _ in range(count):
        metrics.attempt("qwen", outcome)


def churn(metrics: Metrics, count: int) -> None:
    """Requests of many kinds, each published."""
    for number in range(count):
        finish(metrics, record(scenario=f"s{number % 40}"))
        metrics.flush()


def obey(metrics: Metrics, command: str, *arguments: str) -> None:
    """One command."""
    match command:
        case "finish":
            for _ in range(int(arguments[0])):
                finish(metrics, record(tenant=arguments[1]))
        case "stream":
            for _ in range(int(arguments[0])):
                finish(metrics, stream_record())
        case "start":
            metrics.request_started()
            metrics.backend_inflight("qwen").value += 1
            metrics.attempt("qwen", "busy")
        case "load":
            metrics.registry_loaded(snapshot(int(arguments[0]), arguments[1], float(arguments[2])))
        case "churn":
            churn(metrics, int(arguments[0]))
        case "taken":
            metrics.limit_utilization("acme", "tokens", "rate").value = int(arguments[0])
        case "attempt":
            attempt(metrics, int(arguments[0]), arguments[1])
        case "flush":
            metrics.flush()
        case _:
            raise ValueError(command)


if __name__ == "__main__":
    main(sys.argv[1])
