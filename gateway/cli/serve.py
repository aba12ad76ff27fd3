"""``serve``: start the gateway. Each field of the settings is an option, so that help is complete by construction."""

from __future__ import annotations

import inspect
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.settings import Settings
from gateway.settings.explain import bounds, default_text
from gateway.settings.schema import NO_DEFAULTS
from gateway.settings.sources import environment_name, extra_of, option_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic.fields import FieldInfo


def add_to(app: typer.Typer) -> None:
    """Register the commands that start a gateway."""
    app.command("serve", help="Serve until SIGTERM, then drain. Every option is also an environment variable.")(
        with_settings(_serve)
    )
    app.command("demo", help="Serve with a fresh key for the demo tenant, and print how to call it. For development.")(
        with_settings(_demo, _DEMO_DEFAULTS, reload=_RELOAD)
    )


_DEMO_DEFAULTS = MappingProxyType({"redis_url": "embedded", "drain_propagation_delay_s": "0s"})
"""What a demo does where nobody says otherwise; on a laptop nobody has to hear of a shutdown."""

_METAVARS = {"seconds": "DURATION", "bytes": "SIZE"}
_RELOAD = inspect.Parameter(
    "reload",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--reload", help="Start anew whenever the code changes.")],
)


def with_settings(
    run: Callable[..., int], defaults: Mapping[str, str] = NO_DEFAULTS, **extra: inspect.Parameter
) -> Callable[..., None]:
    """A command with every setting as an option; ``run`` gets the ``Settings`` and the ``extra`` parameters.

    ``defaults`` are values by field name that take the place of the setting's own default.
    """

    def command(**given: Any) -> None:
        own = {name: given.pop(name) for name in extra}
        raise typer.Exit(run(Settings.load(defaults, **given), **own))

    options = (
        _parameter(name, info, defaults.get(name, default_text(info))) for name, info in Settings.model_fields.items()
    )
    return _signed(command, inspect.Signature([*extra.values(), *options]))


def _signed(command: Callable[..., None], signature: inspect.Signature) -> Callable[..., None]:
    vars(command)["__signature__"] = signature  # what typer reads instead of **given
    return command


def _parameter(name: str, info: FieldInfo, default: str) -> inspect.Parameter:
    option = option_name(name)
    text = f"{info.description} [{environment_name(name)}{f', default {default}' if default else ''}]"
    annotation: Any
    if info.annotation is bool:
        both = f"{option}/--no-{option.removeprefix('--')}"
        annotation = Annotated[bool | None, typer.Option(both, help=text, show_default=False)]
    else:  # text, so that an option is read as a variable is
        metavar = _METAVARS.get(extra_of(info).get("unit", ""), "VALUE" if bounds(info) is None else "NUMBER")
        annotation = Annotated[str | None, typer.Option(option, help=text, show_default=False, metavar=metavar)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _serve(settings: Settings) -> int:
    from gateway.app.serve import serve

    return serve(settings)


def _demo(settings: Settings, *, reload: bool) -> int:
    from gateway.cli.demo import demo

    return demo(settings, reload=reload)
