"""``prompt render`` and ``prompt diff``: for the people who write prompts.

What is shown is made by the same code that serves, from the registry's folder; no gateway has to run and no secret is
read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway import clock

if TYPE_CHECKING:
    from gateway.registry import LoadResult, PromptDocument

_Registry = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the registry. Default: that of the settings.")
]
_Name = Annotated[str, typer.Argument(metavar="NAME.VERSION", help="Name of the prompt.")]


def build() -> typer.Typer:
    """The commands about prompts."""
    app = typer.Typer(name="prompt", help="Try a prompt, and compare its versions.", no_args_is_help=True)
    app.command("render")(_render)
    app.command("diff")(_diff)
    return app


def _render(
    name: _Name,
    var: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Value of a variable; once for each.")
    ] = None,
    said: Annotated[str | None, typer.Option("--input", help="What the user says in this call.")] = None,
    scenario: Annotated[
        str | None, typer.Option(help="Scenario whose promptPlacement counts. Default: the placement of no scenario.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the messages as JSON, as they are sent.")] = False,
    registry: _Registry = None,
) -> None:
    """Show the messages that a backend would be sent."""
    from gateway.dialects.openai.request import read_scenario_request
    from gateway.errors import GatewayError
    from gateway.model import Scenario
    from gateway.registry import compile_prompt
    from gateway.scenarios import render

    loaded = _load(registry)
    prompt = compile_prompt(_prompt(loaded, name))
    placement = None
    if scenario is not None:
        known = loaded.snapshot.scenarios
        if scenario not in known:
            raise typer.BadParameter(f"there is no scenario {scenario}", param_hint="--scenario")
        placement = known[scenario].prompt_placement
    body: dict[str, Any] = {"variables": dict(map(_variable, var or []))}
    if said is not None:
        body["input"] = said
    try:
        request = read_scenario_request(json.dumps(body).encode(), len(body), name)
        rendered = render(Scenario(name=name, prompt=prompt, prompt_placement=placement), request)
    except GatewayError as error:
        raise typer.BadParameter(error.message) from None
    messages = json.loads(bytes(rendered.fields["messages"]))
    if as_json:
        print(json.dumps(messages, indent=2, ensure_ascii=False))
    else:
        print("\n".join(f"[{message['role']}]\n{message['content'].rstrip()}" for message in messages))


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"`{text}` is not NAME=VALUE", param_hint="--var")
    return name, value


def _diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Name of the one prompt, NAME.VERSION.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Name of the other.")],
    registry: _Registry = None,
) -> None:
    """Show what another prompt, or version of it, has otherwise: variables first, then the lines of the template."""
    import difflib

    loaded = _load(registry)
    before, after = _prompt(loaded, old).spec, _prompt(loaded, new).spec
    gone = [name for name in before.input_vars if name not in after.input_vars]
    come = [name for name in after.input_vars if name not in before.input_vars]
    lines = [*(f"- variable {name}" for name in gone), *(f"+ variable {name}" for name in come)]
    texts = before.template.splitlines(), after.template.splitlines()
    lines += difflib.unified_diff(*texts, fromfile=old, tofile=new, lineterm="")
    print("\n".join(lines) if lines else f"{old} and {new} say the same")


def _load(folder: Path | None) -> LoadResult:
    from gateway.registry import AnySecret, load_folder
    from gateway.settings import Settings

    return load_folder(folder or Settings.load().registry, AnySecret(), None, clock.wall())


def _prompt(loaded: LoadResult, name: str) -> PromptDocument:
    """The prompt of this name; what is wrong with it is told where that is why it cannot be had."""
    prompts = loaded.state.prompts()
    if name in prompts:
        return prompts[name]
    for problem in loaded.problems:
        if problem.object in ("", f"Prompt/{name}"):
            print(f"error: {problem}", file=sys.stderr)
    known = ", ".join(sorted(prompts)) or "none"
    raise typer.BadParameter(f"there is no prompt {name}; there are: {known}", param_hint="NAME.VERSION")
