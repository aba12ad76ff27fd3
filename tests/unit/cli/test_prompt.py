"""What someone who writes prompts sees of ``prompt render`` and ``prompt diff``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli.commands import build

HEAD = "apiVersion: llmgateway.dev/v1alpha1\n"


def run(*arguments: str) -> Result:
    """Run a command about prompts in this process."""
    return CliRunner().invoke(build(), ["prompt", *arguments])


@pytest.fixture
def registry(tmp_path: Path) -> str:
    """Two versions of a prompt, a broken third, and a scenario that places the second."""
    folder = tmp_path / "registry" / "prompts" / "greet"
    folder.mkdir(parents=True)
    (folder / "v1.yaml").write_text("version: v1\ninput_vars: [who]\ntemplate: |\n  Be kind.\n  Greet {who}.\n")
    (folder / "v2.yaml").write_text(
        "version: v2\ninput_vars: [who, input]\ntemplate: |\n  Be kind.\n  Greet {who}: {input}\n"
    )
    (folder / "v3.yaml").write_text("version: v3\ntemplate: Greet {who}.\n")
    (tmp_path / "registry" / "rest.yaml").write_text(
        f"{HEAD}kind: Backend\nmetadata: {{name: echo}}\nspec: {{provider: echo}}\n---\n{HEAD}kind: Scenario\n"
        "metadata: {name: hello}\n"
        "spec: {prompt: greet.v2, promptPlacement: developer, targets: [{backend: echo}], access: {tenants: ['*']}}\n"
    )
    return str(tmp_path / "registry")


def test_render_shows_what_would_be_sent(registry: str) -> None:
    """The messages with their roles; a value is text whatever it holds."""
    result = run("render", "greet.v1", "--var", "who={who}=you", "--input", "Hi", "--registry", registry)
    assert result.stdout == "[system]\nBe kind.\nGreet {who}=you.\n[user]\nHi\n"


def test_render_places_the_prompt_as_the_scenario_says(registry: str) -> None:
    """As JSON it is what goes upstream, character for character."""
    asked = ("render", "greet.v2", "--var", "who=Ann", "--input", "Hi", "--json", "--registry", registry)
    assert json.loads(run(*asked).stdout) == [{"role": "user", "content": "Be kind.\nGreet Ann: Hi\n"}]
    placed = json.loads(run(*asked, "--scenario", "hello").stdout)
    assert placed == [
        {"role": "developer", "content": "Be kind.\nGreet Ann: Hi\n"},
        {"role": "user", "content": "Hi"},
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("greet.v1",), "needs the variable `who`"),
        (("greet.v1", "--var", "who"), "is not NAME=VALUE"),
        (("greet.v1", "--var", "who=x", "--var", "what=y"), "no variable `what`"),
        (("greet.v9",), "there are: greet.v1, greet.v2"),
        (("greet.v3",), "which inputVars does not declare"),
        (("greet.v1", "--var", "who=x", "--scenario", "nope"), "no scenario nope"),
    ],
)
def test_what_cannot_be_rendered(registry: str, arguments: tuple[str, ...], said: str) -> None:
    """The reason names what is missing, and what is wrong with a prompt that was refused."""
    result = run("render", *arguments, "--registry", registry)
    assert result.exit_code != 0
    assert said in result.stderr


def test_diff_shows_variables_and_lines(registry: str) -> None:
    """First which variables come and go, then the changed lines in their surroundings."""
    result = run("diff", "greet.v1", "greet.v2", "--registry", registry)
    assert result.stdout.splitlines() == [
        "+ variable input",
        "--- greet.v1",
        "+++ greet.v2",
        "@@ -1,2 +1,2 @@",
        " Be kind.",
        "-Greet {who}.",
        "+Greet {who}: {input}",
    ]
    assert "- variable input" in run("diff", "greet.v2", "greet.v1", "--registry", registry).stdout
    assert run("diff", "greet.v1", "greet.v1", "--registry", registry).stdout == "greet.v1 and greet.v1 say the same\n"
