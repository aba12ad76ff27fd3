"""Every setting of the gateway: its type, unit, bounds, default and one sentence of what it does.

Invariant: a ``Settings`` value is complete, checked and frozen; nothing asks the environment after it was made. The
table in ``docs/settings.md`` and the options of ``llm-gateway serve`` are made from these fields. Values are taken
from options first, then the process environment, then ``.env.<environment>``, then ``.env``, then the default.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.errors import SettingsInvalid
from gateway.model import IPNetwork
from gateway.settings import units
from gateway.settings.explain import explain
from gateway.settings.sources import (
    PREFIX,
    VariablesSource,
    environment_name,
    process_environment,
    read_variables,
    unknown_names,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.settings.units import Address

Duration = Annotated[float, BeforeValidator(units.parse_duration)]
Size = Annotated[int, BeforeValidator(units.parse_size)]
TextList = Annotated[tuple[str, ...], BeforeValidator(units.split_list)]
Networks = Annotated[
    tuple[IPNetwork, ...], BeforeValidator(lambda value: units.parse_networks(units.split_list(value)))
]

NO_DEFAULTS: Mapping[str, Any] = MappingProxyType({})
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?|\*")
_REDIS_URL = re.compile(r"embedded|(?:rediss?|unix)://\S+")
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104  # compared with, not bound to


def _seconds(default: float, least: float, most: float, description: str) -> Any:
    return Field(default, ge=least, le=most, description=description, json_schema_extra={"unit": "seconds"})


def _bytes(default: int, least: int, most: int, description: str) -> Any:
    return Field(default, ge=least, le=most, description=description, json_schema_extra={"unit": "bytes"})


def _count(default: int, least: int, most: int, unit: str, description: str) -> Any:
    return Field(default, ge=least, le=most, description=description, json_schema_extra={"unit": unit})


def _value(default: Any, expected: str, description: str, *, secret: bool = False) -> Any:
    extra: dict[str, Any] = {"expected": expected} | ({"secret": True} if secret else {})
    return Field(default, description=description, json_schema_extra=extra, repr=not secret)


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


class Settings(BaseSettings):
    """The settings of one gateway process tree; frozen. Make it with ``Settings.load``.

    Names that end in ``_s`` are seconds, in ``_bytes`` bytes.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )

    # What is served
    registry: Path = _value(Path("registry"), "a folder", "Folder of the registry's YAML documents.")
    registry_source: Literal["folder"] = _value(
        "folder",
        "folder (this version reads the registry from a folder only)",
        "Where the registry is read from.",
    )
    registry_poll_s: Duration = _seconds(1, 0.1, 1.5, "How often the registry's folder is looked at for changes.")
    secrets_dir: Path | None = _value(
        None, "an existing folder", "Folder below which backends may name files with secrets."
    )
    default_scenario: str | None = _value(
        None,
        "a name of 1 to 253 characters",
        "Scenario of `/generate` and `/chat/completion` when the request names no model.",
    )

    # The process
    listen: str = _value(
        "127.0.0.1:8080",
        "HOST:PORT such as 127.0.0.1:8080 or [::1]:8080",
        "Address of the data port, which tenants call; port 0 takes a free one.",
    )
    management_listen: str = _value(
        "127.0.0.1:8081",
        "HOST:PORT such as 127.0.0.1:8081 or [::1]:8081",
        "Address of the management port with health and metrics, which tenants must not reach.",
    )
    workers: int = _count(
        1,
        1,
        64,
        "processes",
        "Worker processes that share the data port. Each may make its"
        " even share, at least 1, of the calls that a backend's maxConcurrentRequests allows.",
    )
    redis_url: str | None = _value(
        None,
        "redis://, rediss:// or unix:// with an address, or the word embedded",
        "Redis for state that replicas will share; nothing of this version uses it yet, and it is not connected to."
        " `embedded` starts a Valkey on loopback that ends with this process.",
        secret=True,
    )
    environment: Literal["development", "staging", "production"] = Field(
        "development", description="Name in the log lines, and which `.env.<environment>` file is read as well."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lambda v: str(v).lower())] = (
        Field("info", description="Least severe level of the process log; the line per request is always written.")
    )
    log_queue_lines: int = _count(
        10000, 100, 1000000, "lines", "Log lines that may wait for a slow reader of stdout before lines are dropped."
    )
    metrics_max_tenants: int = _count(
        1000, 1, 100000, "tenants", "Tenants with label values of their own; further ones are counted as `other`."
    )
    docs: bool = Field(True, description="Whether the data port serves `/docs` and `/openapi.json`.")

    # A drain
    drain_s: Duration = _seconds(
        600, 0, 86400, "Time from SIGTERM until streams that are still open are closed; includes the propagation delay."
    )
    drain_propagation_delay_s: Duration = _seconds(
        5,
        0,
        300,
        "Time from SIGTERM during which new connections are still accepted; where it is not set, no longer than the"
        " drain.",
    )

    # Clients
    max_body_bytes: Size = _bytes(20 * 2**20, 1024, 2**30, "Largest request body; a larger one is answered 413.")
    max_header_bytes: Size = _bytes(32768, 1024, 2**20, "Largest request head in all.")
    max_header_count: int = _count(100, 10, 1000, "headers", "Most headers of a request.")
    max_top_level_fields: int = _count(256, 16, 10000, "fields", "Most top-level fields of a request's JSON body.")
    max_connections: int = _count(
        20000, 1, 1000000, "connections", "Client connections per worker; a further one is answered 503 and closed."
    )
    client_header_timeout_s: Duration = _seconds(
        10, 0.1, 600, "Time from the first byte of a request's head to its end."
    )
    client_body_timeout_s: Duration = _seconds(60, 0.1, 3600, "Time for a whole request body to arrive.")
    client_write_timeout_s: Duration = _seconds(60, 0.1, 3600, "Time a client may take no byte of its reply.")
    client_keep_alive_s: Duration = _seconds(
        75, 0, 3600, "Idle time of a client connection between requests, and before the first."
    )
    client_connection_max_age_s: Duration = _seconds(
        600, 1, 86400, "Age after which a client connection is closed between requests, so that new replicas get load."
    )
    trusted_proxies: Networks = _value(
        (),
        "networks such as 10.0.0.0/8,::1/128, separated by commas",
        "Networks of the proxies whose `x-forwarded-for` is believed.",
    )
    cors_allow_origins: TextList = _value(
        (),
        "origins such as https://app.example separated by commas, or *",
        "Origins of web pages that may call the data port; empty turns CORS off.",
    )
    expose_backend: bool = Field(
        False, description="Whether replies name the backend in the header `x-llm-gateway-backend`."
    )

    # Backends
    max_attempts: int = _count(
        4, 1, 16, "attempts", "Most backends that one request is tried on, the first one included."
    )
    upstream_ca_file: Path | None = _value(
        None, "an existing file", "PEM file with the certificate authorities of backends, instead of the system's."
    )
    upstream_max_connections: int = _count(
        20000, 1, 1000000, "connections", "Connections per origin of backends and worker, idle ones included."
    )
    upstream_max_idle_connections: int = _count(
        256, 0, 100000, "connections", "Idle connections kept per origin of backends and worker."
    )
    upstream_idle_s: Duration = _seconds(30, 0, 3600, "Idle time after which a connection to a backend is closed.")
    upstream_connection_max_age_s: Duration = _seconds(
        300, 1, 86400, "Age after which a connection to a backend is not used again."
    )
    upstream_dns_ttl_s: Duration = _seconds(5, 0, 3600, "How long the addresses of a backend's host name are kept.")
    upstream_max_header_bytes: Size = _bytes(65536, 1024, 2**20, "Largest head of a backend's response.")
    upstream_max_header_count: int = _count(128, 10, 1000, "headers", "Most headers of a backend's response.")
    upstream_max_body_bytes: Size = _bytes(64 * 2**20, 1024, 2**30, "Largest plain reply of a backend.")
    upstream_max_error_body_bytes: Size = _bytes(
        2**20, 1024, 2**26, "How much of a backend's error body is read before the connection is closed."
    )
    upstream_max_event_bytes: Size = _bytes(2**20, 1024, 2**26, "Largest single event of a backend's stream.")

    @classmethod
    def load(cls, defaults: Mapping[str, Any] = NO_DEFAULTS, /, **overrides: Any) -> Self:
        """The settings of this process; ``overrides`` are values by field name that win, None meaning not given.

        ``defaults`` are values by field name that count where no source sets the field. Raises ``SettingsInvalid``,
        its text one line per wrong setting with the name and what was expected.
        """
        given = {name: value for name, value in overrides.items() if value is not None}
        try:
            settings = cls(**given)
            missing = {name: value for name, value in defaults.items() if name not in settings.model_fields_set}
            return cls(**given, **missing) if missing else settings
        except ValidationError as error:
            raise SettingsInvalid(explain(error, cls.model_fields, given)) from None

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Our own sources instead of those of pydantic-settings: exact names, text values, secrets from files."""
        environment = init_settings().get("environment")
        sources = read_variables(Path(), str(environment) if environment else None)
        return init_settings, *(VariablesSource(settings_cls, variables) for variables in sources)

    def unknown_variables(self) -> tuple[str, ...]:
        """Variables that look like settings and are none, sorted: most likely misspelt ones."""
        return unknown_names(read_variables(Path(), self.environment), type(self).model_fields)

    def as_environment(self) -> dict[str, str]:
        """The environment for a process that is to load these same settings."""
        values = {name: getattr(self, name) for name in sorted(self.model_fields_set)}
        return process_environment({name: _as_text(value) for name, value in values.items() if value is not None})

    @property
    def listen_address(self) -> Address:
        """``listen`` in its parts."""
        return units.parse_address(self.listen)

    @property
    def management_address(self) -> Address:
        """``management_listen`` in its parts."""
        return units.parse_address(self.management_listen)

    @field_validator("listen", "management_listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        units.parse_address(value)
        return value

    @field_validator("secrets_dir", "upstream_ca_file")
    @classmethod
    def _exists(cls, value: Path | None, info: Any) -> Path | None:
        if value is not None and not (value.is_dir() if info.field_name == "secrets_dir" else value.is_file()):
            raise ValueError("does not exist")
        return value

    @field_validator("default_scenario")
    @classmethod
    def _is_name(cls, value: str | None) -> str | None:
        if value is not None and not 1 <= len(value) <= 253:
            raise ValueError("not a name")
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, value: str | None) -> str | None:
        if value is not None and _REDIS_URL.fullmatch(value) is None:
            raise ValueError("not the address of a Redis")
        return value

    @field_validator("cors_allow_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_ORIGIN.fullmatch(origin) for origin in value):
            raise ValueError("not an origin")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        data, management = self.listen_address, self.management_address
        overlap = data.host == management.host or not _EVERYWHERE.isdisjoint((data.host, management.host))
        if data.port and data.port == management.port and overlap:
            raise ValueError(
                f"{environment_name('management_listen')}: expected another address than"
                f" {environment_name('listen')}, got {self.management_listen!r} beside {self.listen!r}"
            )
        if self.drain_propagation_delay_s > self.drain_s:
            if "drain_propagation_delay_s" in self.model_fields_set:
                raise ValueError(
                    f"{environment_name('drain_propagation_delay_s')}: expected at most {environment_name('drain_s')}"
                    f" ({units.format_duration(self.drain_s)}), which includes it,"
                    f" got {units.format_duration(self.drain_propagation_delay_s)!r}"
                )
            vars(self)["drain_propagation_delay_s"] = self.drain_s  # the value is frozen from here on
        if self.upstream_max_idle_connections > self.upstream_max_connections:
            raise ValueError(
                f"{environment_name('upstream_max_idle_connections')}: expected at most"
                f" {environment_name('upstream_max_connections')} ({self.upstream_max_connections})"
            )
        return self
