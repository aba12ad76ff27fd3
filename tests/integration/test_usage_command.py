"""``llm-gateway usage`` as a process, before a real Valkey."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis as redis_py

from gateway.redis import names
from gateway.redis.embedded import EmbeddedValkey
from gateway.redis.ledger_format import UsageOf
from tests.support.usage import Valkey, write_counts, write_events
from tests.support.waiting import eventually

DAY = datetime.date(2026, 11, 2)
CI, APP = (UsageOf(key=key, scenario="chat", backend="qwen") for key in ("ci", "app"))


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    """One server for this module."""
    valkey = EmbeddedValkey.start()
    yield valkey
    valkey.stop()


@pytest.fixture
def valkey(server: EmbeddedValkey) -> Iterator[Valkey]:
    """A database with the tenants acme and beta in it, and nothing of theirs."""
    with redis_py.Redis.from_url(server.url) as client:
        client.flushall()
        client.zadd(names.tenants(), {"acme": 1, "beta": 1})
        yield client


def command(*arguments: str | Path) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "gateway.cli", "usage", *map(str, arguments)]


def environment(server: EmbeddedValkey) -> dict[str, str]:
    """Nothing of the caller's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLM_GATEWAY_")}
    return kept | {"LLM_GATEWAY_REDIS_URL": server.url}


