"""The documentation page, as a browser without any network but the gateway renders it."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from tests.support.gateway import GatewayProcess

HOST = "gateway.test"
ENDPOINTS = ["/v1/chat/completions", "/v1/models", "/v1/models/{model}", "/v1/scenarios", *2 * ["/v1/scenarios/{name}"],
             "/v1/usage", "/generate", "/chat/completion", "/v1/responses", "/v1/responses/input_tokens",
             "/v1/embeddings", "/v1/moderations", "/v1/rerank", "/v1/images/generations", "/v1/audio/speech",
             "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/completions", "/v1/messages",
             "/v1/messages/count_tokens"]  # fmt: skip
MODELS = ["ChatCompletionRequest", "ChatCompletion", "ModelList", "GenerateRequest", "GenerateResponse",
          "ScenarioRequest", "ScenarioList", "SimpleChatRequest", "SimpleChatResponse", "UsageReport",
          "ErrorBody"]  # fmt: skip
# Every other name is unknown to the browser. Virtual time lets the page finish all that it waits for.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=20000", "--dump-dom",
    f"--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP * ~NOTFOUND",
]  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LINKS = {"src", "href", "action", "srcset", "data", "poster"}


class Page(HTMLParser):
    """What a page loads or leads to, and its elements by their class."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.paths: list[str] = []
        self.texts: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in LINKS]
        self.paths += [value or "" for name, value in attrs if name == "data-path"]

    def handle_data(self, data: str) -> None:
        self.texts.add(data.strip())


@pytest.fixture(scope="module")
def page(echo_gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The rendered page."""
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        pytest.skip("needs chromium, from the Debian package of that name")
    profile = tmp_path_factory.mktemp("profile")
    url = f"http://{HOST}:{echo_gateway.port}/docs"
    command = [chromium, *FLAGS, f"--user-data-dir={profile}", url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    return Page(run.stdout)


def test_page_shows_every_endpoint(page: Page) -> None:
    """Each endpoint of the data port has its section, and the models of requests and responses are listed."""
    assert sorted(page.paths) == sorted(ENDPOINTS)
    missing = [name for name in MODELS if name not in page.texts]
    assert not missing


def test_page_refers_to_no_other_host(page: Page) -> None:
    """Nothing that the rendered page loads or links to is anywhere but on the gateway."""
    elsewhere = [link for link in page.links if re.match(r"(?:[a-z][a-z0-9+.-]*:)?//", link, re.IGNORECASE)]
    assert [link for link in elsewhere if not link.startswith(f"http://{HOST}")] == []
    assert page.links


def test_what_the_page_needs_is_served(echo_gateway: GatewayProcess) -> None:
    """Without a browser: the page, its style, script, icon and description are all served, whole, by the gateway."""
    with echo_gateway.client() as client:
        html = client.request("/docs").body.decode()
        for path in [*re.findall(r'(?:src|href)="([^"]+)"', html), "/openapi.json"]:
            answer = client.request(path)
            assert answer.status == 200, path
            assert len(answer.body) > 100
        style = client.request("/docs/static/swagger-ui.css").body.decode()
    assert not re.findall(r"url\(['\"]?(?:https?:)?//|@import", style)
    assert "://" not in html


def test_assets_are_revalidated_not_sent_again(echo_gateway: GatewayProcess) -> None:
    """An asset that the browser has is a 304 without a body, and no file outside the assets is served."""
    path = "/docs/static/swagger-ui-bundle.js"
    with echo_gateway.client() as client:
        tag = client.request(path).header("etag") or ""
        assert client.request(path, headers={"if-none-match": tag}).status == 304
        for outside in ("/docs/static/../core.py", "/docs/static/%2e%2e/core.py", "/docs/static//etc/passwd"):
            assert client.request(outside).status == 404
