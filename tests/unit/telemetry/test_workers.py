"""Several real worker processes, one scrape."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.clock import wall
from gateway.telemetry import Metrics, mark_process_dead, prepare_metrics_folder
from tests.unit.telemetry.samples import OPENMETRICS, Scrape, finish, record, scrape, snapshot, stream_record
from tests.unit.telemetry.worker_main import obey

REPOSITORY = Path(__file__).parents[3]


class Worker:
    """A process that counts; ``do`` returns when it has done it."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.telemetry.worker_main", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"]},  # no PROMETHEUS_MULTIPROC_DIR
        )
        self.pid = int(self._answer())

    def do(self, *commands: str) -> None:
        """Each command in order, then a flush."""
        for command in (*commands, "flush"):
            self.tell(command)
            assert self._answer() == "done"

    def tell(self, command: str) -> None:
        """Without waiting for it to be done."""
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def _answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        """As a worker that drains: its input ends, it flushes and exits."""
        self.process.communicate(timeout=20)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """As a worker that the kernel kills."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.communicate(timeout=20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A prepared folder."""
    made = tmp_path / "metrics"
    prepare_metrics_folder(made)
    return made


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[], Worker]]:
    """Starts workers that end with the test."""
    with ExitStack() as stack:

        def start_one() -> Worker:
            worker = Worker(folder)
            stack.callback(worker.kill)
            return worker

        yield start_one


@pytest.fixture
def reader(folder: Path) -> Iterator[Metrics]:
    """Whoever answers the scrape; has nothing of its own to count."""
    metrics = Metrics(version="1.2.3", multiprocess_dir=folder)
    yield metrics
    metrics.close()


def _numbers(seen: Scrape) -> dict[str, object]:
    """Everything that adds up, without what is zero everywhere."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": pytest.approx(sample.value)
        for sample in seen.samples
        if sample.name.startswith(("llm_gateway_", "gen_ai_"))
        and "registry" not in sample.name
        and (sample.value or "_bucket" in sample.name)
    }


@pytest.mark.parametrize("accept", [None, OPENMETRICS])
def test_two_workers_count_as_one_would(start: Callable[[], Worker], reader: Metrics, accept: str | None) -> None:
    """Counters, exact buckets, sums and cost of a scrape are those of one process that did all of it."""
    commands = [["finish 30 acme", "stream 7", "start"], ["finish 12 acme", "finish 5 other-tenant", "start", "start"]]
    alone = Metrics(version="1.2.3")
    for worker, work in zip([start(), start()], commands, strict=True):
        worker.do(*work)
        for command in work:
            obey(alone, *command.split())
    assert _numbers(scrape(reader, accept)) == _numbers(scrape(alone, accept))


def test_flushes_add_nothing_twice(start: Callable[[], Worker], reader: Metrics) -> None:
    """A flush publishes totals, not differences."""
    worker = start()
    worker.do("finish 3 acme")
    worker.do()
    worker.do("finish 4 acme")
    labels = {"tenant": "acme", "scenario": "support", "variant": "base", "backend": "qwen", "code": "200"}
    assert scrape(reader).value("llm_gateway_requests_total", **labels) == 7


def test_a_dead_worker_leaves_its_counters_and_takes_its_gauges(start: Callable[[], Worker], reader: Metrics) -> None:
    """What it had under way is over, what it had counted happened; the process metrics follow the same rule."""
    dying, living = start(), start()
    dying.do("start", "start", "finish 2 acme", "load 9 gone 1000")
    living.do("start", "finish 1 acme", f"load 4 here {wall()}")
    before = scrape(reader)
    assert before.value("llm_gateway_inflight_requests") == 3
    assert before.value("llm_gateway_backend_inflight_requests", backend="qwen") == 3
    assert before.value("llm_gateway_registry_generation") == 9
    assert before.value("llm_gateway_registry_age_seconds") > 1e6
    assert sorted(labels["hash"] for labels in before.labels("llm_gateway_registry_info")) == ["gone", "here"]
    dying.kill()
    assert reader.multiprocess_dir
    mark_process_dead(reader.multiprocess_dir, dying.pid)
    after = scrape(reader)
    assert after.value("llm_gateway_inflight_requests") == 1
    assert after.value("llm_gateway_backend_inflight_requests", backend="qwen") == 1
    assert after.value("llm_gateway_registry_generation") == 4
    assert after.value("llm_gateway_registry_age_seconds") < 60
    assert after.labels("llm_gateway_registry_info") == [{"hash": "here"}]
    assert after.value("llm_gateway_overhead_seconds_count") == 3
    assert after.value("process_cpu_seconds_total") >= before.value("process_cpu_seconds_total") > 0
    assert after.value("process_resident_memory_bytes") < before.value("process_resident_memory_bytes")


def test_the_build_is_told_once(start: Callable[[], Worker], reader: Metrics) -> None:
    """However many workers there are."""
    for worker in (start(), start()):
        worker.do("finish 1 acme")
    assert len(scrape(reader).labels("llm_gateway_build_info")) == 1


def test_any_worker_answers_for_all_with_its_own_numbers_of_now(start: Callable[[], Worker], reader: Metrics) -> None:
    """The one that is scraped flushes first; the others' last flush counts, also of one that has ended."""
    worker = start()
    worker.do("finish 2 acme")
    worker.end()
    finish(reader, record())
    assert scrape(reader).value("llm_gateway_overhead_seconds_count") == 3


