"""Settings become the bounds of the parts they are for."""

from __future__ import annotations

from pathlib import Path

from gateway.app import signing
from gateway.app.container import (
    connection_limits,
    edge_options,
    fetch_options,
    key_options,
    token_options,
    upstream_limits,
)
from gateway.auth import FetchOptions, KeyOptions, TokenOptions
from gateway.settings import Settings
from gateway.upstream.google_tokens import TokenOptions as AccessTokenOptions


def test_every_bound_of_connections_comes_from_its_setting() -> None:
    """A setting that reached nobody would be a lie in the documentation."""
    settings = Settings.load(
        max_header_bytes="2000",
        max_header_count="11",
        max_connections="12",
        client_header_timeout_s="13",
        client_keep_alive_s="14",
        client_write_timeout_s="15",
        client_connection_max_age_s="16",
    )
    limits = connection_limits(settings)
    assert limits.max_header_bytes == 2000
    assert limits.max_header_count == 11
    assert limits.max_connections == 12
    assert limits.header_timeout_s == 13
    assert limits.keep_alive_s == 14
    assert limits.write_timeout_s == 15
    assert limits.max_age_s == 16


def test_every_bound_of_upstream_comes_from_its_setting() -> None:
    """Each field of the upstream's limits that has a setting of its own."""
    values = {
        "upstream_max_connections": 300,
        "upstream_max_idle_connections": 30,
        "upstream_idle_s": 31,
        "upstream_connection_max_age_s": 32,
        "upstream_dns_ttl_s": 33,
        "upstream_max_header_bytes": 3400,
        "upstream_max_header_count": 35,
        "upstream_max_body_bytes": 3600,
        "upstream_max_error_body_bytes": 3700,
        "upstream_max_event_bytes": 3800,
    }
    limits = upstream_limits(Settings.load(**values))
    for name, value in values.items():
        assert getattr(limits, name.removeprefix("upstream_")) == value


def test_every_bound_of_tokens_comes_from_its_setting(tmp_path: Path) -> None:
    """What is fetched, how long it is kept, and what a token may be."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("")
    settings = Settings.load(
        oidc_ca_file=ca_file,
        oidc_timeout_s="6",
        oidc_max_document_bytes="7000",
        oidc_keys_ttl_s="8",
        oidc_refresh_interval_s="9",
        oidc_leeway_s="10",
        oidc_max_token_bytes="1100",
        oidc_max_verified_tokens="12",
    )
    assert fetch_options(settings) == FetchOptions(timeout_s=6, max_document_bytes=7000, ca_file=ca_file)
    assert key_options(settings) == KeyOptions(ttl_s=8, refresh_interval_s=9)
    assert token_options(settings) == TokenOptions(max_token_bytes=1100, leeway_s=10, max_verified=12)


def test_the_defaults_of_tokens_are_those_of_the_settings() -> None:
    """One truth, written twice."""
    settings = Settings.load()
    assert fetch_options(settings) == FetchOptions()
    assert key_options(settings) == KeyOptions()
    assert token_options(settings) == TokenOptions()


def test_every_bound_of_access_tokens_comes_from_its_setting(tmp_path: Path) -> None:
    """Those that are asked for with a service account; the defaults are the same."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("")
    settings = Settings.load(upstream_token_timeout_s="6", upstream_token_renew_s="7", upstream_ca_file=ca_file)
    assert signing.token_options(settings) == AccessTokenOptions(timeout_s=6, renew_s=7, ca_file=ca_file)
    assert signing.token_options(Settings.load()) == AccessTokenOptions()


def test_the_options_of_the_edge_come_from_their_settings() -> None:
    """Including those that are off by default."""
    options = edge_options(
        Settings.load(
            max_body_bytes="4000",
            client_body_timeout_s="5",
            max_top_level_fields="20",
            default_scenario="chat",
            expose_backend=True,
            docs=False,
            cors_allow_origins="https://a.example",
            trusted_proxies="10.0.0.0/8",
        )
    )
    assert (options.limits.max_body_bytes, options.limits.body_timeout_s) == (4000, 5)
    assert options.limits.max_top_level_fields == 20
    assert (options.default_scenario, options.expose_backend, options.docs) == ("chat", True, False)
    assert options.cors_allow_origins == ("https://a.example",)
    assert [str(network) for network in options.trusted_proxies] == ["10.0.0.0/8"]
