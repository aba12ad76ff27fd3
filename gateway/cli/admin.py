"""``admin ...``: tenants, keys, limits, usage and rollouts of a running gateway, over its admin API.

A new key goes to standard output, once; everything that is said about it goes to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.cli.admin_client import AdminClient, connect

_Url = Annotated[
    str | None,
    typer.Option(help="Address of the management port, such as http://127.0.0.1:8081. [LLM_GATEWAY_ADMIN_URL]"),
]
_TokenFile = Annotated[
    Path | None, typer.Option(help="File with the token. Default: LLM_GATEWAY_ADMIN_TOKEN, or that of ..._READ_TOKEN.")
]
_Name = Annotated[str, typer.Argument(help="Name of the key.")]
_Tenant = Annotated[str, typer.Argument(help="Name of the tenant.")]
_ExpiresAt = Annotated[
    str | None, typer.Option(help="When the key ends, such as 2027-01-01T00:00:00Z. Default: never.")
]
_Write = Annotated[Path | None, typer.Option(help="File to write to, which must not exist yet. Default: print.")]

_KEY_COLUMNS: Final = ("name", "tenant", "state", "source", "expires", "scenarios", "limits")
_LEVEL_COLUMNS: Final = ("id", "mode", "limit", "remaining", "used", "reset")
_ROLLOUT_COLUMNS: Final = (
    "scenario",
    "percent",
    "state",
    "since",
    "canary",
    "failed",
    "p95",
    "base",
    "failed",
    "reason",
)
_USAGE_COLUMNS: Final = (
    "day",
    "key",
    "scenario",
    "backend",
    "requests",
    "input",
    "cached",
    "output",
    "usd",
    "estimated",
    "from cache",
)


def build() -> typer.Typer:
    """The commands that talk to a running gateway."""
    app = typer.Typer(name="admin", help="Look after a running gateway, over its admin API.", no_args_is_help=True)
    app.callback()(_connect)
    app.command("tenants")(_tenants)
    app.command("usage")(_usage)
    app.command("autoscaling")(_autoscaling)
    app.command("rollouts")(_rollouts)
    keys = typer.Typer(name="keys", help="Keys that live in Redis, and those of the files.", no_args_is_help=True)
    for name, command in _KEY_COMMANDS.items():
        keys.command(name)(command)
    app.add_typer(keys)
    limits = typer.Typer(name="limits", help="Levels of limits.", no_args_is_help=True)
    limits.command("list")(_levels)
    limits.command("reset")(_reset)
    app.add_typer(limits)
    return app


def build_cache() -> typer.Typer:
    """The commands that look after kept answers."""
    app = typer.Typer(name="cache", help="Look after the answers that are kept.", no_args_is_help=True)
    app.command("purge")(purge_cache)
    app.callback()(lambda: None)  # one command alone would have no name
    return app


def _connect(
    context: typer.Context,
    url: _Url = None,
    token_file: _TokenFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print answers as JSON instead of tables.")] = False,
) -> None:
    """Take what is common to all of them."""
    context.obj = cache(lambda: connect(url, token_file, as_json=as_json))  # not for the help of a command below


def _client(context: typer.Context) -> AdminClient:
    client = context.obj()
    assert isinstance(client, AdminClient)
    return client


def _tenants(context: typer.Context) -> None:
    """List tenants."""
    answer = _client(context).get("tenants")
    rows = [
        (each["name"], each["disabled"], len(each["models"]), [limit["name"] for limit in each["limits"]], each["keys"])
        for each in answer["tenants"]
    ]
    _client(context).show(answer, rows, ("name", "disabled", "models", "limits", "keys"))


def _rollouts(context: typer.Context) -> None:
    """List canaries: their share, what their calls showed, and whether they were withdrawn."""
    answer = _client(context).get("rollouts")
    _client(context).show(answer, map(_rollout_row, answer["rollouts"]), _ROLLOUT_COLUMNS)


def _rollout_row(rollout: Mapping[str, Any]) -> list[object]:
    canary, base = rollout["canary"], rollout["base"]
    shown = [rollout[field] for field in ("scenario", "percent", "state", "since")]
    counts = [canary["requests"], canary["failures"], rollout["firstTokenP95S"], base["requests"], base["failures"]]
    return [*shown, *counts, rollout["reason"]]


def _usage(
    context: typer.Context,
    tenant: _Tenant,
    first: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="First UTC day. Default: the last.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DAY", help="Last UTC day. Default: today.")] = None,
) -> None:
    """Show what a tenant used by day."""
    answer = _client(context).get("tenants", tenant, "usage", from_=first, to=last)
    fields: tuple[str, ...] = ("day", "key", "scenario", "backend", "requests", "inputTokens", "cachedInputTokens")
    fields += ("outputTokens", "costUsd", "estimatedRequests", "cachedRequests")
    rows = [[row[field] for field in fields] for row in answer["usage"]]
    _client(context).show(answer, rows, _USAGE_COLUMNS)


def _autoscaling(context: typer.Context) -> None:
    """Show how much work the fleet has under way."""
    answer = _client(context).get("autoscaling")
    columns = ("inflight_requests", "queued_requests")
    everything = f"all ({answer['scope']}, {answer['replicas']} replicas)"
    parts = [(everything, answer), *answer["backends"].items()]
    rows = [(name, *(part[column] for column in columns)) for name, part in parts]
    _client(context).show(answer, rows, ("backend", "in flight", "queued"))


def _list(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Those of one tenant only.")] = None,
) -> None:
    """List keys."""
    answer = _client(context).get("keys", tenant=tenant)
    _client(context).show(answer, map(_key_row, answer["keys"]), _KEY_COLUMNS)


def _show(context: typer.Context, name: _Name) -> None:
    """Show one key with its digests."""
    answer = _client(context).get("keys", name)
    rows = [(each["sha256"], each.get("expiresAt"), each["revoked"]) for each in answer["digests"]]
    _client(context).show(answer, rows, ("sha256", "expires", "revoked"))


def _create(
    context: typer.Context,
    tenant: Annotated[str, typer.Option(help="Name of the tenant that the key is for.")],
    name: Annotated[str | None, typer.Option(help="Name of the key. Default: made from the tenant.")] = None,
    scenario: Annotated[
        list[str] | None, typer.Option(help="Scenario that the key is narrowed to; may be repeated. Default: all.")
    ] = None,
    expires_at: _ExpiresAt = None,
) -> None:
    """Make a key in the gateway and print it, once."""
    body = {"tenant": tenant, "name": name, "scenarios": scenario or None, "expiresAt": expires_at}
    _print_key(_client(context).post("keys", body=body))


def _rotate(
    context: typer.Context,
    name: _Name,
    grace: Annotated[str, typer.Option(help="How long the key in use works on.", metavar="DURATION")] = "24h",
    expires_at: _ExpiresAt = None,
) -> None:
    """Make a new key under the same name and print it, once."""
    _print_key(_client(context).post("keys", name, "rotate", body={"grace": grace, "expiresAt": expires_at}))
    print(f"The key in use works on for {grace}.", file=sys.stderr)


def _revoke(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Name of a key that the API made.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Digest of any key, in the files or not, instead.")] = None,
) -> None:
    """Refuse a key for good."""
    if (name is None) == (sha256 is None):
        raise typer.BadParameter("give the name of a key or --sha256")
    if name is not None:
        answer = _client(context).post("keys", name, "revoke")
        _client(context).show(answer, [_key_row(answer)], _KEY_COLUMNS)
    else:
        answer = _client(context).post("revocations", body={"sha256": sha256})
        _client(context).show(answer, [(answer["sha256"], answer["revokedAt"])], ("sha256", "revoked"))


def _export(context: typer.Context, write: _Write = None) -> None:
    """Print the keys that the API made as ApiKey documents for the registry's files."""
    _write_documents(_client(context), write)


