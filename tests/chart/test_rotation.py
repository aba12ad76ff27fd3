"""The password of the bundled Valkey changes while everything runs: its start script, the gateway, and their files."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.redis.dial import CLIENT_NAME
from gateway.redis.link import SHORT_LIFE_S
from tests.support.chart import Object, render
from tests.support.documents import api_key, new_key
from tests.support.kubelet import RenderedGateway, RenderedValkey, command_line_client
from tests.support.waiting import eventually

SECRET = "valkey-password"  # the name of one
FIRST, SECOND = "first \\ \"'$HOME' #1", "second-of-24-characters"
CALL = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(autouse=True)
def _client_is_there() -> None:
    if command_line_client() is None:
        pytest.skip("needs valkey-cli or redis-cli, from the Debian package redis-tools")


def rendered(overlap_s: int, key: str = "") -> list[Object]:
    """The example registry with a limit and a key, and a Valkey whose password is in a Secret of our own."""
    limit = {"unit": "requests", "per": "minute", "amount": 100000}
    values: dict[str, Any] = {
        "valkey": {"existingSecret": {"name": SECRET}, "passwordOverlapSeconds": overlap_s},
        "registry": {
            "tenants": {"acme": {"scenarios": ["*"], "limits": [limit]}},
            "apiKeys": {"acme": api_key("acme", key)["spec"]},
        },
        "settings": {"LLM_GATEWAY_REDIS_CHECK_S": "100ms", "LLM_GATEWAY_REDIS_DEADLINE_S": "1s"},
    }
    return render(values)


def password(text: str) -> dict[str, bytes]:
    """The content of the Secret."""
    return {"password": text.encode()}


class Caller:
    """Calls without a pause, and counts how calls end."""

    def __init__(self, gateway: RenderedGateway, key: str) -> None:
        self._gateway, self._key = gateway, key
        self.ends: Counter[tuple[int, str | None]] = Counter()

    def call(self) -> None:
        """One call over a connection of its own."""
        with self._gateway.client() as client:
            answer = client.request("/v1/chat/completions", CALL, key=self._key)
        self.ends[answer.status, answer.header("x-llm-gateway-degraded")] += 1

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Calls one after the other until the end."""
        done = threading.Event()

        def run() -> None:
            while not done.is_set():
                self.call()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize("first", ["server", "gateway"])
def test_no_call_is_lost_whoever_hears_of_it_first(first: str, tmp_path: Path) -> None:
    """Under calls without a pause none is answered without the shared limits; nor after a reconnect between the two."""
    key = new_key()
    objects, secrets = rendered(300, key), {SECRET: password(FIRST)}
    with RenderedValkey(objects, tmp_path / "valkey", secrets) as server:
        changed = {"LLM_GATEWAY_REDIS_URL": f"redis://127.0.0.1:{server.port}/0"}
        with (
            RenderedGateway(objects, tmp_path / "gateway", secrets, changed) as gateway,
            redis_py.Redis(port=server.port, password=FIRST, decode_responses=True) as operator,
        ):
            caller = Caller(gateway, key)

            def in_server() -> None:
                server.kubelet.update("Secret", SECRET, password(SECOND))
                eventually(lambda: "the password has changed" in server.output, 10)

            def in_gateway() -> None:
                presented = auths(operator)
                gateway.kubelet.update("Secret", SECRET, password(SECOND))
                eventually(lambda: auths(operator) > presented, 10)

            changes = [in_server, in_gateway] if first == "server" else [in_gateway, in_server]
            # Connections that break sooner are taken for a server that does not let us in.
            eventually(lambda: min(ages(operator), default=0) > SHORT_LIFE_S, 10)
            with caller.calling():
                changes[0]()
            operator.client_kill_filter(_type="normal", skipme=True)
            caller.call()
            with caller.calling():
                changes[1]()
                eventually(server.is_ready)
            assert set(caller.ends) == {(200, None)}
            assert caller.ends.total() > 20
            for either in (FIRST, SECOND):
                with redis_py.Redis(port=server.port, password=either) as other:
                    assert other.ping(), "the one before is good for a while"


def ages(operator: redis_py.Redis) -> list[float]:
    """How long the gateway's connections last, in seconds."""
    return [float(each["age"]) for each in operator.client_list() if each["name"] == CLIENT_NAME]


def auths(operator: redis_py.Redis) -> int:
    """How often somebody presented a password."""
    return int(operator.info("commandstats").get("cmdstat_auth", {"calls": 0})["calls"])


def test_the_password_before_is_good_for_its_time_only(tmp_path: Path) -> None:
    """Then nobody comes in with it; who came in with it stays; and the next change is taken as well."""
    with (
        RenderedValkey(rendered(10), tmp_path / "valkey", {SECRET: password(FIRST)}) as server,
        redis_py.Redis(port=server.port, password=FIRST) as early,
    ):
        assert early.ping()
        eventually(server.is_ready)
        change(server, FIRST, f"{SECOND}\n")
        change(server, SECOND, FIRST)
        assert early.ping()
        assert not opens(server, "")
        assert FIRST not in server.output
        assert SECOND not in server.output


def change(server: RenderedValkey, before: str, now: str) -> None:
    """Give the server another password, and wait until it takes that alone."""
    server.kubelet.update("Secret", SECRET, password(now))
    eventually(lambda: opens(server, now.rstrip()), 10)
    assert opens(server, before), "both for a while"
    eventually(lambda: not opens(server, before), 10)
    assert opens(server, now.rstrip())
    assert server.is_ready()


def opens(server: RenderedValkey, text: str) -> bool:
    """Whether a password lets in."""
    with redis_py.Redis(port=server.port, password=text, retry=Retry(NoBackoff(), 0)) as client:
        try:
            return bool(client.ping())
        except (redis_py.AuthenticationError, redis_py.ResponseError):
            return False


def test_a_server_without_a_password_does_not_start(tmp_path: Path) -> None:
    """An empty Secret would otherwise let everybody in."""
    server = RenderedValkey(rendered(2), tmp_path / "valkey", {SECRET: password("\n")})
    started = subprocess.run(server.command, env=server.environment, capture_output=True, timeout=20, check=False)
    assert started.returncode == 1
    assert b"the password is empty" in started.stderr
