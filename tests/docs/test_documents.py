"""Documents say what the code does: settings, metrics, commands, links and examples."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from gateway import __version__, clock
from gateway.cli.commands import build
from gateway.registry import AnySecret, json_schemas, load_folder
from gateway.registry.docs import replace_tables
from gateway.settings import Settings
from gateway.settings.docs import replace_table
from gateway.settings.sources import environment_name

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "bench/*.md", "k8s/**/*.md", "charts/*/*.md", "k8s/**/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "RESULTS.md"
)


@cache
def text_of(path: Path) -> str:
    """The text of a document."""
    return path.read_text(encoding="utf-8")


def code_blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a document in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(path), re.MULTILINE | re.DOTALL)


def test_table_of_settings_is_that_of_the_code() -> None:
    """A setting that is added, changed or removed changes docs/settings.md; ``make docs`` writes it."""
    document = text_of(ROOT / "docs/settings.md")
    assert document == replace_table(document), "run `make docs`"


def test_tables_of_the_registry_are_those_of_the_code() -> None:
    """A field that is added, changed or removed changes docs/registry.md; ``make docs`` writes it."""
    document = text_of(ROOT / "docs/registry.md")
    assert document == replace_tables(document), "run `make docs`"


def test_each_field_of_the_registry_is_described() -> None:
    """A person who writes a document finds a sentence for everything that may stand in it."""

    def silent(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            fields = node.get("properties", {})
            yield from (name for name, field in fields.items() if not field.get("description"))
            for value in node.values():
                yield from silent(value)

    schemas = {name: schema for name, schema in json_schemas().items() if name != "registry"}
    assert {name: list(silent(schema)) for name, schema in schemas.items()} == {name: [] for name in schemas}


def test_each_setting_has_one_row() -> None:
    """The table is complete, so that a setting can be found there."""
    document = text_of(ROOT / "docs/settings.md")
    for name in Settings.model_fields:
        assert len(re.findall(rf"^\| `{environment_name(name)}`", document, re.MULTILINE)) == 1, name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files(path: Path) -> None:
    """A link inside the repository names something that is there."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text_of(path)):
        assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_make_targets_exist(path: Path) -> None:
    """What a document tells to type is in the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    for target in re.findall(r"(?:`|^)make (?:[A-Z]+=\S+ )?([a-z]+)", text_of(path), re.MULTILINE):
        assert target in targets, target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_variables_exist(path: Path) -> None:
    """A variable with our prefix that a document names is a setting, a secret, or said to be ignored."""
    known = {environment_name(name) for name in Settings.model_fields}
    known |= {name + "_FILE" for name in known} | {"LLM_GATEWAY_KEY", "LLM_GATEWAY_PORT", "LLM_GATEWAY_SERVICE_HOST"}
    for name in re.findall(r"LLM_GATEWAY_[A-Z0-9_]*[A-Z0-9]", text_of(path)):
        assert name in known or name.startswith("LLM_GATEWAY_SECRET"), name


def commands_in(path: Path) -> Iterator[list[str]]:
    """The words of each ``llm-gateway`` command in a document, in a block of code or between backticks."""
    text = text_of(path)
    shown = [line for block in code_blocks(path, "sh") for line in block.replace("\\\n", " ").splitlines()]
    shown += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    for line in shown:
        if found := re.match(r"(?:\.venv/bin/)?llm-gateway (.*)", line):
            yield shlex.split(found[1], comments=True)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_exist(path: Path) -> None:
    """Each ``llm-gateway`` command of a document with its options is one that the command line knows."""
    for words in commands_in(path):
        command: Any = typer.main.get_command(build())
        known: set[str] = set(options_of(command))
        rest = list(words)
        while rest and hasattr(command, "commands"):
            word = rest.pop(0)
            if not word.startswith("-"):
                assert word in command.commands, words
                command = command.commands[word]
                known |= options_of(command)
        assert {word for word in words if word.startswith("--")} <= known, words


def options_of(command: Any) -> set[str]:
    """The long names of a command's options."""
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def test_the_readme_shows_commands_of_every_group() -> None:
    """Nobody has to guess that there are some."""
    groups = {"serve", "keys", "registry", "prompt", "usage", "admin"}
    assert {words[0] for words in commands_in(ROOT / "README.md")} >= groups


def test_yaml_of_the_readme_loads_beside_the_example_registry(tmp_path: Path) -> None:
    """A newcomer who copies it gets a registry without problems."""
    for path in (ROOT / "registry").rglob("*.yaml"):
        relative = path.relative_to(ROOT / "registry")
        if relative.parts[0] != "local":
            (tmp_path / relative).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / relative).write_bytes(path.read_bytes())
    for number, block in enumerate(code_blocks(ROOT / "README.md", "yaml")):
        assert list(yaml.safe_load_all(block))
        (tmp_path / f"readme-{number}.yaml").write_text(block)

    result = load_folder(tmp_path, AnySecret(), None, clock.wall())
    assert [str(problem) for problem in result.problems] == []
    assert "chat" in result.snapshot.tenants["demo"].scenarios


def test_changelog_is_in_its_form() -> None:
    """Keep a Changelog: newest first, and what is not released yet on top; the released version is listed."""
    headings = re.findall(r"^## \[(.*?)\]", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert len(headings) == 1 or __version__ in headings


def test_each_decision_is_listed() -> None:
    """docs/adr/README.md names every record in order with its title, and no two have one number."""
    folder = ROOT / "docs/adr"
    listed = re.findall(r"^\| \[(\d{4})\]\((\S+)\) \| (.*) \|$", text_of(folder / "README.md"), re.MULTILINE)
    records = sorted(path for path in folder.glob("[0-9]*.md") if path.name != "0000-template.md")
    titles = [text_of(path).partition("\n")[0].removeprefix("# ") for path in records]
    assert [(f"{number}: {title}", name) for number, name, title in listed] == [
        (title, path.name) for title, path in zip(titles, records, strict=True)
    ]
    assert len({number for number, _, _ in listed}) == len(records)


def test_the_map_has_each_package_once_and_in_the_order_of_the_layers() -> None:
    """Who looks for a package finds one row, and rows are in the order in which imports point down."""
    contracts = tomllib.loads(text_of(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "layers")
    depth = {name: number for number, layer in enumerate(layers) for name in re.findall(r"\w+", layer)}
    section = text_of(ROOT / "CONTRIBUTING.md").split("## The map of the house")[1].split("\n\nOnly ")[0]
    rows = [re.findall(r"`(\w+)(?:\.py)?`", row) for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)]
    named = [name for row in rows for name in row]
    assert sorted(named) == sorted(depth)
    assert [depth[name] for name in named] == sorted(depth.values())


def test_each_action_of_the_audit_is_told() -> None:
    """Who alerts on changes of the admin API knows their names."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "gateway/app").glob("*.py"))
    actions = set(re.findall(r'_audit\("([a-z.]+)"', sources))
    assert {action for action in actions if f"`{action}`" not in text_of(ROOT / "docs/admin.md")} == set()
    assert len(actions) > 1