def run(server: EmbeddedValkey, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(*arguments), env=environment(server), capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def following(server: EmbeddedValkey, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """An exporter that follows."""
    line = command("export", "--follow", *arguments)
    with subprocess.Popen(
        line, env=environment(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ids(text: str) -> list[int]:
    """The ids of exported lines."""
    return [int(json.loads(line)["id"]) for line in text.splitlines()]


def test_export_goes_on_where_it_stopped(valkey: Valkey, server: EmbeddedValkey) -> None:
    """All tenants, or those that are named."""
    write_events(valkey, "acme", 1, 3)
    write_events(valkey, "beta", 11, 12)
    first = run(server, "export", "--tenant", "acme")
    assert (first.returncode, ids(first.stdout), first.stderr) == (0, [1, 2, 3], "3 event(s) exported\n")
    write_events(valkey, "acme", 4, 4)
    assert sorted(ids(run(server, "export").stdout)) == [4, 11, 12]
    assert run(server, "export").stdout == ""


def test_export_as_csv(valkey: Valkey, server: EmbeddedValkey, tmp_path: Path) -> None:
    """To a file, in two runs."""
    path = tmp_path / "usage.csv"
    for number in (1, 2):
        write_events(valkey, "acme", number, number)
        assert run(server, "export", "--format", "csv", "--output", path).returncode == 0
    header, *rows = path.read_text().splitlines()
    assert header.startswith("id,time,tenant,key,")
    assert [row.split(",")[0] for row in rows] == ["1", "2"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_following_sees_what_comes_and_ends_when_told(
    valkey: Valkey, server: EmbeddedValkey, tmp_path: Path, number: signal.Signals
) -> None:
    """A tenant that is new is seen too; what is written is acknowledged before the end."""
    path = tmp_path / "usage.jsonl"
    write_events(valkey, "acme", 1, 2)
    with following(server, "--output", path) as process:
        eventually(lambda: path.exists() and ids(path.read_text()) == [1, 2], 20)
        valkey.zadd(names.tenants(), {"new": 1})
        write_events(valkey, "new", 3, 3)
        eventually(lambda: ids(path.read_text()) == [1, 2, 3], 20)
        process.send_signal(number)
        assert process.wait(20) == 0
    assert run(server, "export").stdout == ""


def test_killed_exporter_loses_nothing(valkey: Valkey, server: EmbeddedValkey, tmp_path: Path) -> None:
    """Killed again and again while events come, each event is there in the end, and each line is whole."""
    path = tmp_path / "usage.jsonl"
    for turn in range(4):
        write_events(valkey, "acme", turn * 2000 + 1, turn * 2000 + 2000)
        size = path.stat().st_size if path.exists() else 0
        with following(server, "--output", path) as process:
            eventually(lambda before=size: path.exists() and path.stat().st_size > before, 20)  # type: ignore[misc]
            process.kill()
            process.wait(20)
    assert run(server, "export", "--output", path).returncode == 0
    assert set(ids(path.read_text())) == set(range(1, 8001))


def test_reader_that_leaves_ends_the_export(valkey: Valkey, server: EmbeddedValkey) -> None:
    """As ``| head`` does: no traceback, and what it did not take comes again."""
    write_events(valkey, "acme", 1, 3000)
    with following(server) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert ids(process.stdout.readline()) == [1]
        process.stdout.close()
        assert process.wait(20) == 1
        assert "Traceback" not in process.stderr.read()
    assert 3000 in ids(run(server, "export").stdout)


def test_lost_events_are_said(valkey: Valkey, server: EmbeddedValkey) -> None:
    """With the tenant and how many."""
    write_events(valkey, "acme", 1, 1)
    run(server, "export")
    write_events(valkey, "acme", 2, 20, maxlen=5)
    result = run(server, "export")
    assert ids(result.stdout) == [16, 17, 18, 19, 20]
    assert "warning: acme: 14 event(s) were lost before they were exported" in result.stderr


def test_forgotten_group_holds_nothing_back(valkey: Valkey, server: EmbeddedValkey) -> None:
    """Its positions are gone; it may come again, as a new one."""
    write_events(valkey, "acme", 1, 3)
    assert ids(run(server, "export", "--group", "trial").stdout) == [1, 2, 3]
    result = run(server, "forget", "--group", "trial")
    assert (result.returncode, result.stdout) == (0, "group 'trial' is forgotten for 1 tenant(s)\n")
    assert valkey.xinfo_groups(names.events("acme")) == []
    assert not valkey.exists(names.export("acme"))
    assert run(server, "forget", "--group", "trial").returncode == 1
    assert ids(run(server, "export", "--group", "trial").stdout) == [1, 2, 3]


def test_report_is_a_table(valkey: Valkey, server: EmbeddedValkey) -> None:
    """Of the tenants and days that are asked for, summed by what is asked for."""
    write_counts(valkey, "acme", DAY, CI, requests=2, output=1500, cost=2_500_000_000, estimated=1)
    write_counts(valkey, "acme", DAY, APP, requests=1)
    write_counts(valkey, "acme", DAY + datetime.timedelta(days=2), CI, requests=40)
    write_counts(valkey, "beta", DAY, CI, requests=7)
    bounds = ("--from", "2026-11-01", "--to", "2026-11-03")
    table = rows(run(server, "report", "--tenant", "acme", *bounds, "--by", "key").stdout)
    assert [row[:3] for row in table] == [["Tenant", "Key", "Requests"], ["acme", "app", "1"], ["acme", "ci", "2"],
                                          ["Total", "", "3"]]  # fmt: skip
    assert table[2] == ["acme", "ci", "2", "0", "0", "1,500", "2.5", "50.0%", "0.0%"]
    everybody = rows(run(server, "report", *bounds).stdout)
    assert [row[:4] for row in everybody[1:]] == [
        ["acme", "2026-11-02", "chat", "3"],
        ["beta", "2026-11-02", "chat", "7"],
        ["Total", "", "", "10"],
    ]


def rows(text: str) -> list[list[str]]:
    """The cells of a table's rows."""
    lines = [line.replace("┃", "│").strip().strip("│").split("│") for line in text.splitlines()]
    return [[cell.strip() for cell in line] for line in lines if len(line) > 1]


def test_report_of_wrong_days_is_refused(valkey: Valkey, server: EmbeddedValkey) -> None:
    """With a readable text."""
    result = run(server, "report", "--tenant", "acme", "--from", "2026-11-03", "--to", "2026-11-01")
    assert (result.returncode, result.stderr) == (1, "`from` must not be after `to`.\n")
