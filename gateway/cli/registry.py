"""``registry validate`` and ``registry schema``: for the people and pipelines that keep a registry in git."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway import clock
from gateway.cli.transfer import export_registry, import_registry


def build() -> typer.Typer:
    """The commands about the registry."""
    app = typer.Typer(
        name="registry",
        help="Check a registry, describe its format, and move it to a cluster or from one.",
        no_args_is_help=True,
    )
    app.command("validate")(_validate)
    app.command("schema")(_schema)
    app.command("import")(import_registry)
    app.command("export")(export_registry)
    return app


def _validate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the registry.")],
    secrets: Annotated[
        bool, typer.Option("--secrets", help="Also read the secrets that backends name, as a start would.")
    ] = False,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="The documents are for the cluster, where secrets are named by secretRef.")
    ] = False,
) -> None:
    """Print every error of a registry with file and field, and every warning; exit with 1 where there is an error."""
    from gateway.registry import AnySecret, load_folder
    from gateway.settings import SecretReader, Settings

    if secrets and cluster:
        raise typer.BadParameter("Secrets of the cluster are read by a gateway there alone", param_hint="--secrets")
    unread = AnySecret(cluster=cluster)
    source = SecretReader(Settings.load()) if secrets else unread
    result = load_folder(folder, source, None, clock.wall())  # which headers may be looked at is for who serves it
    for line in (*(f"error: {problem}" for problem in result.problems), *(f"warning: {w}" for w in result.warnings)):
        print(line, file=sys.stderr)
    if unread.asked:
        print(f"note: {unread.asked} secret(s) were not read; --secrets reads them, too", file=sys.stderr)
    if result.problems:
        print(f"{len(result.problems)} error(s) in {folder}", file=sys.stderr)
        raise typer.Exit(1)
    counts = [f"{count} {kind}" for (kind, _), count in sorted(result.snapshot.object_counts.items()) if count]
    print(f"{folder} is valid: {', '.join(counts) or 'empty'}")


def _schema(
    out: Annotated[
        Path | None, typer.Option(help="Folder for one JSON Schema file per kind. Default: print all of them.")
    ] = None,
) -> None:
    """Write the JSON Schemas of the registry's documents, for editors and other tools."""
    from gateway.registry import json_schemas

    schemas = json_schemas()
    if out is None:
        print(json.dumps(schemas, indent=2))
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, schema in schemas.items():
            (out / f"{name}.json").write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{out} cannot be written: {error.strerror}", param_hint="--out") from None
