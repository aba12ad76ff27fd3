"""The tree of commands. Each imports what it needs when it runs, so that help is quick and a start imports no more
than it serves with.
"""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli import admin, keys, prompt, registry, serve, usage
from gateway.cli.call import call


def build() -> typer.Typer:
    """The command line, ready to be called."""
    app = typer.Typer(
        name="llm-gateway",
        help="A stateless, multi-tenant gateway in front of large language models.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # rich is slow to import, and its boxes hide long names of options
        context_settings={"max_content_width": 120},
    )
    serve.add_to(app)
    app.add_typer(registry.build())
    app.add_typer(prompt.build())
    app.add_typer(keys.build())
    app.add_typer(usage.build())
    app.add_typer(admin.build())
    app.command("call")(call)
    app.add_typer(admin.build_cache())
    app.command("version")(_version)
    app.callback()(_options)
    return app


def _version_and_exit(wanted: bool) -> None:
    if wanted:
        _version()
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            is_eager=True,
            callback=_version_and_exit,
            show_default=False,
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command; an eager one has done its work by now."""


def _version() -> None:
    """Print the version of the gateway and of the Python it runs on."""
    import platform

    from gateway import __version__

    print(f"llm-gateway {__version__} (Python {platform.python_version()})")