_KEY_COMMANDS: Final[Mapping[str, Callable[..., None]]] = {
    "list": _list,
    "show": _show,
    "create": _create,
    "rotate": _rotate,
    "revoke": _revoke,
    "export": _export,
}


def purge_cache(
    tenant: Annotated[str, typer.Option(help="Name of the tenant whose answers are forgotten.")],
    scenario: Annotated[str | None, typer.Option(help="Name of one scenario. Default: all of them.")] = None,
    url: _Url = None,
    token_file: _TokenFile = None,
) -> None:
    """Forget the kept answers of a tenant, on every replica."""
    connect(url, token_file).post("cache", "purge", body={"tenant": tenant, "scenario": scenario})
    print(f"What was kept of {tenant}{f' for {scenario}' if scenario else ''} is forgotten.", file=sys.stderr)


def export_keys(url: _Url = None, token_file: _TokenFile = None, write: _Write = None) -> None:
    """Print the keys that a running gateway's admin API made as ApiKey documents for the registry."""
    _write_documents(connect(url, token_file), write)


def _levels(context: typer.Context, tenant: _Tenant) -> None:
    """Show how much is left of every limit of a tenant and of its keys."""
    answer = _client(context).get("tenants", tenant, "levels")
    _client(context).show(answer, map(_level_row, answer["levels"]), _LEVEL_COLUMNS)


def _reset(
    context: typer.Context,
    tenant: _Tenant,
    limit: Annotated[str, typer.Argument(help="Id of the limit, as the list shows it.")],
) -> None:
    """Forget what was used of one limit."""
    answer = _client(context).post("tenants", tenant, "levels", limit, "reset")
    _client(context).show(answer, [_level_row(answer)], _LEVEL_COLUMNS)


def _level_row(level: Mapping[str, Any]) -> list[object]:
    return [level[field] for field in ("id", "mode", "limit", "remaining", "used")] + [f"{level['resetS']:.0f}s"]


def _key_row(key: Mapping[str, Any]) -> list[object]:
    ends = [each.get("expiresAt") for each in key["digests"] if not each["revoked"]]
    last = None if not ends or None in ends else max(ends)
    scenarios = key.get("scenarios")
    shown = "all" if scenarios is None else scenarios or "none"
    return [key["name"], key["tenant"], key["state"], key["source"], last, shown, key["limits"]]


def _print_key(made: Mapping[str, Any]) -> None:
    details = made["details"]
    print(f"The key {details['name']} of tenant {details['tenant']}, shown once and stored nowhere:", file=sys.stderr)
    print(made["key"], flush=True)


def _write_documents(client: AdminClient, path: Path | None) -> None:
    text = client.get_text("keys.yaml")
    if path is None:
        print(text, end="")
        return
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}", param_hint="--write") from None
