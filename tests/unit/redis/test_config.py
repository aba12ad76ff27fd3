"""The address of Redis in its parts."""

from __future__ import annotations

import pytest

from gateway.redis.config import Address, Credentials, RedisConfig, Server, parse_url

LOCAL = (Address("localhost", 6379),)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("redis://localhost", Server("single", LOCAL)),
        ("redis://localhost/", Server("single", LOCAL)),
        ("redis://localhost/3", Server("single", LOCAL, db=3)),
        ("redis://localhost?db=3", Server("single", LOCAL, db=3)),
        ("redis://[::1]:7000", Server("single", (Address("::1", 7000),))),
        ("rediss://localhost", Server("single", LOCAL, tls=True)),
        ("redis://:p%40ss@localhost", Server("single", LOCAL, credentials=Credentials("", "p@ss"))),
        ("redis://bob:p:a@localhost", Server("single", LOCAL, credentials=Credentials("bob", "p:a"))),
        ("redis://bob@localhost", Server("single", LOCAL)),
        ("unix:///run/valkey.sock?db=1", Server("single", (Address("/run/valkey.sock", 0),), db=1)),
        ("unix://u:p@/run/v", Server("single", (Address("/run/v", 0),), credentials=Credentials("u", "p"))),
        (
            "redis+sentinel://a,b:7/limits/2?sentinel_password=s",
            Server(
                "sentinel",
                (Address("a", 26379), Address("b", 7)),
                db=2,
                service="limits",
                sentinel_credentials=Credentials("", "s"),
            ),
        ),
        ("rediss+sentinel://a", Server("sentinel", (Address("a", 26379),), tls=True, service="mymaster")),
        ("redis+cluster://a:1,b:2", Server("cluster", (Address("a", 1), Address("b", 2)))),
        ("rediss+cluster://a", Server("cluster", (Address("a", 6379),), tls=True)),
    ],
)
def test_forms_of_addresses(url: str, server: Server) -> None:
    """Every form that is documented."""
    assert parse_url(url) == server


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "redis://",
        "redis://:hunter2@",
        "redis://a,b",
        "redis://a:0",
        "redis://a:65536",
        "redis://a:x",
        "redis://[::1",
        "redis://a/x",
        "redis://a/1/2",
        "redis://a/99999",
        "redis://hunter2@a?timeout=3",
        "redis://a?db",
        "redis+sentinel://a?hunter2",
        "redis://:hunter2\u2100@a",
        "redis+cluster://a/1",
        "redis+sentinel://a/s/x",
        "unix://host/path",
        "unix://",
    ],
)
def test_wrong_addresses_are_refused_without_being_quoted(url: str) -> None:
    """The text may be logged; an address holds a password."""
    with pytest.raises(ValueError) as refusal:
        parse_url(url)
    assert "hunter2" not in str(refusal.value)


def test_a_password_is_not_shown() -> None:
    """Neither by a configuration nor by its parts."""
    config = RedisConfig(server=parse_url("redis+sentinel://bob:hunter2@h?sentinel_password=hunter2"))
    assert "hunter2" not in repr(config)
    assert "bob" in repr(config)