def test_a_pid_that_comes_back_counts_on(folder: Path) -> None:
    """A counter never gets smaller because a new worker has the pid of one that ended."""
    for _ in range(2):
        metrics = Metrics(version="1", multiprocess_dir=folder)
        for _ in range(3):
            finish(metrics, stream_record())
        metrics.close()
        metrics.flush()
    reader = Metrics(version="1", multiprocess_dir=folder)
    seen = scrape(reader)
    reader.close()
    assert seen.value("llm_gateway_overhead_seconds_count") == 6
    assert seen.value("llm_gateway_time_to_first_token_seconds_sum", scenario="support") == pytest.approx(0.12)
    assert seen.value("llm_gateway_cost_usd_total", tenant="acme", scenario="support") == pytest.approx(6 * 12.3e-6)
    assert seen.value("llm_gateway_inflight_requests") == 0


def test_scrapes_amid_flushes_only_grow(start: Callable[[], Worker], reader: Metrics) -> None:
    """A scrape that runs while workers write, new series and new files included, is readable and never goes back."""
    for worker in (start(), start()):
        worker.tell("churn 1000000")
    counts = [scrape(reader).value("llm_gateway_overhead_seconds_count") for _ in range(15)]
    assert counts == sorted(counts)
    assert counts[-1] > 0


def test_a_folder_is_prepared_by_removing_what_is_ours(tmp_path: Path) -> None:
    """Numbers of an earlier run go, other files stay."""
    earlier = Metrics(version="1", multiprocess_dir=tmp_path)
    finish(earlier, record())
    earlier.registry_loaded(snapshot())
    earlier.close()
    other = tmp_path / "notes.db"
    other.touch()
    prepare_metrics_folder(tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_how_much_of_a_limit_is_taken_is_not_added_up(start: Callable[[], Worker], reader: Metrics) -> None:
    """Every worker tells of the same limit: the highest is shown."""
    one, other = start(), start()
    one.do("taken 9000")
    other.do("taken 2000")
    labels = {"tenant": "acme", "limit": "tokens", "kind": "rate"}
    assert scrape(reader).value("llm_gateway_limit_utilization_ratio", **labels) == 0.9


def test_a_backend_is_down_where_one_worker_sees_it_down(start: Callable[[], Worker], reader: Metrics) -> None:
    """Each worker counts its own attempts in a row; how many workers there are is a sum."""
    one, other = start(), start()
    one.do("load 1 aaaa 5", "attempt 5 reset")
    other.do("load 1 aaaa 5", "attempt 3 ok")
    seen = scrape(reader)
    assert seen.value("llm_gateway_backend_healthy", backend="qwen") == 0
    assert seen.value("llm_gateway_workers") == 2
