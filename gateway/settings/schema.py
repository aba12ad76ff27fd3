"""Every setting of the gateway: its type, unit, bounds, default and one sentence of what it does.

Invariant: a ``Settings`` value is complete, checked and frozen; nothing asks the environment after it was made. The
table in ``docs/settings.md`` and the options of ``llm-gateway serve`` are made from these fields. Values are taken
from options first, then the process environment, then ``.env.<environment>``, then ``.env``, then the default.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.errors import SettingsInvalid
from gateway.settings import units
from gateway.settings.cluster import ClusterSettings
from gateway.settings.explain import explain
from gateway.settings.fields import Duration, Networks, Size, TextList
from gateway.settings.fields import count as _count
from gateway.settings.fields import seconds as _seconds
from gateway.settings.fields import size as _bytes
from gateway.settings.fields import value as _value
from gateway.settings.sources import (
    PREFIX,
    VariablesSource,
    environment_name,
    process_environment,
    read_variables,
    secret_files,
    unknown_names,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.settings.units import Address

NO_DEFAULTS: Mapping[str, Any] = MappingProxyType({})
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?|\*")
_REDIS_URL = re.compile(r"embedded|(?:rediss?(?:\+(?:sentinel|cluster))?|unix)://\S+")
_TOKEN = re.compile(r"[\x21-\x7e]{16,512}")
_BASE_URL = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]*)?")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,128}")
_CREDENTIALS = frozenset("authorization proxy-authorization cookie x-api-key api-key".split())
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104  # compared with, not bound to


def is_token(text: str) -> bool:
    """Whether a text may be a token of the admin API."""
    return _TOKEN.fullmatch(text) is not None


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


class Settings(ClusterSettings):
    """The settings of one gateway process tree; frozen. Make it with ``Settings.load``.

    Names that end in ``_s`` are seconds, in ``_bytes`` bytes.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )

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
    drain_idle_s: Duration = _seconds(
        2,
        0,
        300,
        "How long after SIGTERM, or after a response that could not announce it, a kept connection may still bring a"
        " request before it is closed.",
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

    # The admin API
    admin_token: str | None = _value(
        None,
        "16 to 512 visible ASCII characters without a space",
        "Bearer token of the admin API on the management port. Without it and the next one there is no such API.",
        secret=True,
    )
    admin_read_token: str | None = _value(
        None,
        "16 to 512 visible ASCII characters without a space",
        "Bearer token with which the admin API shows everything and changes nothing.",
        secret=True,
    )
    admin_url: str | None = _value(
        None,
        "http:// or https:// with a host",
        "Where `llm-gateway admin` finds the management port of a gateway; without it at the management address.",
    )
    keys_poll_s: Duration = _seconds(
        0.5, 0.1, 1, "How often the keys and revocations of the admin API are looked at in Redis."
    )
    keys_max: int = _count(
        10000, 1, 100000, "records", "Keys and revocations in Redis from which on the admin API makes no more keys."
    )
    keys_cache_file: Path | None = _value(
        None,
        "a file in an existing folder",
        "File that keeps the digests and revocations last read from Redis, for a start while Redis is away. Without it"
        " a gateway with an admin token is not ready until Redis has answered once.",
    )

    # Backends
    max_attempts: int = _count(
        4, 1, 16, "attempts", "Most backends that one request is tried on, the first one included."
    )
    backend_queue_probe_s: Duration = _seconds(
        0.5,
        0.05,
        60,
        "How often a process tries again, with one request, whether a backend is ready that others wait for.",
    )
    upstream_ca_file: Path | None = _value(
        None, "an existing file", "PEM file with the certificate authorities of backends, instead of the system's."
    )
    upstream_token_timeout_s: Duration = _seconds(
        10, 0.1, 60, "Time for asking for an access token, such as that of a Google service account."
    )
    upstream_token_renew_s: Duration = _seconds(
        300, 1, 3600, "How long before its end an access token is renewed, but not in the first half of its time."
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
    aws_timeout_s: Duration = _seconds(
        5, 0.1, 60, "Time for asking AWS for the keys of the gateway's role, where a backend is signed for with it."
    )
    upstream_max_event_bytes: Size = _bytes(2**20, 1024, 2**26, "Largest single event of a backend's stream.")

    # Scenarios
    answer_check_max_bytes: Size = _bytes(
        262144,
        1024,
        2**24,
        "Largest text of an answer that is held against its scenario's schema, and kept of a stream for it.",
    )

    # Token issuers
    oidc_ca_file: Path | None = _value(
        None, "an existing file", "PEM file with the certificate authorities of token issuers, instead of the system's."
    )
    oidc_timeout_s: Duration = _seconds(5, 0.1, 60, "Time for fetching the keys of a token issuer.")
    oidc_max_document_bytes: Size = _bytes(
        262144, 1024, 2**24, "Largest discovery document, and largest set of keys, of a token issuer."
    )
    oidc_keys_ttl_s: Duration = _seconds(
        600, 1, 86400, "Age after which the keys of a token issuer are fetched again; until then they stay in use."
    )
    oidc_refresh_interval_s: Duration = _seconds(
        10, 0.1, 3600, "Shortest time between two fetches of a token issuer's keys, whatever tokens ask for."
    )
    oidc_leeway_s: Duration = _seconds(
        30, 0, 300, "How much the clocks of token issuers may differ: added to the end of a token and to its start."
    )
    oidc_max_token_bytes: Size = _bytes(8192, 512, 2**20, "Largest JWT; a larger one is answered 401.")
    oidc_max_verified_tokens: int = _count(
        4096, 0, 1000000, "tokens", "Tokens per worker whose verified signature is remembered, some 200 bytes each."
    )

    _secret_files: dict[str, Path] = PrivateAttr(default_factory=dict)

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
            settings = cls(**given, **missing) if missing else settings
        except ValidationError as error:
            raise SettingsInvalid(explain(error, cls.model_fields, given)) from None
        files = secret_files(read_variables(Path(), settings.environment), cls.model_fields)
        settings._secret_files = {name: path for name, path in files.items() if name not in given}  # noqa: SLF001  # ours
        return settings

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

    def file_of(self, field: str) -> Path | None:
        """The file that a secret field was read from; None where it was given directly, or not at all."""
        return self._secret_files.get(field)

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

    @field_validator(
        "secrets_dir",
        "upstream_ca_file",
        "oidc_ca_file",
        "redis_ca_file",
        "redis_credentials_file",
        "cache_redis_ca_file",
        "cache_redis_credentials_file",
        "kubernetes_config",
    )
    @classmethod
    def _exists(cls, value: Path | None, info: Any) -> Path | None:
        if value is not None and not (value.is_dir() if info.field_name == "secrets_dir" else value.is_file()):
            raise ValueError("does not exist")
        return value

    @field_validator("admin_token", "admin_read_token")
    @classmethod
    def _is_token(cls, value: str | None) -> str | None:
        if value is not None and not is_token(value):
            raise ValueError("not a token")
        return value

    @field_validator("registry_namespace")
    @classmethod
    def _is_namespace(cls, value: str | None) -> str | None:
        if value is not None and re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", value) is None:
            raise ValueError("not the name of a namespace")
        return value

    @field_validator("admin_url")
    @classmethod
    def _is_base_url(cls, value: str | None) -> str | None:
        if value is not None and _BASE_URL.fullmatch(value) is None:
            raise ValueError("not a base URL")
        return value

    @field_validator("keys_cache_file")
    @classmethod
    def _can_be_kept(cls, value: Path | None) -> Path | None:
        if value is not None and (value.is_dir() or not value.parent.is_dir()):
            raise ValueError("not a file in an existing folder")
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

    @field_validator("cache_redis_url")
    @classmethod
    def _is_other_redis_url(cls, value: str | None) -> str | None:
        if value is not None and (value == "embedded" or _REDIS_URL.fullmatch(value) is None):
            raise ValueError("not the address of a Redis")
        return value

    @field_validator("routing_headers")
    @classmethod
    def _are_headers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_HEADER.fullmatch(name) and name not in _CREDENTIALS for name in value):
            raise ValueError("not a header that may be looked at")
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
        if self.admin_token is not None and self.admin_token == self.admin_read_token:
            raise ValueError(
                f"{environment_name('admin_read_token')}: expected another token than {environment_name('admin_token')}"
            )
        if self.upstream_max_idle_connections > self.upstream_max_connections:
            raise ValueError(
                f"{environment_name('upstream_max_idle_connections')}: expected at most"
                f" {environment_name('upstream_max_connections')} ({self.upstream_max_connections})"
            )
        return self
