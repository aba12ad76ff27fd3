"""What exported events and tables of usage look like."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.cli.usage_output import COLUMNS, EventFile, print_table
from gateway.redis.ledger_format import UsageCounts, UsageEvent

EVENT = UsageEvent(
    tenant="acme",
    stream_id="1763800000007-0",
    id="f00d",
    time_ms=1763800000007,
    key="ci",
    scenario="chat",
    backend="qwen",
    status=200,
    input_tokens=12,
    cached_input_tokens=3,
    output_tokens=40,
    cost_nano_usd=1_250_000,
    estimated=True,
    cached=False,
)
WRITTEN = {
    "id": "f00d",
    "time": "2025-11-22T08:26:40.007Z",
    "tenant": "acme",
    "key": "ci",
    "scenario": "chat",
    "backend": "qwen",
    "status": 200,
    "input_tokens": 12,
    "cached_input_tokens": 3,
    "output_tokens": 40,
    "cost_usd": "0.00125",
    "estimated": True,
    "cached": False,
    "variant": "base",
}


def write(path: Path | None, *events: UsageEvent, as_csv: bool = False) -> None:
    """Write events as one run of an exporter does."""
    with EventFile.open(path, as_csv=as_csv) as file:
        asyncio.run(file.take(events))
        assert file.written == len(events)


def test_event_is_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Money is a text, so that no reader makes a float of it."""
    write(None, EVENT, replace(EVENT, id="beef"))
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["f00d", "beef"]
    assert json.loads(lines[0]) == WRITTEN
    assert list(json.loads(lines[0])) == list(COLUMNS)


def test_event_is_a_row_of_csv(capsys: pytest.CaptureFixture[str]) -> None:
    """Below the names of the columns, without which nobody could read it."""
    write(None, EVENT, as_csv=True)
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row == {name: str(value) for name, value in WRITTEN.items()} | {"estimated": "true", "cached": "false"}


def test_file_is_appended_to(tmp_path: Path) -> None:
    """The names of the columns stand once."""
    path = tmp_path / "usage.csv"
    write(path, EVENT, as_csv=True)
    write(path, replace(EVENT, id="beef"), as_csv=True)
    lines = path.read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert [line.partition(",")[0] for line in lines[1:]] == ["f00d", "beef"]


@pytest.mark.parametrize("half", ['{"id": "ha', "x" * 200_000])
@pytest.mark.parametrize("before", [[], [EVENT]])
def test_line_that_an_exporter_died_in_is_taken_back(tmp_path: Path, half: str, before: list[UsageEvent]) -> None:
    """Its event was not acknowledged and comes again; what stands before it stays."""
    path = tmp_path / "usage.jsonl"
    write(path, *before)
    with path.open("a") as file:
        file.write(half)
    write(path, replace(EVENT, id="beef"))
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["f00d"] * len(before) + ["beef"]


def test_header_that_an_exporter_died_in_is_written_again(tmp_path: Path) -> None:
    """A CSV without columns is of no use."""
    path = tmp_path / "usage.csv"
    path.write_text("id,ti")
    write(path, EVENT, as_csv=True)
    assert path.read_text().startswith(",".join(COLUMNS) + "\nf00d,")


def test_table_shows_sums_and_their_total(capsys: pytest.CaptureFixture[str]) -> None:
    """Whole, however long a name is, where it does not go to a terminal."""
    name = "a-very-long-name-of-a-scenario." * 8
    sums: dict[tuple[str, ...], UsageCounts] = {
        ("acme", name): UsageCounts(
            requests=1500,
            input_tokens=1_234_567,
            output_tokens=8,
            cost_nano_usd=10**9,
            estimated_requests=375,
            cached_requests=150,
        ),
        ("beta", ""): UsageCounts(requests=500, cached_input_tokens=9, cost_nano_usd=5),
    }
    print_table("Usage", ["tenant", "scenario"], sums)
    rows = {
        cells[0]: cells
        for line in capsys.readouterr().out.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")]) > 1
    }
    numbers = ["Requests", "Input", "Cached", "Output", "Cost (USD)", "Estimated", "From cache"]
    assert rows["Tenant"] == ["Tenant", "Scenario", *numbers]
    assert rows["acme"] == ["acme", name, "1,500", "1,234,567", "0", "8", "1", "25.0%", "10.0%"]
    assert rows["beta"] == ["beta", "-", "500", "0", "9", "0", "0.000000005", "0.0%", "0.0%"]
    assert rows["Total"] == ["Total", "", "2,000", "1,234,567", "9", "8", "1.000000005", "18.8%", "7.5%"]
