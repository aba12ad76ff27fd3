"""``keys create``: make an API key. The key is shown once; what is stored holds only its digest.

With ``--redis`` it is stored in the gateways' Redis, and the key works within seconds; else its document is printed.

``keys export`` writes the keys that the admin API of a running gateway made as such documents.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from gateway import clock
from gateway.cli.admin import export_keys


def build() -> typer.Typer:
    """The commands about API keys."""
    app = typer.Typer(name="keys", help="Make API keys, and export those of a gateway.", no_args_is_help=True)
    app.command("create")(_create)
    app.command("export")(export_keys)
    return app


def _create(
    tenant: Annotated[str, typer.Option(help="Name of the tenant that the key is for.")],
    name: Annotated[str | None, typer.Option(help="Name of the document. Default: made from the tenant.")] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(help="Scenario that the key is narrowed to; may be repeated. Default: all."),
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option(help="When the key ends, such as 2027-01-01T00:00:00Z. Default: never.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="File for the document, which must not exist yet. Default: print it.")
    ] = None,
    redis: Annotated[
        bool, typer.Option("--redis", help="Store it in the Redis of the gateways instead of printing a document.")
    ] = False,
) -> None:
    """Print a new key once, and the ApiKey document to store in the registry."""
    from gateway.registry.keys import api_key_document, generate_key, key_digest
    from gateway.registry.values import label, subdomain

    if redis and write is not None:
        raise typer.BadParameter("expected either --write or --redis")
    _checked(label, tenant, "--tenant")
    key = generate_key()
    digest = key_digest(key)
    document = api_key_document(
        _checked(subdomain, name or f"{tenant}-{digest.hex()[:8]}", "--name"),
        tenant,
        digest,
        expires_at=None if expires_at is None else _checked(_future, expires_at, "--expires-at"),
        scenarios=[_checked(subdomain, each, "--scenario") for each in scenario] if scenario else None,
    )
    if write is not None:
        _write_new(write, document)
    if redis:
        _keep(document)
    if (folder := _registry_without(tenant)) is not None:
        print(
            f"warning: the registry {folder} has no tenant {tenant!r}, and refuses the key until it has",
            file=sys.stderr,
        )
    print("The key, shown once and stored nowhere:", file=sys.stderr)
    print(key)
    if write is None and not redis:
        print("The document to store in the registry:", file=sys.stderr, flush=True)
        print(document, end="")


def _keep(document: str) -> None:
    import yaml

    from gateway.cli.redis_keys import keep_in_redis

    keep_in_redis(yaml.safe_load(document))


def _registry_without(tenant: str) -> Path | None:
    """The registry's folder where there is one that can be read and has no such tenant."""
    from gateway.errors import SettingsInvalid
    from gateway.registry import AnySecret, load_folder
    from gateway.settings import Settings

    try:
        folder = Settings.load().registry
    except SettingsInvalid:  # of no matter for a key
        return None
    if not folder.is_dir():
        return None
    state = load_folder(folder, AnySecret(), None, clock.wall()).state
    return None if state.holds("Tenant", tenant) else folder


_Checked = TypeVar("_Checked")


def _checked(check: Callable[[str], _Checked], value: str, option: str) -> _Checked:
    try:
        return check(value)
    except ValueError as error:
        raise typer.BadParameter(f"{value!r} {error}", param_hint=option) from None


def _future(value: str) -> float:
    from gateway.registry.values import unix_s

    moment = unix_s(value)
    if moment <= clock.wall():
        raise ValueError("must be in the future")
    return moment


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}", param_hint="--write") from None
